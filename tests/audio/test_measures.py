"""What is measured of a clip, against the plainest arithmetic; and where a recording is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from s3prl_stream.audio.measures import FRAME_SECONDS, measure
from s3prl_stream.audio.silences import Silence, cuts_in_silences, find_silences, levels_db

RATE = 1000  # frames of 20 samples


@settings(max_examples=200)
@given(
    arrays(np.int16, st.integers(1, 3000), elements=st.integers(-32768, 32767)),
    st.sampled_from([1, 40, 3000]),
    st.integers(0, 3000),
)
def test_measures_are_what_they_say(wav: np.ndarray, divisor: int, quiet: int) -> None:
    wav = (wav // divisor).astype(np.int16)
    wav[:quiet] = wav[:quiet] // 1000
    found = measure(wav, RATE)
    hop = round(FRAME_SECONDS * RATE)
    values = wav.astype(int)
    frames = [values[start : start + hop] for start in range(0, len(values), hop)]
    silent = sum(20 * np.log10(max(abs(frame).max(), 1e-9) / 32768) < -60 for frame in frames)
    assert found.clipped_share == pytest.approx((abs(values) >= 32767).mean(), abs=1e-6)
    assert found.silent_share == pytest.approx(silent / len(frames), abs=1e-4)
    assert found.dc_offset == pytest.approx(values.mean() / 32768, abs=1e-5)


def test_long_clips_do_not_overflow() -> None:
    wav = np.full(40_000_000, -32768, dtype=np.int16)
    assert measure(wav, 16_000) == (1.0, 0.0, -1.0)


@settings(max_examples=200)
@given(
    num_frames=st.integers(1, 5000),
    longest=st.integers(8, 900),
    silences=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 300)), max_size=40),
)
def test_pieces_are_short_enough_and_cover_everything(
    num_frames: int, longest: int, silences: list[tuple[int, int]]
) -> None:
    edges = cuts_in_silences(num_frames, [Silence(*one) for one in silences], longest)
    assert (edges[0], edges[-1]) == (0, num_frames)
    assert all(0 < stop - start <= longest for start, stop in itertools.pairwise(edges))


def test_silences_are_cut_away_from_ends_and_near_the_middle() -> None:
    assert cuts_in_silences(100, [Silence(50, 9)], 100) == [0, 100]
    assert cuts_in_silences(200, [], 100) == [0, 100, 200]
    assert cuts_in_silences(100, [Silence(2, 50), Silence(97, 60)], 80) == [0, 50, 100]
    assert cuts_in_silences(100, [Silence(30, 5), Silence(45, 5), Silence(70, 4)], 80) == [0, 45, 100]
    levels = np.repeat([-10.0, -80.0, -10.0, -80.0, -10.0], [20, 10, 20, 9, 20])
    assert find_silences(levels, 10) == [Silence(25, 10)]


@pytest.mark.parametrize("noise", [0, 3, 30])
def test_cuts_lie_in_the_middle_of_the_longest_pauses(noise: int) -> None:
    """Four stretches of tone, 2 s each, with pauses of 0.3, 0.6 and 0.2 s; pieces of at most 5 s: one cut is enough."""
    rate, rng = 16_000, np.random.default_rng(0)
    tone = 6000 * np.sin(np.arange(2 * rate) * 0.3)
    parts, middles, position = [], [], 0
    for pause in (0.3, 0.6, 0.2, 0.0):
        parts += [tone, np.zeros(int(pause * rate))]
        middles.append((position + len(tone) + int(pause * rate) / 2) / rate)
        position += len(tone) + int(pause * rate)
    wav = (np.concatenate(parts) + noise * rng.normal(size=position)).astype(np.int16)
    levels = levels_db(wav, rate // 100)
    silences = find_silences(levels, shortest_frames=10)
    assert [one.middle / 100 for one in silences] == pytest.approx(middles[:3], abs=0.02)
    edges = cuts_in_silences(len(levels), silences, longest=500)
    assert [edge / 100 for edge in edges[1:-1]] == pytest.approx([middles[1]], abs=0.02)
    assert [edge / 100 for edge in cuts_in_silences(len(levels), silences, longest=300)[1:-1]] == pytest.approx(
        middles[:3], abs=0.02
    )


@pytest.mark.parametrize("wav", [np.zeros(16_000, np.int16), np.full(16_000, 20_000, np.int16), np.zeros(0, np.int16)])
def test_where_all_is_alike_there_are_no_silences(wav: np.ndarray) -> None:
    assert find_silences(levels_db(wav, 160), 10) == []
