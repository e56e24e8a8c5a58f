"""Settings of the plan. Together with the index and the selection they determine every batch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from s3prl_stream.arguments import one_of
from s3prl_stream.errors import UsageError
from s3prl_stream.settings import fit_fields

PLAN_VERSION = 1
"""Raised whenever the same settings would give other batches; a cursor of another version is refused."""

_POSITIVE = ("max_batch_seconds", "max_batch_size", "epochs", "run", "block_samples", "chunk_seconds", "crop_seconds")
_MOST = 1e9
"""Of each: frames of so much at any rate that a set may have (below 2**31 Hz) fit into 64 bits."""


@dataclass(frozen=True)
class PlanSettings:
    """What a batch is made of. Seconds are seconds of audio.

    Raises:
        UsageError: a value out of range, or two that exclude each other.
    """

    seed: int = 0
    shuffle: bool = True
    epochs: int | None = None
    """Number of epochs; None: endless."""
    max_batch_seconds: float = 240.0
    """Budget of padded seconds: clips in a batch times the longest of them."""
    max_batch_size: int | None = None
    """Most clips in a batch."""
    run: int = 1
    """Neighbours in a shard that stay together: one cheap read. 1 for local sets, 4 for remote ones."""
    chunk_seconds: float | None = None
    """Cut clips into equal pieces no longer than this; every second is delivered once."""
    crop_seconds: float | None = None
    """Draw random stretches of this length; shorter clips stay whole."""
    crops: str = "per_clip"
    """"per_clip": one crop of each clip. "per_seconds": as many as the clip is long, on average."""
    too_long: str = "split"
    """What happens to a clip longer than `max_batch_seconds`: "split", "crop" or "skip"."""
    stop: str | None = None
    """Where a mix of sets by weight with `epochs` ends: "first": as soon as one set has had its epochs; "all": when
    every set has, those that had them earlier going on meanwhile."""
    block_samples: int = 16_384
    """Clips planned at a time (whole shards)."""

    def __post_init__(self) -> None:
        fit_fields("ShardStream", self)
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value <= _MOST:
                raise UsageError(f"ShardStream: {name}: {value!r} must be greater than 0 and at most {_MOST:g}")
        if self.chunk_seconds is not None and self.crop_seconds is not None:
            raise UsageError(
                "chunk_seconds and crop_seconds exclude each other: every second once, or random stretches"
            )
        for name in ("chunk_seconds", "crop_seconds"):
            if (getattr(self, name) or 0.0) > self.max_batch_seconds:
                raise UsageError(
                    f"lower {name} or raise max_batch_seconds: {name}={getattr(self, name)} does not fit "
                    f"max_batch_seconds={self.max_batch_seconds}"
                )
        one_of("ShardStream", "crops", self.crops, ("per_clip", "per_seconds"))
        one_of("ShardStream", "too_long", self.too_long, ("split", "crop", "skip"))
        if self.stop is not None:
            one_of("ShardStream", "stop", self.stop, ("first", "all"))

    def told(self) -> str:
        """Those that are not as usual, for people: ", seed=1, run=4"."""
        usual = PlanSettings()
        return "".join(f", {name}={value!r}" for name, value in vars(self).items() if value != getattr(usual, name))

    def identity(self) -> dict[str, Any]:
        """What a cursor must agree with: every setting but `epochs` and `stop`, which only say where to end."""
        return {name: value for name, value in asdict(self).items() if name not in ("epochs", "stop")}
