"""Keys survive WebDataset and tar, and different names stay different."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tars import unescaped

from s3prl_stream.shards.keys import MAX_KEY_BYTES, escape_foreign_key, escape_key

names = st.text(st.characters(codec="utf-8") | st.sampled_from("/.%+ ab-\\\n"), max_size=60)


@given(names)
def test_keys_are_fit_for_tars(name: str) -> None:
    key = escape_key(name)
    assert not set("./\\ \n\0") & set(key)
    assert len(key.encode()) <= MAX_KEY_BYTES


@given(names)
def test_short_keys_can_be_turned_back(name: str) -> None:
    key = escape_key(name)
    if "%%" not in key:
        assert unescaped(key) == name


@given(st.lists(names | st.text("ab./+%", max_size=200), unique=True, max_size=20))
def test_different_names_give_different_keys(several: list[str]) -> None:
    assert len({escape_key(name) for name in several}) == len(several)


def test_plain_names_stay_as_they_are() -> None:
    assert escape_key("103-1240-0000") == "103-1240-0000"
    assert escape_key("alexa/127") == "alexa+127"
    assert escape_key("a.1") == "a%2E1"
    assert escape_key("trñ00") == "trñ00"
    assert escape_key("\udcff") == "%ED%B3%BF"
    assert escape_key("x" * 88) == "x" * 88
    assert escape_key("x" * 100) == "x" * 70 + "%%9ab81e889c7b4221"  # sets that were packed have such keys


@given(names | st.text("a./+%\udcff", max_size=20))
def test_keys_of_others_can_be_turned_back(name: str) -> None:
    assert unescaped(escape_foreign_key(name)) == name
