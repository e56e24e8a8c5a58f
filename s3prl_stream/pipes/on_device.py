"""`.on(device)`: where a chain moves from its samples to padded batches on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.load_audio import INT16_SCALE
from s3prl_stream.pipes.stage import Samples, Source, Stage
from s3prl_stream.sample import Sample


@chained("on")
class OnDevice(Stage):
    """Run the stages behind this one on whole batches, on a device, in the process that consumes them.

    In:     anything; wav [T] of any type.
    Out:    the same; wav as float32. From a Loader: all tensors of a batch on the device. 1 -> 1.
    Random: none. Stages behind draw what they draw without this one; what they draw is drawn in the workers.

    A batch is copied once, from one pinned block, in a stream of its own. The stages behind see it padded, with
    lengths, and never wait for the device. Read sample by sample, without a Loader, the chain computes on the CPU as it
    would without this stage. Which device it is does not belong to what a batch is, and is in no state.

    Args:
        device: such as "cuda" (the process's current one) or "cpu".

    Raises:
        UsageError: no such kind of device.
        ChainError: it stands in the chain already, or a stage behind it has no form for batches.
    """

    positional = "device"
    in_identity = False
    moves = True

    def __init__(self, source: Samples | None = None, *, device: str = "cuda") -> None:
        try:
            torch.device(device)
        except (RuntimeError, TypeError):
            raise UsageError(f'.on(device={device!r}): torch knows no such device; write "cuda" or "cpu".') from None
        self.device = device
        self.provides: Mapping[str, str] = {}
        super().__init__(source)

    def check_chain(self, source: Source) -> None:
        known = source.known_keys() or {}
        if known.get("wav", "").startswith("int16"):
            self.provides = {"wav": "float32 [T]"}

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, "wav": as_floats(sample["wav"])} if "wav" in sample else sample


def as_floats(wav: torch.Tensor) -> torch.Tensor:
    """int16 [...] -> float32 [...] in [-1, 1); floats as they are."""
    return wav * INT16_SCALE.item() if wav.dtype == torch.int16 else wav
