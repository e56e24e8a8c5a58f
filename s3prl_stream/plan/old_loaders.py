"""What the settings of another loader would make of a set: its batches, simulated on the index.

Two rules cover the usual loaders. They are simulations of what these document, seeded, on the lengths in the index; the
loaders themselves are compared by `tools/bench peers`.

* "fixed": shards in random order, a shuffle buffer, batches of a fixed number of clips (webdataset, Energon,
  Hugging Face; NeMo's tarred data sets without Lhotse).
* "buckets": shards in random order; a buffer of clips in buckets that hold equal seconds of audio; a random bucket
  gives random clips until one more of the longest would exceed the seconds (Lhotse's DynamicBucketingSampler, and NeMo
  with `use_lhotse`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.plan.planner import EpochPlanner
from s3prl_stream.plan.quality import Quality, speakers_by_shard
from s3prl_stream.shards.member import I64

MAX_CLIPS = 200_000
"""Clips that are simulated: of a larger set whole blocks of shards, and no repeated pairs, which hang on the whole."""

FOR_BINS = 10_000
"""Clips from which Lhotse estimates the edges of its buckets."""

F64 = npt.NDArray[np.float64]

_NAMES = {
    "batch_size": "batch_size",
    "max_cuts": "batch_size",
    "shuffle_buffer": "shuffle_buffer",
    "shuffle_buffer_size": "shuffle_buffer",
    "shuffle_n": "shuffle_buffer",
    "max_duration": "max_duration",
    "batch_duration": "max_duration",
    "num_buckets": "num_buckets",
    "buffer_size": "buffer_size",
    "bucket_buffer_size": "buffer_size",
    "quadratic_duration": "quadratic_duration",
}
"""As webdataset, Energon, NeMo and Lhotse call them -> our name."""

_OF_BUCKETS = ("num_buckets", "buffer_size", "quadratic_duration")


@dataclass(frozen=True, kw_only=True)
class OldSettings:
    """Settings of another loader; with `max_duration` the rule is "buckets", else "fixed"."""

    batch_size: int | None = None
    """Clips in a batch; with `max_duration` the most."""
    shuffle_buffer: int = 0
    """Clips in the shuffle buffer; in Lhotse it adds to `buffer_size`."""
    max_duration: float | None = None
    """Padded seconds in a batch."""
    num_buckets: int = 10
    """Lhotse's default."""
    buffer_size: int = 20_000
    """Clips in all buckets; Lhotse's default."""
    quadratic_duration: float | None = None
    """A clip of d seconds counts as d + d ** 2 / this."""

    @property
    def rule(self) -> str:
        """ "fixed" or "buckets"."""
        return "fixed" if self.max_duration is None else "buckets"

    def __str__(self) -> str:
        if self.max_duration is None:
            buffer = f"after a shuffle buffer of {self.shuffle_buffer}" if self.shuffle_buffer else "in shard order"
            return f"batches of {self.batch_size} clips, {buffer}"
        most = "" if self.batch_size is None else f" and at most {self.batch_size} clips"
        buffer = f"{self.num_buckets} buckets, {self.buffer_size + self.shuffle_buffer} clips in them"
        return f"batches of {self.max_duration:g} padded seconds{most}; {buffer}"


def parse_old(text: str) -> OldSettings:
    """`batch_size=16,shuffle_buffer=1000` or `max_duration=240,num_buckets=30`, under the names of the old loader.

    Raises:
        UsageError: a name that is none, a value that is no number, none of the two that choose the rule.
    """
    given: dict[str, float] = {}
    for word in text.split(","):
        name, equals, value = word.strip().partition("=")
        if name not in _NAMES or not equals:
            raise UsageError(
                f"--old {text}: {word.strip()!r} is not known. Known are {', '.join(_NAMES)}, as NAME=VALUE."
            )
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        seconds = _NAMES[name] in ("max_duration", "quadratic_duration")
        if not 0 <= number < math.inf or (number == 0 and _NAMES[name] != "shuffle_buffer"):
            raise UsageError(f"--old {text}: {name} is {value!r}, expected a number greater than 0.")
        if not seconds and number != int(number):
            raise UsageError(f"--old {text}: {name} is {value!r}, expected a whole number.")
        given[_NAMES[name]] = number if seconds else int(number)
    if "max_duration" not in given and ("batch_size" not in given or any(name in given for name in _OF_BUCKETS)):
        raise UsageError(f"--old {text}: give batch_size (a fixed number of clips) or max_duration (buckets).")
    return OldSettings(**given)  # type: ignore[arg-type]


class Clips(NamedTuple):
    """The clips of a simulation, in the order of the bytes. N clips."""

    seconds: F64  # [N], as they are batched
    whole_seconds: F64  # [N], as they are decoded
    shard: I64  # [N]
    speaker: I64 | None  # [N]
    is_whole_set: bool


@dataclass(frozen=True, kw_only=True)
class OldQuality(Quality):
    """Of one epoch of another loader, which reads each tar once, from its beginning to its end. A batch may have
    `max_duration` padded seconds, or as many as the largest has."""

    decoded_seconds: float
    """For a second that is used: clips are decoded whole and cut then."""


def gather_clips(planner: EpochPlanner) -> Clips:
    """The clips that the planner delivers, of as many blocks as hold `MAX_CLIPS`."""
    order = planner.blocks(0)
    blocks, count = [], 0
    for number in range(len(order)):
        blocks.append(planner.plan_block(0, number))
        count += blocks[-1].clips().shape[1]
        if count >= MAX_CLIPS:
            break
    speakers = speakers_by_shard(planner, blocks)
    whole, shard, speaker = [], [], []
    first_shard = 0
    for block in blocks:
        shard_of, at = block.clips()
        for number, one in enumerate(block.shards):
            here = at[shard_of == number]
            whole.append(one.rows.frames[here] / one.rows.sample_rate[here])
            shard.append(np.full(len(here), first_shard + number))
            if speakers is not None:
                speaker.append(speakers[one.set_index, one.shard][here])
        first_shard += len(block.shards)
    seconds = np.concatenate(whole)
    crop = planner.settings.crop_seconds
    return Clips(
        seconds=seconds if crop is None else np.minimum(seconds, crop),
        whole_seconds=seconds,
        shard=np.concatenate(shard),
        speaker=np.concatenate(speaker) if speakers is not None else None,
        is_whole_set=len(blocks) == len(order),
    )


def simulate(clips: Clips, settings: OldSettings, seed: int = 0) -> OldQuality:
    """One epoch, and a second one for the pairs that meet again."""
    first, second = (batches_of(clips, settings, seed, epoch) for epoch in range(2))
    padded = np.array([clips.seconds[batch].max() * len(batch) for batch in first])
    speakers = None if clips.speaker is None else _speakers(first, clips.speaker, seed)
    seconds = float(clips.seconds.sum())
    room = settings.max_duration or float(padded.max())
    return OldQuality(
        batches=len(first),
        clips=len(clips.seconds),
        hours=seconds / 3600,
        clips_per_batch=len(clips.seconds) / len(first),
        padding=1 - seconds / float(padded.sum()),
        budget_filled=float(padded.mean()) / room,
        largest_batch_seconds=float(padded.max()),
        repeated_pairs=_repeated_pairs(first, second, len(clips.seconds)) if clips.is_whole_set else None,
        speakers_per_batch=None if speakers is None else speakers[0],
        speakers_vs_uniform=None if speakers is None else speakers[0] / speakers[1],
        reads_per_hour=len(np.unique(clips.shard)) / (seconds / 3600),
        decoded_seconds=float(clips.whole_seconds.sum()) / seconds,
    )


def batches_of(clips: Clips, settings: OldSettings, seed: int, epoch: int) -> list[I64]:
    """The batches of an epoch: numbers of clips, each clip once."""
    rng = np.random.Generator(np.random.Philox([seed, epoch]))
    first_clip = np.searchsorted(clips.shard, np.unique(clips.shard))
    shards = np.split(np.arange(len(clips.shard)), first_clip[1:])
    order = np.concatenate([shards[number] for number in rng.permutation(len(shards))])
    if settings.rule == "buckets":
        return _bucketed(order, clips.seconds, settings, rng)
    assert settings.batch_size is not None
    mixed = _through_buffer(order, settings.shuffle_buffer, rng)
    return np.split(mixed, range(settings.batch_size, len(mixed), settings.batch_size))


def _through_buffer(order: I64, size: int, rng: np.random.Generator) -> I64:
    """Each clip that comes takes the place of a random one of the buffer, which goes."""
    if size <= 1:
        return order
    buffer, out = order[:size].tolist(), []
    places = rng.integers(0, len(buffer), len(order) - len(buffer)).tolist()
    for place, clip in zip(places, order[size:].tolist(), strict=True):
        out.append(buffer[place])
        buffer[place] = clip
    return np.array([*out, *rng.permutation(buffer)], dtype=np.int64)


def _bucketed(order: I64, seconds: F64, settings: OldSettings, rng: np.random.Generator) -> list[I64]:
    assert settings.max_duration is not None
    most_seconds, most_clips = settings.max_duration, settings.batch_size or len(order)
    cost = seconds if settings.quadratic_duration is None else seconds + seconds**2 / settings.quadratic_duration
    edges = _edges_of_equal_seconds(seconds[order[:FOR_BINS]], settings.num_buckets)
    bucket_of = np.searchsorted(edges, seconds, side="right").tolist()
    buckets: list[list[int]] = [[] for _ in range(len(edges) + 1)]
    coming = iter(order.tolist())
    costs = cost.tolist()

    def is_full(count: int, longest: float) -> bool:
        return count >= most_clips or (count + 1) * longest > most_seconds

    def fill(count: int) -> None:
        for _, clip in zip(range(count), coming, strict=False):
            buckets[bucket_of[clip]].append(clip)

    fill(settings.buffer_size + settings.shuffle_buffer)
    batches = []
    while any(buckets):
        wish = int(rng.integers(len(buckets)))
        by_distance = sorted(range(len(buckets)), key=lambda number: (abs(number - wish), number))
        ready = (n for n in by_distance if buckets[n] and is_full(len(buckets[n]), max(costs[c] for c in buckets[n])))
        chosen = next(ready, None)
        bucket = buckets[next(n for n in by_distance if buckets[n]) if chosen is None else chosen]
        batch: list[int] = []
        longest = 0.0
        while bucket and not (batch and is_full(len(batch), longest)):
            place = int(rng.random() * len(bucket))
            bucket[place], bucket[-1] = bucket[-1], bucket[place]
            batch.append(bucket.pop())
            longest = max(longest, costs[batch[-1]])
        batches.append(np.array(batch, dtype=np.int64))
        fill(len(batch))
    return batches


def _edges_of_equal_seconds(seconds: F64, num_buckets: int) -> F64:
    """The inner edges of buckets that hold about equal seconds of audio."""
    ordered = np.sort(seconds)
    before = np.cumsum(ordered) - ordered
    wanted = ordered.sum() * np.arange(1, num_buckets) / num_buckets
    return np.unique(ordered[np.minimum(np.searchsorted(before, wanted), len(ordered) - 1)])


def _repeated_pairs(first: Sequence[I64], second: Sequence[I64], num_clips: int) -> float:
    place = np.zeros(num_clips, dtype=np.int64)
    for number, batch in enumerate(second):
        place[batch] = number
    pairs = repeated = 0
    for batch in first:
        _, counts = np.unique(place[batch], return_counts=True)
        pairs += len(batch) * (len(batch) - 1) // 2
        repeated += int((counts * (counts - 1) // 2).sum())
    return repeated / pairs if pairs else 0.0


def _speakers(batches: Sequence[I64], speaker: I64, seed: int) -> tuple[float, float]:
    """Distinct speakers in a batch, and in as many clips drawn at random."""
    shuffled = np.random.Generator(np.random.Philox([seed, 2])).permutation(speaker)
    edges = np.cumsum([0, *map(len, batches)])
    found = [len(np.unique(speaker[batch])) for batch in batches]
    uniform = [len(np.unique(shuffled[start:stop])) for start, stop in itertools.pairwise(edges)]
    return float(np.mean(found)), float(np.mean(uniform))
