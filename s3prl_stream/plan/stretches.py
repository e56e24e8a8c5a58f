"""From clips to stretches: chunks, crops, repeated draws, and what happens to a clip that fits no batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from s3prl_stream.hashing import U64, hash64, uniform
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.shards.member import I64


class Stretches(NamedTuple):
    """N stretches of clips, in the order of the bytes."""

    row: I64  # which clip
    first_frame: I64
    num_frames: I64
    draw: I64


def cut_clips(
    frames: I64, sample_rate: I64, identities: U64, draws: I64, settings: PlanSettings, epoch: int
) -> tuple[Stretches, I64]:
    """Turn clips into the stretches that an epoch delivers.

    Args:
        frames, sample_rate, identities: [clips]; identities are hashes of (set, key).
        draws: [clips], how often each clip is drawn in this epoch (1 unless balanced).
        settings, epoch: of the plan.

    Returns:
        The stretches, and the clips left out because they are too long (`too_long="skip"`).
    """
    row = np.repeat(np.arange(len(frames)), draws)
    draw = _count_up(draws)
    length = frames[row]
    random = hash64("crop", settings.seed, epoch, identities[row], draw)
    limit = np.maximum(np.floor(settings.max_batch_seconds * sample_rate[row] + 1e-6).astype(np.int64), 1)
    if settings.crop_seconds is not None:
        want = np.maximum(np.round(settings.crop_seconds * sample_rate[row]).astype(np.int64), 1)
        if settings.crops == "per_seconds":
            pieces = np.maximum(np.floor(length / want + uniform(hash64("pieces", random))), 1).astype(np.int64)
            row, want, length = (np.repeat(values, pieces) for values in (row, want, length))
            draw = np.repeat(draw, pieces) * (1 << 20) + _count_up(pieces)
            random = hash64("crop", settings.seed, epoch, identities[row], draw)
        return _crop(row, draw, length, want, random), np.zeros(0, dtype=np.int64)
    if settings.chunk_seconds is not None:
        want = np.maximum(np.round(settings.chunk_seconds * sample_rate[row]).astype(np.int64), 1)
        return _split(row, draw, length, want), np.zeros(0, dtype=np.int64)
    if settings.too_long == "crop":
        return _crop(row, draw, length, limit, random), np.zeros(0, dtype=np.int64)
    if settings.too_long == "skip":
        fits = length <= limit
        return _crop(row[fits], draw[fits], length[fits], limit[fits], random[fits]), np.unique(row[~fits])
    return _split(row, draw, length, limit), np.zeros(0, dtype=np.int64)


def _crop(row: I64, draw: I64, length: I64, want: I64, random: U64) -> Stretches:
    num = np.minimum(length, want)
    first = np.floor(uniform(random) * (length - num + 1)).astype(np.int64)
    return Stretches(row, first, num, draw)


def _split(row: I64, draw: I64, length: I64, want: I64) -> Stretches:
    """Equal pieces, none longer than `want`: no short tail, no second lost or delivered twice."""
    pieces = np.maximum(-(-length // want), 1)
    if (pieces == 1).all():
        return Stretches(row, np.zeros(len(row), dtype=np.int64), length, draw)
    which = _count_up(pieces)
    row, draw, length, pieces = (np.repeat(values, pieces) for values in (row, draw, length, pieces))
    first = which * length // pieces
    return Stretches(row, first, (which + 1) * length // pieces - first, draw)


def _count_up(repeats: I64) -> I64:
    """[2, 0, 3] -> [0, 1, 0, 1, 2]."""
    ends = np.cumsum(repeats)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - repeats, repeats)
