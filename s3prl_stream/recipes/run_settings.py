"""Settings of a run that are no recipe's: which data, how often, on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3prl_stream.errors import UsageError
from s3prl_stream.settings import fit_fields, with_fields
from s3prl_stream.trainer.settings import LoopSettings


@dataclass(frozen=True)
class RunSettings(LoopSettings):
    """What `pretrain` takes by name beside the settings of its recipe."""

    where: str | None = None
    """Which clips, see `ShardStream`."""
    subset: str | None = None
    """How much of them, see `ShardStream`."""
    num_workers: int = 0
    """Processes that load; 0: a thread of this one."""
    device: str | None = None
    """"cpu", "cuda" ...; None: the GPU if there is one."""
    on_device: bool | None = None
    """What follows the waveforms (features, masks) works on whole batches on the device, from int16, and not on clips
    in the loader; None: if it is a GPU."""
    compile: bool = False
    """Compile the encoder (torch.compile, shapes dynamic)."""
    init: str | None = None
    """A run, or a checkpoint of one, whose weights this run begins with: to go on with other data or settings."""
    max_bad_steps: int = 10
    """Updates in a row that may be left out: loss or gradient not finite, or memory exhausted."""

    def __post_init__(self) -> None:
        fit_fields("pretrain", self)


@dataclass(frozen=True)
class ValidSettings:
    """Which clips are held out, and how often the loss on them is asked. They are not trained on."""

    where: str | None = None
    """An expression over index columns, as in "split == 'dev'"."""
    share: float = 0.0
    """Instead: this share of the clips, by a hash of set and key; the same clips whatever the seed."""
    data: str | None = None
    """Instead: a set of its own."""
    subset: str | None = None
    """How much of them is used, such as "0.5h"; the rest is held out all the same."""
    every: int = 500
    """Steps."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ValidSettings:
        """By name; UsageError for one that there is not."""
        if not isinstance(settings, Mapping):
            raise UsageError(f"valid: {settings!r} is no dict; give some such as {{'share': 0.02}}")
        return with_fields("valid", cls(), settings)

    def __post_init__(self) -> None:
        fit_fields("valid", self)
        given = [self.where is not None, self.share > 0, self.data is not None]
        if sum(given) > 1:
            raise UsageError("valid: give one of where, share and data")
        if not 0 <= self.share < 1:
            raise UsageError(f"valid.share is {self.share}; it must be at least 0 and below 1")
        if self.every < 1:
            raise UsageError(f"valid.every is {self.every}; it must be at least 1")
        if self.subset is not None and not any(given):
            raise UsageError(f"valid.subset is {self.subset!r}, but nothing is held out: give where, share or data")

    @property
    def holds_out(self) -> bool:
        """True if there is anything to validate on."""
        return self.where is not None or self.share > 0 or self.data is not None
