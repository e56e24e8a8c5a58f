"""What Energon is told of a clip: how to decode it and how to make a batch."""

from __future__ import annotations

from typing import Any

from megatron import energon
from megatron.energon import edataclass
from megatron.energon.task_encoder.base import stateless
from megatron.energon.task_encoder.cooking import Cooker, basic_sample_keys

from peers.clips import Batch, decode, pad


@edataclass
class ClipSample(energon.Sample):
    """A decoded clip."""

    wav: Any


@edataclass
class ClipBatch(energon.Batch):
    """A padded batch."""

    batch: Batch


class ClipEncoder(energon.DefaultTaskEncoder):
    """Decode, pad."""

    decoder = None  # its own would want PyAV; the bytes are decoded in `cook`

    def __init__(self, decoder: str) -> None:
        super().__init__()
        self.how = decoder
        self.cookers = [Cooker(self.cook)]

    @stateless
    def cook(self, sample: Any) -> ClipSample:
        """A clip as it lies in the tar."""
        return ClipSample(**basic_sample_keys(sample), wav=decode(sample["flac"], self.how))

    def batch(self, samples: list[ClipSample]) -> ClipBatch:
        """A padded batch of clips."""
        keys = [sample.__key__.split("/")[-1] for sample in samples]
        return ClipBatch(
            __key__=[sample.__key__ for sample in samples],
            __restore_key__=tuple(sample.__restore_key__ for sample in samples),
            __subflavors__=None,
            __sources__=None,
            batch=pad(keys, [sample.wav for sample in samples]),
        )
