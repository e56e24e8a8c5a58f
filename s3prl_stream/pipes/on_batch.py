"""Stages that can also stand behind `.on(device)`, where they work on a padded batch.

Such a stage draws by itself: `draw` needs no more than the shapes of a sample, runs in a worker, and both forms of the
stage use it. So a batch behind `.on` has the draws that its samples have without it.

B batch, T waveform samples, F frames, D bins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Batch, Sample


@dataclass(frozen=True)
class Drawn:
    """What a stage has drawn for the samples of a batch, collated."""

    on_device: dict[str, Any]
    """Tensors on the device of the batch; arrays that `draw` gave as [X, ...] are `name` [B, longest, ...]."""
    host: dict[str, Any]
    """The same on the CPU: to read numbers from without waiting for the device."""
    host_lengths: dict[str, list[int]]
    """`wav_len` and the like of the batch before this stage, as far as they were known on the CPU."""

    def __getitem__(self, name: str) -> Any:
        return self.on_device[name]


class OnBatch(Stage):
    """A stage with two forms: `emit` for a sample, `on_batch` for a padded batch on a device."""

    works_on_batches: ClassVar[bool] = True

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """What is random for a sample: numbers and arrays by name, the same names for every sample.

        Arrays of the sample may be on torch's device "meta": they have shapes, and no values.
        """
        return {}

    def sketch(self, sample: Sample) -> Sample:
        """The sample after this stage, with arrays on the device "meta". Raises the SampleError that emit() would."""
        return sample

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        """The batch after this stage. No value of a tensor on the device may be asked for: that would wait for it."""
        raise NotImplementedError(f"{type(self).__name__} must implement on_batch()")


def rms_of_rows(wav_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Root mean square of each row over its valid samples, float64 [B]; what follows them must be zeros."""
    norm_B: Tensor = torch.linalg.vector_norm(wav_BT, dim=1, dtype=torch.float64)
    return norm_B / lengths_B.clamp(min=1).sqrt()


def normals_of_rows(like: Tensor, seeds: Tensor, counts: Iterable[int]) -> Tensor:
    """Normals of the shape of `like` [B, X, ...]: in each row so many of X, from a seed of its own, then zeros."""
    normals = torch.zeros_like(like)
    generator = torch.Generator(like.device)
    for row, (seed, count) in enumerate(zip(seeds.tolist(), counts, strict=True)):
        normals[row, :count].normal_(generator=generator.manual_seed(seed))
    return normals


def numbers_of(drawn: dict[str, Any]) -> dict[str, Any]:
    """The draws that are worth recording: all but arrays."""
    return {name: value for name, value in drawn.items() if not isinstance(value, Tensor | np.ndarray)}
