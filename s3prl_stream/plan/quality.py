"""How good a plan is: padding, filled budget, repeated pairs, speakers per batch, reads. All four together, never one.

Padding alone rewards sorted, frozen batches; fill alone rewards mixing all lengths.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from s3prl_stream.hashing import hash64
from s3prl_stream.plan.planner import BlockPlan, EpochPlanner, Planner
from s3prl_stream.shards.member import I64
from s3prl_stream.stores.at_once import at_once


@dataclass(frozen=True, kw_only=True)
class Quality:
    """By what rules of batching are compared. Shares are from 0 to 1."""

    batches: int
    clips: int
    hours: float
    clips_per_batch: float
    padding: float
    """Padded seconds that hold no audio."""
    budget_filled: float
    """Padded seconds of a batch over those that it may have, on average."""
    largest_batch_seconds: float
    """Padded seconds of the largest batch, for which a device must have room."""
    repeated_pairs: float | None
    """Pairs of clips in one batch that share a batch in the next epoch too; None: a mix, which has no epochs, or a
    simulation of a part of the set."""
    speakers_per_batch: float | None
    """Distinct speakers in a batch, on average; None: no speaker column."""
    speakers_vs_uniform: float | None
    """Distinct speakers in a batch over those of as many clips drawn uniformly; None: no speaker column."""
    reads_per_hour: float
    """Contiguous reads for an hour of audio; in a store some are put together and become fewer requests."""


@dataclass(frozen=True, kw_only=True)
class PlanQuality(Quality):
    """Measured on the first blocks (of two epochs, unless sets are mixed by weight)."""

    blocks: int
    megabytes_per_read: float
    """Mean size of one contiguous read."""
    share_of_set: dict[str, float]
    """Set -> its share of the audio: the realised mix."""


def measure(planner: Planner, *, max_blocks: int = 8) -> PlanQuality:
    """Plan up to `max_blocks` blocks (and, for the pairs, the same shards' blocks of epoch 1) and measure.

    Args:
        planner: of the stream.
        max_blocks: how many; all of a small set.
    """
    most = min(max_blocks, len(planner.blocks(0))) if isinstance(planner, EpochPlanner) else max_blocks
    blocks = [step.plan for _, step in itertools.islice(planner.walk(), most)]
    padded = np.concatenate([_padded_seconds(block) for block in blocks])
    seconds = sum(float(block.seconds.sum()) for block in blocks)
    sizes = np.concatenate([np.diff(block.batches.edges, axis=1)[:, 0] for block in blocks])
    reads = [_reads(block) for block in blocks]
    num_reads = sum(count for _, count in reads)
    speakers = _speakers(planner, blocks)
    return PlanQuality(
        blocks=len(blocks),
        batches=len(padded),
        clips=int(sizes.sum()),
        hours=seconds / 3600,
        clips_per_batch=float(sizes.mean()),
        padding=1 - seconds / float(padded.sum()),
        budget_filled=float(padded.mean()) / planner.settings.max_batch_seconds,
        largest_batch_seconds=float(padded.max()),
        repeated_pairs=_repeated_pairs(planner, blocks) if isinstance(planner, EpochPlanner) else None,
        speakers_per_batch=None if speakers is None else speakers[0],
        speakers_vs_uniform=None if speakers is None else speakers[0] / speakers[1],
        megabytes_per_read=sum(size for size, _ in reads) / max(num_reads, 1) / 1e6,
        reads_per_hour=num_reads / (seconds / 3600),
        share_of_set=_shares(planner, blocks),
    )


def _shares(planner: Planner, blocks: list[BlockPlan]) -> dict[str, float]:
    totals = np.sum([block.seconds_by_set(len(planner.shards.members)) for block in blocks], axis=0)
    return {
        member.name: float(share) for member, share in zip(planner.shards.members, totals / totals.sum(), strict=True)
    }


def _padded_seconds(block: BlockPlan) -> npt.NDArray[np.float64]:
    ordered = block.seconds[block.batches.sequence]
    return np.array([ordered[start:stop].max() * (stop - start) for start, stop in block.batches.edges])


def _batch_of_stretch(block: BlockPlan) -> I64:
    found = np.zeros(len(block.seconds), dtype=np.int64)
    for number, (start, stop) in enumerate(block.batches.edges):
        found[block.batches.sequence[start:stop]] = number
    return found


def _repeated_pairs(planner: EpochPlanner, blocks: list[BlockPlan]) -> float:
    """Share of the pairs of these blocks that meet again in epoch 1, over all blocks of epoch 1 that hold them."""
    wanted = {(one.set_index, one.shard) for block in blocks for one in block.shards}
    later: dict[tuple[int, int, int, int], tuple[int, int]] = {}
    order = planner.blocks(1)
    for number in range(len(order)):
        held = [planner.shards.locate(shard) in wanted for shard in order.block(number).tolist()]
        if not any(held):
            continue
        block = planner.plan_block(1, number)
        stretches = np.flatnonzero(np.array(held)[block.gathered.shard])
        batches = _batch_of_stretch(block)[stretches].tolist()
        later.update(zip(_identities(block, stretches), ((number, batch) for batch in batches), strict=True))
    pairs = repeated = 0
    for block in blocks:
        names = list(_identities(block, np.arange(len(block.seconds))))
        for start, stop in block.batches.edges:
            there = (later.get(names[stretch]) for stretch in block.batches.sequence[start:stop])
            together = Counter(place for place in there if place is not None)
            pairs += math.comb(stop - start, 2)
            repeated += sum(math.comb(count, 2) for count in together.values())
    return repeated / pairs if pairs else 0.0


def _identities(block: BlockPlan, stretches: I64) -> Iterator[tuple[int, int, int, int]]:
    """Of some stretches."""
    found = block.gathered
    columns = [of_all[stretches].tolist() for of_all in (found.shard, found.row, found.first_frame, found.draw)]
    for number, row, first_frame, drawn in zip(*columns, strict=True):
        one = block.shards[number]
        yield one.set_index, one.shard, row, first_frame * 1024 + drawn


def _speakers(planner: Planner, blocks: list[BlockPlan]) -> tuple[float, float] | None:
    """Distinct speakers in a batch, and in as many clips drawn uniformly."""
    values = speakers_by_shard(planner, blocks)
    if values is None:
        return None
    counts = []
    for number, block in enumerate(blocks):
        held = [values[one.set_index, one.shard] for one in block.shards]
        codes = np.concatenate(held)
        first_row = np.cumsum([0, *map(len, held)])
        code = codes[first_row[block.gathered.shard] + block.gathered.row]
        shuffled = code[np.argsort(hash64("uniform", number, np.arange(len(code))))]
        ordered = code[block.batches.sequence]
        counts += [
            (len(np.unique(ordered[start:stop])), len(np.unique(shuffled[start:stop])))
            for start, stop in block.batches.edges
        ]
    found, uniform = np.mean(counts, axis=0).tolist()
    return found, uniform


def speakers_by_shard(planner: Planner, blocks: list[BlockPlan]) -> dict[tuple[int, int], Any] | None:
    """The speakers in the shards of these blocks as small numbers: (set, shard) -> [rows of the shard].

    None: there is no such column.
    """
    if "speaker" not in planner.shards.columns():
        return None
    members = planner.shards.members
    wanted = sorted({(one.set_index, one.shard) for block in blocks for one in block.shards})
    numbers: dict[Any, int] = {}
    names = at_once(lambda at: members[at[0]].cells(at[1], "speaker"), wanted, is_remote=planner.shards.is_remote)
    return {
        at: np.array([numbers.setdefault(name, len(numbers)) for name in of_shard])
        for at, of_shard in zip(wanted, names, strict=True)
    }


def _reads(block: BlockPlan) -> tuple[int, int]:
    """(bytes, contiguous reads) if neighbours in a shard are read together."""
    total = count = 0
    for batch in range(block.num_batches):
        shard, row = block.clips(block.stretches_of(batch))
        total += sum(int(block.shards[s].rows.size[r]) for s, r in zip(shard, row, strict=True))
        count += int(np.count_nonzero((np.diff(row, prepend=-2) != 1) | (np.diff(shard, prepend=-1) != 0)))
    return total, count
