"""How many cores decoding takes, measured on some clips of a set: by the decoders here, and whole by libsndfile."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import NamedTuple

from s3prl_stream.audio.decode import decode
from s3prl_stream.plan.planner import EpochPlanner
from s3prl_stream.sample import Item, Sample

MAX_CLIPS = 16
AT_SPEED = 1000.0
"""Audio seconds a second that a training takes; what one fast GPU takes of a small model."""

_MIN_CPU_SECONDS = 0.05
_MAX_ROUNDS = 50


class DecodeCores(NamedTuple):
    """Cores that decode `AT_SPEED` seconds of used audio a second, on this machine."""

    here: float
    """The items of the plan, as the stream decodes them."""
    whole_by_libsndfile: float
    """Their clips from beginning to end to float32, as most loaders do, for a second that is used."""
    clips: int


def measure_decode_cores(planner: EpochPlanner) -> DecodeCores | None:
    """Read and decode clips of the first block; None: the set holds no encoded audio (features, waveforms in memory).

    Raises:
        SampleError: a clip is damaged.
    """
    block = planner.plan_block(0, 0)
    items = [item for batch in range(block.num_batches) for item in block.items(batch)]
    some = items[:: max(len(items) // MAX_CLIPS, 1)][:MAX_CLIPS]
    samples = [planner.shards.read(item) for item in some]
    if any("audio" not in sample or sample["codec"] == "npy" for sample in samples):
        return None
    pairs = list(zip(some, samples, strict=True))
    used = sum(_seconds(item, sample) for item, sample in pairs)

    def here() -> None:
        for item, sample in pairs:
            first, frames = item.first_frame, item.num_frames
            decode(sample["audio"], sample["codec"], first_frame=first, num_frames=frames)

    def whole() -> None:
        import soundfile

        for _, sample in pairs:
            soundfile.read(io.BytesIO(sample["audio"]), dtype="float32")

    return DecodeCores(_cpu_seconds(here) / used * AT_SPEED, _cpu_seconds(whole) / used * AT_SPEED, len(some))


def _seconds(item: Item, sample: Sample) -> float:
    first, frames = item.first_frame, item.num_frames
    wav, rate = decode(sample["audio"], sample["codec"], first_frame=first, num_frames=frames)
    return len(wav) / rate


def _cpu_seconds(work: Callable[[], None]) -> float:
    """The smallest of some rounds: what else runs on the machine only adds to it."""
    work()
    taken: list[float] = []
    while len(taken) < 3 or (sum(taken) < _MIN_CPU_SECONDS and len(taken) < _MAX_ROUNDS):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return min(taken)
