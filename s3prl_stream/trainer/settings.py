"""How a run is trained: the settings of the loop, each of which a recipe or the command line may set."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from s3prl_stream.errors import UsageError
from s3prl_stream.settings import fit_fields


@dataclass(frozen=True)
class UpdateSettings:
    """How the weights are updated: what a recipe says of training, beside how long."""

    lr: float = 2e-4
    """Peak of the learning rate."""
    schedule: Literal["linear", "constant"] = "linear"
    """After the warm-up: fall to 0 in a straight line, or stay."""
    warmup_share: float = 0.07
    """Share of the steps in which the rate rises, 0 to 1."""
    optimizer: Literal["adamw", "adam", "legacy"] = "adamw"
    """Adam has no weight decay; "legacy" is S3PRL's own AdamW with its own end of the linear decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the latter."""
    weight_decay: float = 0.01
    """Of matrices; biases and norms have none."""
    decay_norms: bool = False
    """The scales of norms decay too, as in S3PRL's distillation."""
    clip_norm: float = 5.0
    """Ceiling of the gradient's L2 norm."""
    update_batches: int = 1
    """Global batches in one update; the number of ranks divides it."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What every training is told of its loop, whatever it trains."""

    seed: int = 0
    """Of the plan, the weights, dropout and all else that is drawn."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward pass (autocast); weights, gradients and optimizer are fp32."""
    checkpoint_every: int = 500
    """Steps between checkpoints; there is one at the end too."""
    keep_checkpoints: int = 2
    """Older ones are deleted."""
    tensorboard: bool = False
    """Write events for TensorBoard too."""

    def loop(self) -> dict[str, Any]:
        """These settings by name, without those of a subclass."""
        return {one.name: getattr(self, one.name) for one in fields(LoopSettings)}


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LoopSettings, UpdateSettings):
    """How to train. Nothing here but `num_steps` and what only keeps or tells may change when a run is continued."""

    num_steps: int
    """Updates in all; a linear learning rate ends at 0 there."""
    best_by: str | None = None
    """A figure of a hook, such as "valid_loss": the weights with the best one so far stay in `best/`."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Which figure is the best."""
    max_bad_steps: int = 10
    """Updates in a row that may be left out: loss or gradient not finite, or memory exhausted."""

    def __post_init__(self) -> None:
        fit_fields("training", self)
        for name in ("num_steps", "update_batches", "checkpoint_every", "keep_checkpoints", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "eps", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"weight_decay is {self.weight_decay}; it must be 0 or more")
        if not 0 <= self.warmup_share < 1:
            raise UsageError(f"warmup_share is {self.warmup_share}; it must be at least 0 and below 1")
        if not all(0 <= beta < 1 for beta in self.betas) or len(self.betas) != 2:
            raise UsageError(f"betas are {self.betas}; give two numbers of at least 0 and below 1")
