"""Energon's task for `interop_task.py`: a clip's bytes and metadata as they lie in the tar, nothing decoded."""

from __future__ import annotations

import json
from typing import Any

from megatron import energon
from megatron.energon import edataclass
from megatron.energon.task_encoder.base import stateless
from megatron.energon.task_encoder.cooking import Cooker, basic_sample_keys


@edataclass
class RawSample(energon.Sample):
    """One clip."""

    clip: Any


@edataclass
class RawBatch(energon.Batch):
    """(key, audio bytes, metadata) of each clip."""

    clips: Any


class RawEncoder(energon.DefaultTaskEncoder):
    """Hands out what was read."""

    decoder = None

    def __init__(self) -> None:
        super().__init__()
        self.cookers = [Cooker(self.cook)]

    @stateless
    def cook(self, sample: Any) -> RawSample:
        """A clip as it lies in the tar."""
        about = sample["json"] if isinstance(sample["json"], dict) else json.loads(sample["json"])
        key = sample["__key__"].split("/")[-1]
        return RawSample(**basic_sample_keys(sample), clip=(key, sample["flac"], about))

    def batch(self, samples: list[RawSample]) -> RawBatch:
        """As a list."""
        return RawBatch(
            __key__=[sample.__key__ for sample in samples],
            __restore_key__=tuple(sample.__restore_key__ for sample in samples),
            __subflavors__=None,
            __sources__=None,
            clips=[sample.clip for sample in samples],
        )
