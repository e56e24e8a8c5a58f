"""Which request gets which fault, and how a fault spec is read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream.chaos import (
    Chance,
    Cut,
    Fault,
    FlippedByte,
    Request,
    Short,
    Slow,
    Stall,
    Unavailable,
    by_chance,
    by_list,
    parse_chances,
)
from s3prl_stream.chaos.faults import KINDS
from s3prl_stream.errors import UsageError


def get(number: int, path: str = "/bucket/set-000000.tar") -> Request:
    return Request(number, "GET", path, None)


def kinds(chances: Sequence[Chance], count: int, *, seed: int = 0, path: str = "/a.tar") -> list[str | None]:
    choose = by_chance(chances, seed=seed)
    found = [choose(get(number, path)) for number in range(count)]
    return [None if fault is None else fault.kind for fault in found]


def test_a_spec_with_everything() -> None:
    assert parse_chances("503@*.tar:0.05:burst=3, cut:0.1:after_bytes=7,stall:1:seconds=2.5,flip:0.5") == [
        Chance(Unavailable(503), 0.05, "*.tar", 3),
        Chance(Cut(7), 0.1),
        Chance(Stall(2.5), 1.0),
        Chance(FlippedByte(), 0.5),
    ]
    assert parse_chances("") == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_written_and_is_called_so(kind: str) -> None:
    (chance,) = parse_chances(f"{kind}:0.25")
    assert (chance.fault.kind, chance.probability) == (kind, 0.25)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("503", ["503:0.05"]),
        ("brake:0.1", ["brake", "cut"]),
        ("cut:often", ["often"]),
        ("cut:1.5", ["0 to 1"]),
        ("cut:nan", ["0 to 1"]),
        ("cut:0.1:after_bytes=-1", ["after_bytes", "0 or more"]),
        ("cut:0.1:after_bytes=x", ["after_bytes=x"]),
        ("cut:0.1:seconds=3", ["seconds", "after_bytes"]),
        ("cut:0.1:reset=1", ["reset", "after_bytes"]),
        ("stall:0.1:seconds=nan", ["seconds", "0 or more"]),
        ("503:0.1:burst=0", ["burst"]),
        ("503:0.1:status=200", ["status"]),
        ("slow:0.1:bytes_per_second=0", ["bytes_per_second"]),
        ("short:0.1:missing_bytes=0", ["missing_bytes"]),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(spec: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_chances(spec)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Unavailable(200), "fault 200: an error status is"),
        (lambda: Short(0), "short: missing_bytes is 1 or more"),
        (lambda: Slow(0), "slow: bytes_per_second is 1 or more"),
        (lambda: Cut(-1), "cut: after_bytes is 0 or more"),
    ],
)
def test_faults_that_make_no_sense(build: type[Fault], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build()


def test_a_list_is_dealt_out_in_order() -> None:
    choose = by_list([Cut(1), None, Unavailable()])
    assert [choose(get(number)) for number in range(5)] == [Cut(1), None, Unavailable(), None, None]


@given(st.integers(0, 2**32), st.integers(0, 500))
def test_chances_are_a_pure_function_of_seed_and_number(seed: int, number: int) -> None:
    chances = parse_chances("503:0.3,cut:0.3,flip:0.3")
    forwards = kinds(chances, number + 1, seed=seed)
    alone = by_chance(chances, seed=seed)(get(number, "/a.tar"))
    assert forwards[number] == (None if alone is None else alone.kind)


def test_another_seed_gives_other_faults() -> None:
    chances = parse_chances("503:0.5")
    assert kinds(chances, 64, seed=1) != kinds(chances, 64, seed=2)


def test_a_chance_is_as_often_as_it_says() -> None:
    found = kinds(parse_chances("503:0.05,cut:0.2"), 20_000)
    assert found.count("503") / 20_000 == pytest.approx(0.05, abs=0.006)
    assert found.count("cut") / 20_000 == pytest.approx(0.95 * 0.2, abs=0.012)


def test_taking_one_fault_away_leaves_the_others_where_they_were() -> None:
    both = kinds(parse_chances("503:0.1,cut:0.2"), 1000)
    alone = kinds(parse_chances("cut:0.2"), 1000)
    assert all(mixed in ("503", single) for mixed, single in zip(both, alone, strict=True))


def test_a_burst_lasts_as_long_as_it_says() -> None:
    single = kinds(parse_chances("503:0.01"), 2000)
    burst = kinds(parse_chances("503:0.01:burst=3"), 2000)
    begun = {number for number, kind in enumerate(single) if kind}
    assert begun
    expected = {number for first in begun for number in range(first, first + 3)}
    assert {number for number, kind in enumerate(burst) if kind} == {number for number in expected if number < 2000}


def test_a_glob_limits_a_fault_to_its_paths() -> None:
    chances = parse_chances("cut@*.tar:1")
    assert kinds(chances, 3, path="/bucket/set/set-000000.tar") == ["cut"] * 3
    assert kinds(chances, 3, path="/bucket/set/manifest.json") == [None] * 3
