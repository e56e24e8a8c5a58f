"""Requests for the samples of a batch: everything asked for, nothing twice, nothing too large."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream.stores.coalesce import MAX_GAP_BYTES, MAX_REQUEST_BYTES, coalesce

ranges = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 120)).map(lambda one: (one[0], one[0] + one[1])))


def test_neighbours_and_near_ones_are_one_request() -> None:
    assert list(coalesce([(10, 20), (0, 10), (25, 30)], max_gap=5)) == [(0, 30)]
    assert list(coalesce([(10, 20), (0, 10), (26, 30)], max_gap=5)) == [(0, 20), (26, 30)]
    assert list(coalesce([(0, MAX_GAP_BYTES), (2 * MAX_GAP_BYTES, 2 * MAX_GAP_BYTES + 1)])) == [
        (0, 2 * MAX_GAP_BYTES + 1)
    ]


def test_no_request_is_larger_than_it_should_be() -> None:
    size = MAX_REQUEST_BYTES
    assert list(coalesce([(0, 2 * size + 5)])) == [(0, size), (size, 2 * size), (2 * size, 2 * size + 5)]
    assert list(coalesce([(0, size), (size, size + 5)])) == [(0, size), (size, size + 5)]


def test_nothing_is_no_request() -> None:
    assert list(coalesce([])) == []
    assert list(coalesce([(5, 5), (0, 0)])) == []


@given(ranges, st.integers(0, 50), st.integers(1, 200))
def test_requests_cover_all_that_is_asked_for_once(
    asked: list[tuple[int, int]], max_gap: int, max_request: int
) -> None:
    requests = list(coalesce(asked, max_gap=max_gap, max_request=max_request))
    wanted = {byte for start, stop in asked for byte in range(start, stop)}
    read = [byte for start, stop in requests for byte in range(start, stop)]
    assert len(read) == len(set(read))
    assert wanted <= set(read)
    assert requests == sorted(requests)
    assert all(0 < stop - start <= max_request for start, stop in requests)
    # bytes that nobody asked for lie in gaps between two ranges, and no gap is larger than allowed
    extra = sorted(set(read) - wanted)
    gaps = [byte for number, byte in enumerate(extra) if number == 0 or byte != extra[number - 1] + 1]
    for begin in gaps:
        end = begin
        while end in set(extra):
            end += 1
        assert end - begin <= max_gap
        assert begin - 1 in wanted
        assert end in wanted


@given(ranges, st.integers(0, 50))
def test_no_two_requests_could_be_one(asked: list[tuple[int, int]], max_gap: int) -> None:
    requests = list(coalesce(asked, max_gap=max_gap, max_request=10_000))
    assert all(start - stop > max_gap for (_, stop), (start, _) in itertools.pairwise(requests))
