"""The comparison with other loaders: what needs none of them. The rest is a measurement, `tools/bench peers`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import s3prl_stream as ss

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from peers import clips, compare
from peers.loaders import PEERS


def test_clips_are_those_of_the_set(sample_set: Path) -> None:
    shards = ss.open_shards(sample_set)
    rows = shards.table().to_pylist()
    found = {clip.key: clip for clip in clips.read_clips(sample_set)}
    assert len(found) == len(rows)
    for row in rows:
        clip = found[row["key"]]
        assert clip.seconds == pytest.approx(row["frames"] / row["sample_rate"])
        assert clip.speaker == row["speaker"]


@pytest.mark.parametrize("decoder", compare.DECODERS)
def test_both_decoders_give_the_same_waveform(sample_set: Path, decoder: str) -> None:
    clip = next(clips.read_clips(sample_set))
    wav = clips.decode(clip.flac, decoder)
    assert len(wav) == round(clip.seconds * clips.SAMPLE_RATE)
    assert (wav == clips.decode(clip.flac, "dr_flac")).all()


def test_figures_of_known_batches() -> None:
    about = {key: (1.0, key[0], 0) for key in ("a1", "a2", "b1", "b2")}
    first = [(["a1", "b1"], [1.0, 3.0]), (["a2", "b2"], [2.0, 2.0])]
    second = [(["a1", "b1"], [1.0, 3.0]), (["a2"], [2.0]), (["b2"], [2.0])]
    found = compare.quality([first, second], about)
    assert found["padding"] == pytest.approx(1 - 8 / 10)
    assert found["filled"] == pytest.approx(5 / 6)
    assert found["repeated_pairs"] == 0.5
    assert compare.ledger(["a1", "a1", "b1"], about) == {"twice": 1, "lost": 2}


def test_every_loader_of_the_table_is_there() -> None:
    assert [*compare.OURS, *compare.PEERS] == list(PEERS)
