"""A piece of an utterance: what of a sample is still true of it."""

from __future__ import annotations

from s3prl_stream.pipes.segments import cut_segments
from s3prl_stream.sample import UNCUTTABLE_KEYS, Sample


def piece_of(sample: Sample, start: int, stop: int, stage_id: str) -> Sample:
    """Waveform samples [start, stop) of a sample with `wav` and `sample_rate`, as a sample with an identity of its own.

    It loses its text and tokens, if it is not the whole; its segments are cut to it, and start_sec and end_sec, which
    say where in its file a sample lies, follow.
    """
    wav, rate = sample["wav"], int(sample["sample_rate"])
    piece = {**sample, "wav": wav[start:stop], "identity": identity_of_piece(sample, start, stage_id)}
    if (start, stop) == (0, len(wav)):
        return piece
    for key in UNCUTTABLE_KEYS:
        piece.pop(key, None)
    piece.update(cut_segments(sample, start / rate, stop / rate))
    if "start_sec" in sample or "end_sec" in sample:
        begin = float(sample.get("start_sec") or 0.0)
        piece.update(start_sec=begin + start / rate, end_sec=begin + stop / rate)
    return piece


def identity_of_piece(sample: Sample, start: int, stage_id: str) -> str:
    """What the random draws on a piece follow from: the sample, the stage that cut it, and where it begins."""
    return f"{sample['identity']}/{stage_id}:{start}"
