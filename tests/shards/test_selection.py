"""`where`, `subset` and `balance`: what is selected, and that nothing is evaluated as code."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
import pytest
from damage import change_row, rows_of
from streams import clips
from synthetic_index import make_synthetic_index

import s3prl_stream as ss
from s3prl_stream import sign_of_life
from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64, key_hash
from s3prl_stream.shards import amounts, whole_index
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.selection import compile_selection, longest_seconds
from s3prl_stream.shards.shardset import ShardSet, as_shard_set


@pytest.fixture(scope="module")
def shards() -> ShardSet:
    """600 clips of 1 to 6 s, three speakers of unequal share, takes as text, some without a label."""
    samples = [
        {
            "key": f"k{number}",
            "wav": np.zeros(16_000 * (1 + number % 6), dtype=np.int16),
            "speaker": "abc"[min(number % 6, 2)],
            "take": str(number % 10),
            "label": None if number % 4 == 0 else f"l{number % 4}",
        }
        for number in range(1, 601)
    ]
    return ShardSet([MemoryShards(samples, samples_per_shard=50)])


def test_the_longest_clip_is_found_though_the_index_has_no_seconds_of_another(
    shards: ShardSet, sample_set: Path, tmp_path: Path
) -> None:
    assert longest_seconds(shards) == 6.0
    folder = shutil.copytree(sample_set, tmp_path / "set")
    longest, other = sorted(ss.open_shards(folder).table()["seconds"].to_pylist())[-1], rows_of(folder)[0]
    change_row(folder, other, lambda row: row.update(seconds=None), "index/part-00000.parquet")
    assert longest_seconds(ss.open_shards(folder)) == longest


def chosen(shards: ShardSet, **choice: Any) -> list[str]:
    selection = compile_selection(shards, **choice)
    keys = []
    for shard in range(shards.num_shards):
        mask = selection.mask(shard)
        rows = shards.rows(shard)
        keys += [key for at, key in enumerate(rows.key) if mask is None or mask[at]]
    assert len(keys) == len(selection)
    return keys


def seconds(keys: list[str]) -> int:
    return sum(1 + int(key[1:]) % 6 for key in keys)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("speaker == 'a'", lambda n: n % 6 == 0),
        ("speaker != 'a' and seconds > 3", lambda n: n % 6 > 2),
        ("not (speaker == 'c') or seconds == 6", lambda n: n % 6 in (0, 1, 5)),
        ("2 < seconds <= 4", lambda n: n % 6 in (2, 3)),
        ("speaker in ['a', 'b']", lambda n: n % 6 < 2),
        ("speaker not in ('a', 'b')", lambda n: n % 6 >= 2),
        ("label is None", lambda n: n % 4 == 0),
        ("label is not None and take < 3", lambda n: n % 4 and n % 10 < 3),
        ("key_hash < 3689348814741910323", lambda n: key_hash(f"k{n}") < 2**64 // 5),  # a fifth; of 64 bits unsigned
        (f"key_hash in ({key_hash('k7')}, 5)", lambda n: n == 7),
        ("0 <= key_hash", lambda n: True),
        ("take in (1, 2)", lambda n: n % 10 in (1, 2)),
        ("label == 'l1'", lambda n: n % 4 == 1),  # a row without a label is not kept
        ("not label == 'l1'", lambda n: n % 4 > 1),
        ("label not in ('l1', 'l2')", lambda n: n % 4 in (0, 3)),  # ... and is in no list
        ("label in ('l1', None)", lambda n: n % 4 < 2),
    ],
)
def test_where(shards: ShardSet, where: str, expected: Any) -> None:
    assert chosen(shards, where=where) == [f"k{number}" for number in range(1, 601) if expected(number)]


def test_a_chain_of_conditions(shards: ShardSet) -> None:
    """As a script writes them. Of some 10 000 in a row, Arrow crashes the process."""
    most = " or ".join([*[f"speaker == '{number}'" for number in range(1999)], "key == 'k7'"])
    assert chosen(shards, where=most) == ["k7"]
    for more in (f"{most} or key == 'k8'", "2 < " + " <= ".join(["seconds"] * 2001)):
        with pytest.raises(UsageError, match="has 2001 comparisons, at most 2000"):
            compile_selection(shards, where=more)
    many = ", ".join(f"'k{number}'" for number in range(500, 50_000))
    assert len(chosen(shards, where=f"key in ({many})")) == 101


def test_a_pyarrow_expression_passes(shards: ShardSet) -> None:
    assert chosen(shards, where=pyarrow.compute.field("speaker") == "a") == chosen(shards, where="speaker == 'a'")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("open('x')", "function call is not allowed"),
        ("__import__('os').system('true')", "function call"),
        ("speaker == open('x')", "function call"),
        ("speaker.upper() == 'A'", "function call"),
        ("speaker == 'a' if True else False", "not allowed"),
        ("seconds + 1 > 2", "not allowed"),
        ("[s for s in speaker]", "not allowed"),
        ("speeker == 'a'", "Did you mean 'speaker'"),
        ("speaker == ", "not an expression"),
        ("speaker > 3", "cannot be evaluated"),
        ("'a'", "not allowed"),
        ("speaker == 'nobody'", r"^where=\"speaker == 'nobody'\" selects none of the 600"),
        ("label != None", "compares with None.*write is None"),
        ("not speaker", "the column 'speaker' holds string, which is no condition"),
        ("frames < 9223372036854775808", "a whole number is beyond what its column can hold"),
        ("frames in (1, -9223372036854775809)", "a whole number is beyond"),
        ("key_hash < 18446744073709551616", "a whole number is beyond"),
    ],
)
def test_where_refuses(shards: ShardSet, where: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        compile_selection(shards, where=where)
    assert "\n" not in str(caught.value)


def test_subsets_are_nested_and_as_large_as_asked(shards: ShardSet) -> None:
    total = 600 * 3.5
    previous: set[str] = set()
    for subset, wanted in (("1%", 21), ("60s", 60), ("5min", 300), ("25%", total / 4), ("0.5h", 1800), ("100%", total)):
        keys = set(chosen(shards, subset=subset))
        assert previous <= keys
        assert wanted <= seconds(list(keys)) < wanted + 6
        previous = keys
    assert len(previous) == 600


@pytest.mark.parametrize("where", [None, "speaker != 'a'"])
@pytest.mark.parametrize("amount", ["90s", "700s", "0.1%", "30%", "99h"])
def test_a_subset_is_the_beginning_of_all_rows_in_their_order(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, amount: str, where: str | None
) -> None:
    """However few rows are held on the way."""
    numbers = [number for number in range(1, 601) if where is None or number % 6]
    ordered = sorted(numbers, key=lambda number: int(hash64("subset", "memory", key_hash(f"k{number}"))))
    length = {number: 1 + number % 6 for number in numbers}
    wanted = {"90s": 90.0, "700s": 700.0, "99h": 99 * 3600.0}.get(
        amount, sum(length.values()) * float(amount[:-1]) / 100
    )
    before = np.cumsum([0, *(length[number] for number in ordered)])
    expected = {f"k{number}" for number, seconds in zip(ordered, before, strict=False) if seconds < wanted}
    monkeypatch.setattr(whole_index, "_ROWS_AT_ONCE", 50)
    for most in (1, 100, 1 << 20):
        monkeypatch.setattr(amounts, "_MOST_HELD", most)
        assert set(chosen(shards, subset=amount, where=where)) == expected


def test_a_subset_does_not_trust_the_manifests_seconds(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = chosen(shards, subset="30%")
    monkeypatch.setattr(shards, "shard_seconds", shards.shard_seconds / 10)
    assert chosen(shards, subset="30%") == expected


@pytest.mark.parametrize(
    "choice",
    [{"subset": "1h"}, {"subset": "90%"}, {"subset": "2h by language"}, {"subset": "10% by language"},
     {"key_range": (0.0, 0.001), "subset": "50% by language"}],
)  # fmt: skip
def test_a_subset_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: dict[str, Any]) -> None:
    """Each rank selects. Holding two numbers a row would be 16 bytes, and sorting them twice that."""
    make_synthetic_index(tmp_path / "set", 40)
    for module, name, value in (
        (whole_index, "_ROWS_AT_ONCE", 1250),
        (amounts, "_MOST_HELD", 1250),
        (amounts, "_MOST_CELLS", 1 << 13),
    ):
        monkeypatch.setattr(module, name, value)
    many = ss.open_shards(tmp_path / "set")
    compile_selection(many, **choice)  # what is imported and opened stays
    tracemalloc.start()
    selection = compile_selection(many, **choice)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < len(selection) < len(many)
    assert peak / len(many) < 10


def test_what_a_subset_takes_is_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 000 clips in 10 shards; the fingerprints of the first version that wrote a cursor."""
    make_synthetic_index(tmp_path / "set", 10, samples_per_shard=1000)
    many = ss.open_shards(tmp_path / "set")
    frozen: dict[str, dict[str, Any]] = {
        "f8ba8b72c8580cfb": {"subset": "90s"},
        "a1e401efc22dd57a": {"subset": "1%"},
        "0abc9054ac1dc0c6": {"subset": "30%", "where": "language != 'en'"},
        "04f74b75ede75188": {"subset": "5h", "key_range": (0.25, 1)},
        "fb14772404fbcf3f": {"subset": "10% by speaker"},
        "631b99cba57e87a4": {"subset": "2h by language"},
        "386ff23370bce6a1": {"subset": "10h by speaker"},
        "ed2c993666427063": {"subset": "7% by language", "where": "seconds > 7", "key_range": (0, 0.5)},
        "4e39a677522a10bb": {"where": "language == 'de'"},
        "1f48ed776473cba9": {"key_range": (0.5, 0.75)},
    }
    for most in (100, 1 << 20):
        monkeypatch.setattr(amounts, "_MOST_HELD", most)
        found = {wanted: compile_selection(many, **choice).fingerprint for wanted, choice in frozen.items()}
        assert list(found.values()) == list(frozen)


def test_a_long_look_at_the_index_tells_how_far_it_is(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sign_of_life, "_EVERY_SECONDS", -1.0)
    with caplog.at_level("INFO", "s3prl_stream"):
        compile_selection(shards, where="speaker == 'a'")
    assert "reading the index: 0.0 of 0.0 million rows" in caplog.text


def test_ranges_of_keys_share_no_clip_and_miss_none(shards: ShardSet) -> None:
    few, most = (set(chosen(shards, key_range=key_range)) for key_range in ((0, 0.2), (0.2, 1)))
    assert 90 < len(few) < 150
    assert not few & most
    assert len(few | most) == 600


def test_a_subset_does_not_depend_on_what_lies_beside_it(shards: ShardSet) -> None:
    few = chosen(shards, where="speaker == 'a'", subset="10%")
    assert 10 <= seconds(few) < 11
    assert all(int(key[1:]) % 6 == 0 for key in few)


def test_a_set_of_less_than_was_asked_for_is_told(shards: ShardSet, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(shards, subset="1h") == chosen(shards)
    assert caplog.messages == ["subset '1h': there are only 0.583 h, and all of them are taken"]
    caplog.clear()
    compile_selection(shards, where="speaker != 'a'", subset="15min by speaker")
    said = "1 of 2 values of 'speaker' have less than their 0.125 h, and 0.181 h are taken in all"
    assert caplog.messages == [f"subset '15min by speaker': {said}"]
    caplog.clear()
    for enough in ("2100s", "100%", "90s by speaker", "100% by speaker"):
        compile_selection(shards, subset=enough)
    assert not caplog.messages


def test_a_balanced_subset_takes_as_much_of_each(shards: ShardSet) -> None:
    keys = chosen(shards, subset="3min by speaker")
    by_speaker = [[key for key in keys if min(int(key[1:]) % 6, 2) == speaker] for speaker in range(3)]
    assert all(60 <= seconds(some) < 66 for some in by_speaker)
    shares = chosen(shards, subset="10% by speaker")
    assert 10 <= seconds([key for key in shares if int(key[1:]) % 6 == 0]) < 11


def test_a_column_that_only_one_of_the_sets_has_is_told(shards: ShardSet) -> None:
    other = MemoryShards([{"key": "a", "wav": np.zeros(160, np.float32), "sample_rate": 16_000}], name="other")
    both = ShardSet([*shards.members, other])
    for choice in ({"where": "speaker == 'x'"}, {"balance": "speaker"}):
        with pytest.raises(UsageError, match=r"'speaker'; it is in memory, not in other; all have key, "):
            compile_selection(both, **choice)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'dialect'; all sets have key, "):
        compile_selection(both, where="dialect == 'x'")
    stream = ss.ShardStream(both)
    for chain in (
        lambda: stream.encode_category("speaker"),
        lambda: stream.encode_category("speaker", categories=["a"]),
        lambda: stream.tokenize(train_tokenizer=True, text="speaker"),
    ):
        with pytest.raises(UsageError, match=r"'speaker'.* is in memory, not in other"):
            chain()
    told = {sample["set"]: "speaker" in sample for sample in ss.ShardStream(both, epochs=1)}
    assert told == {"memory": True, "other": False}


def test_a_list_of_sets_is_one_set_whatever_they_are(shards: ShardSet, sample_set: Path) -> None:
    small = MemoryShards([{"wav": np.zeros(160, np.float32)}], name="small")
    together = as_shard_set([shards, small, str(sample_set)])
    assert [member.name for member in together.members] == ["memory", "small", ss.open_shards(sample_set).name]
    assert len(as_shard_set([small, MemoryShards([{"wav": np.zeros(160, np.float32)}])])) == 2
    with pytest.raises(UsageError, match=r"two of the sets are called 'small'.* MemoryShards\(samples, name\)"):
        as_shard_set([small, small])
    with pytest.raises(UsageError, match="a mix by weights is no part of a list"):
        as_shard_set([ss.open_shards({str(sample_set): 1.0}), small])
    with pytest.raises(UsageError, match="is no name of a column"):
        ss.ShardStream(small, balance=["speaker"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no shard set"):
        as_shard_set([small, {"wav": np.zeros(160, np.float32)}])


@pytest.mark.parametrize("wrong", ["10", "ten hours", "-1h", "120%", "10h by", "1h by nothing", ""])
def test_amounts_that_are_none(shards: ShardSet, wrong: str) -> None:
    said = "no column 'nothing'" if "nothing" in wrong else f"subset: '{wrong}' is (no amount|more than everything)"
    with pytest.raises(UsageError, match=said):
        compile_selection(shards, subset=wrong)


def test_balance_weighs_by_one_over_the_size_of_the_class(shards: ShardSet) -> None:
    selection = compile_selection(shards, balance="speaker")
    found = selection.weights(0)
    assert found is not None
    rows = shards.rows(0)
    expected = [600 / 3 / {0: 100, 1: 100, 2: 400}[min(int(key[1:]) % 6, 2)] for key in rows.key]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_fingerprints_follow_the_rows(shards: ShardSet) -> None:
    same = compile_selection(shards, where="speaker == 'a'").fingerprint
    assert compile_selection(shards, where="speaker in ('a',)").fingerprint == same
    assert compile_selection(shards, where="speaker == 'b'").fingerprint != same


def test_an_amount_by_column_is_shared_by_the_values_that_where_kept() -> None:
    chosen = ss.ShardStream(clips([1.0] * 700), where="speaker in ('s0', 's1')", subset="70s by speaker")
    assert len(chosen.selection) == 70


@pytest.mark.parametrize(
    "where", ["speaker in (1, 'x')", f"seconds > 1{'0' * 40}", f"seconds in (1{'0' * 40},)", "speaker in ()", 5]
)
def test_a_where_that_arrow_cannot_take_is_one_line(where: Any) -> None:
    with pytest.raises(UsageError, match="where: ") as caught:
        ss.ShardStream(clips([1.0, 2.0]), where=where)
    assert "\n" not in str(caught.value)
