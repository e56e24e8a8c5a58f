"""Settings of a downstream run that are no recipe's: which part of the data, with what noise, on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3prl_stream.errors import UsageError
from s3prl_stream.settings import fit_fields
from s3prl_stream.trainer.settings import LoopSettings


@dataclass(frozen=True)
class RunSettings(LoopSettings):
    """What `train` takes by name beside the settings of its recipe."""

    where: Any = None
    """Which clips to train on, see `ShardStream`. Those without a label are left out by themselves."""
    subset: str | None = None
    """How much of them, see `ShardStream`."""
    valid_where: str | None = None
    """Which clips to look at on the way: of the validation set, or else of the set itself, and then not trained on."""
    noise: Any = None
    """What is added to each clip, as `add_noise` takes it."""
    snr: tuple[float, float] | float = (3.0, 20.0)
    """Signal-to-noise ratio in dB, or its range."""
    normalize: bool = False
    """Bring hidden states to one scale before their weighted sum."""
    finetune: bool = False
    """Train the upstream too."""
    cache: str | Path | None = None
    """Folder for hidden states of whole clips, which are computed once; the results are the same."""
    cache_gigabytes: float = 20.0
    """Its limit."""
    device: str | None = None
    """"cpu", "cuda" ...; None: the GPU if there is one."""
    num_workers: int = 0
    """Processes that load; 0: a thread of this one."""

    def __post_init__(self) -> None:
        fit_fields("train", self)
        if self.cache is not None and (self.noise is not None or self.finetune):
            raise UsageError("cache: features with noise, or of an upstream that is trained, differ each time")


WRITTEN_APART = frozenset({"where", "noise", "cache", "cache_gigabytes", "device"})
"""Settings that stand in `run.json` in another form, or change nothing that is trained."""
