"""What becomes of the stages behind `.on(device)`: their draws in the workers, their work in the consumer's process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from s3prl_stream.pipes.on_batch import Drawn, OnBatch, numbers_of
from s3prl_stream.pipes.on_device import OnDevice, as_floats
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Batch, Sample

_ALIGNED_BYTES = 16
_EXACT = "="


def split_at_device(stages: Sequence[Stage]) -> tuple[list[Stage], DeviceTail | None]:
    """(the stages that workers run, what the consumer runs: None where the chain has no `.on`)."""
    at = next((place for place, stage in enumerate(stages) if isinstance(stage, OnDevice)), None)
    if at is None:
        return list(stages), None
    marker, behind = stages[at], [stage for stage in stages[at + 1 :] if isinstance(stage, OnBatch)]
    assert isinstance(marker, OnDevice)
    return [*stages[:at], DrawAhead(stages=behind)], DeviceTail(marker.device, behind)


class DrawAhead(Stage):
    """Draw for the stages behind `.on`, from the shapes of the sample. Stands at the end of what workers run."""

    functional_name = "draw"

    def __init__(self, *, stages: Sequence[OnBatch]) -> None:
        self.stages = stages
        super().__init__()

    def emit(self, sample: Sample) -> Iterator[Sample]:
        """The sample with `STAGE/NAME` for each draw. A sample that would fail later fails here."""
        drawn: dict[str, Any] = {}
        sketch = sample
        for stage in self.stages:
            of_stage = stage.draw(sketch, stage.rng(sample))
            drawn |= {f"{stage.stage_id}/{_mark(value)}{name}": _exact(value) for name, value in of_stage.items()}
            sample = stage.noted(sample, **numbers_of(of_stage)) if of_stage else sample
            sketch = stage.sketch(sketch)
        yield {**sample, **drawn}


class DeviceTail:
    """Collated batches, as they come from the workers -> batches after the stages behind `.on`, on the device."""

    def __init__(self, device: str, stages: Sequence[OnBatch]) -> None:
        self.device = torch.device(device)
        self.stages = stages
        self._copying: Any = None  # the stream of copies, once there is one

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_copying": None}  # workers get a copy that they do not use

    def __call__(self, batch: Batch) -> Batch:
        """One batch; the work may still be going on when this returns."""
        moved = self._moved(batch)
        if not batch["key"]:
            return moved
        if "wav" in moved:
            moved["wav"] = as_floats(moved["wav"])
        lengths = {name: value.tolist() for name, value in batch.items() if name.endswith("_len")}
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for stage in self.stages:
                prefix = f"{stage.stage_id}/"
                names = [name for name in batch if name.startswith(prefix)]
                drawn = Drawn(
                    _unmarked({name.removeprefix(prefix): moved.pop(name) for name in names}),
                    _unmarked({name.removeprefix(prefix): batch[name] for name in names}),
                    lengths,
                )
                moved = stage.on_batch(moved, drawn)
        return moved

    def _moved(self, batch: Batch) -> Batch:
        """The batch with its tensors on the device, in one copy."""
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        block, places = _packed(tensors, pin=self.device.type == "cuda")
        if self.device.type == "cuda":
            block = self._copied(block)
        elif self.device.type != "cpu":
            block = block.to(self.device)
        return {**batch, **{name: _unpacked(block, places[name], tensors[name]) for name in tensors}}

    def _copied(self, block: Tensor) -> Tensor:
        """On a stream of its own, so that it overlaps with what the device is still doing for the last batch.

        The allocators of pinned and of device memory keep each block until the streams that use it are done.
        """
        if self._copying is None:
            self._copying = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._copying):
            moved = block.to(self.device, non_blocking=True)
        using = torch.cuda.current_stream(self.device)
        using.wait_stream(self._copying)
        moved.record_stream(using)
        return moved


def _exact(value: Any) -> Any:
    """A float as float64 [1]: collated it would be float32, and a waveform scaled by it would have other last bits."""
    return torch.tensor([value], dtype=torch.float64) if isinstance(value, float) else value


def _mark(value: Any) -> str:
    """Stands before the name of what `_exact` has changed."""
    return _EXACT if isinstance(value, float) else ""


def _unmarked(drawn: dict[str, Any]) -> dict[str, Any]:
    """The draws by their names; what `_exact` has changed, float64 [B, 1] by now, as [B]."""
    plain = {name: value for name, value in drawn.items() if not name.startswith(_EXACT)}
    exact = {name: value for name, value in drawn.items() if name.startswith(_EXACT) and f"{name}_len" in drawn}
    return {**plain, **{name.removeprefix(_EXACT): value[:, 0] for name, value in exact.items()}}


def _packed(tensors: dict[str, Tensor], *, pin: bool) -> tuple[Tensor, dict[str, int]]:
    """(all tensors in one block of bytes, where each begins)."""
    places, end = {}, 0
    for name, tensor in tensors.items():
        places[name] = end
        end += -(-tensor.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
    block = torch.empty(end, dtype=torch.uint8, pin_memory=pin)
    for name, tensor in tensors.items():
        _unpacked(block, places[name], tensor).copy_(tensor)
    return block, places


def _unpacked(block: Tensor, begin: int, like: Tensor) -> Tensor:
    """The tensor of that type and shape which begins at a byte of the block."""
    return block[begin : begin + like.nbytes].view(like.dtype).view(like.shape)
