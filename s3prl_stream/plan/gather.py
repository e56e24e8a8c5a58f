"""Index rows of some shards -> the stretches of clips that one epoch delivers of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.hashing import U64, hash64, uniform
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.plan.stretches import cut_clips
from s3prl_stream.shards.member import I64, Rows
from s3prl_stream.shards.selection import Selection
from s3prl_stream.shards.shardset import ShardSet


class PlannedShard(NamedTuple):
    """A shard in a block."""

    set_index: int
    shard: int  # number in its set
    rows: Rows
    epoch: int  # of its set


class Gathered(NamedTuple):
    """The stretches of some shards that are delivered: N of them, in the order of bytes unless they were joined."""

    shards: list[PlannedShard]
    shard: I64  # [N], position in `shards`
    row: I64  # [N], of the clip in its shard
    first_frame: I64  # [N]
    num_frames: I64  # [N]
    draw: I64  # [N]
    seconds: npt.NDArray[np.float64]  # [N]
    identities: U64  # [N], hashes of (set, key, stretch)
    too_long: I64  # [clips left out, 2], position in `shards` and row


def gather(
    shard_set: ShardSet, selection: Selection, settings: PlanSettings, shards: Iterable[tuple[int, Rows]], epoch: int
) -> Gathered:
    """The arithmetic from rows to stretches. Pure.

    Args:
        shard_set: for names and numbers.
        selection: which rows, and how often.
        settings: of the plan.
        shards: (global number, rows) in the order of the epoch.
        epoch: of the stretches.
    """
    planned, keep, names, expected = [], [], [], []
    for number, rows in shards:
        member, local = shard_set.locate(number)
        mask, weights = selection.mask(number), selection.weights(number)
        on = np.arange(len(rows.frames)) if mask is None else np.flatnonzero(mask)
        planned.append(PlannedShard(member, local, rows, epoch))
        keep.append(on)
        names.append(shard_set.members[member].name)
        if weights is not None:
            expected.append(weights[on])
    frames = np.concatenate([one.rows.frames[on] for one, on in zip(planned, keep, strict=True)])
    sample_rate = np.concatenate([one.rows.sample_rate[on] for one, on in zip(planned, keep, strict=True)])
    identities = np.concatenate(
        [hash64(name, one.rows.key_hash[on]) for name, one, on in zip(names, planned, keep, strict=True)]
    )
    draws: I64 = np.ones(len(frames), dtype=np.int64)
    if expected:
        wanted = np.concatenate(expected) + uniform(hash64("draws", settings.seed, epoch, identities))
        draws = np.floor(wanted).astype(np.int64)
    (clip, first_frame, num_frames, draw), too_long = cut_clips(frames, sample_rate, identities, draws, settings, epoch)
    shard, row = np.repeat(np.arange(len(planned)), [len(on) for on in keep]), np.concatenate(keep)
    return Gathered(
        planned,
        shard[clip],
        row[clip],
        first_frame,
        num_frames,
        draw,
        seconds=num_frames / sample_rate[clip],
        identities=hash64(identities[clip], first_frame, draw),
        too_long=np.stack([shard[too_long], row[too_long]], axis=1),
    )


def joined(parts: Iterable[tuple[Gathered, I64]]) -> Gathered:
    """Of each part some of its stretches, in this order."""
    shards: list[PlannedShard] = []
    columns: list[list[npt.NDArray[np.generic]]] = []
    for (its_shards, shard, *others, too_long), on in parts:
        places = too_long + np.array([len(shards), 0])
        columns.append([shard[on] + len(shards), *(one[on] for one in others), places])
        shards += its_shards
    return Gathered(shards, *map(np.concatenate, zip(*columns, strict=True)))
