"""What a recipe is: all that is particular to one way of pretraining, as data and three functions.

`pretrain` knows no recipe by name. A recipe of one's own is a `Recipe`, made from scratch or by `replace` from another.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.settings import fitted, meant, with_fields
from s3prl_stream.stream import ShardStream
from s3prl_stream.trainer.settings import UpdateSettings


@dataclass(frozen=True)
class StreamSettings:
    """How the audio is cut and batched. A recipe with further settings subclasses this."""

    max_batch_seconds: float = 480.0
    """Budget of a batch in padded seconds. 32 clips of 15 s are published, in updates of 4 batches of 8."""
    max_batch_size: int | None = None
    """Most clips in a batch."""
    crop_seconds: float | None = 15.0
    """Longer clips are cut to a random stretch of this length; None: none is."""
    norm: str = "utterance"
    """Of the features, see `ExtractFeat`."""


@dataclass(frozen=True)
class TrainDefaults(UpdateSettings):
    """How the published recipe trains."""

    published_steps: int = 1_000_000
    """Updates in the publication, or what its epochs come to. Nobody is held to them: `steps` is always given."""


@dataclass(frozen=True)
class Recipe:
    """One way of pretraining.

    `settings` tells all that can be set, `having` sets some of it, and what is left are three functions.
    """

    name: str
    model: Any
    """A frozen dataclass of the network's sizes, with the published values."""
    encoder: Callable[[Any], nn.Module]
    """model -> the encoder: (feat [B, F, D], feat_len [B]) -> list of hidden states [B, F, H], with the integers
    `hidden_size` and `num_layers` (one less than hidden states); from waveforms if there is no front end."""
    build_objective: Callable[..., nn.Module]
    """(recipe, encoder) -> a module batch -> `Loss`, which has the encoder as `encoder` and makes its own heads. Where
    `has_teacher`: (recipe, encoder, teacher), the last None when there is nothing to train."""
    build_stream: Callable[..., Stage]
    """(recipe, shards, **settings of `ShardStream`) -> the chain from clips to what the objective takes."""
    front_end: FrontEnd | None
    """From waveforms to features; None: the encoder takes waveforms."""
    stream_settings: StreamSettings = field(default_factory=StreamSettings)
    train: TrainDefaults = field(default_factory=TrainDefaults)
    has_teacher: bool = False
    """Its objective needs a trained upstream."""
    legacy: bool = False
    """S3PRL's behaviour where it differs from what is right."""

    def settings(self) -> dict[str, dict[str, Any]]:
        """All settings with their values: {"model": ..., "stream": ..., "train": ...}."""
        parts = {"model": self.model, "stream": self.stream_settings, "train": self.train}
        return {name: dataclasses.asdict(part) for name, part in parts.items()}

    def having(self, settings: Mapping[str, Any], *, beside: Iterable[str] = ()) -> Recipe:
        """The recipe with some settings changed, by name.

        `legacy=True` brings S3PRL's AdamW with it where AdamW is used; with a teacher it decays norms as well.

        Args:
            settings: name -> value.
            beside: names that the caller knows, for the message.

        Raises:
            UsageError: no setting of that name, or a value of another type.
        """
        rest = dict(settings)
        legacy = fitted(f"recipe {self.name}: legacy", rest.pop("legacy", self.legacy), bool)
        parts: list[Any] = []
        for part in (self.model, self.stream_settings, self.train):
            names = [one.name for one in dataclasses.fields(part)]
            of_part = {name: rest.pop(name) for name in names if name in rest}
            parts.append(with_fields(f"recipe {self.name}", part, of_part))
        if rest:
            known = [*(name for part in self.settings().values() for name in part), *beside]
            raise UsageError(f"recipe {self.name}: no setting {', '.join(map(repr, rest))}; {meant(rest, known)}")
        train: TrainDefaults = parts[2]
        if legacy and not self.legacy and train.optimizer == "adamw" and "optimizer" not in settings:
            decay_norms = settings.get("decay_norms", self.has_teacher)
            train = dataclasses.replace(train, optimizer="legacy", decay_norms=decay_norms)
        return dataclasses.replace(self, model=parts[0], stream_settings=parts[1], train=train, legacy=legacy)

    def stream(self, shards: Any, **stream: Any) -> Stage:
        """The stream of this recipe; settings by name: its own, `device` (see `waveforms`), those of `ShardStream`."""
        own = {name: stream.pop(name) for name in dataclasses.asdict(self.stream_settings) if name in stream}
        recipe = self.having(own)
        feat_dim = getattr(self.model, "feat_dim", None)
        if self.front_end is not None and feat_dim not in (None, self.front_end.feat_dim):
            raise UsageError(
                f"recipe {self.name}: feat_dim is {feat_dim}, but the features ({self.front_end.kind}) have "
                f"{self.front_end.feat_dim} dimensions"
            )
        return recipe.build_stream(recipe, shards, **stream)


def sized(encoder: Callable[..., nn.Module], model: Any) -> nn.Module:
    """An encoder of this class with the sizes of a model, as far as its constructor has them."""
    known = inspect.signature(encoder).parameters
    return encoder(**{name: value for name, value in vars(model).items() if name in known})


def features(recipe: Recipe, shards: Any, **stream: Any) -> Stage:
    """The beginning of a recipe's chain on features: crops of clips -> `feat`; settings as of `waveforms`."""
    assert recipe.front_end is not None
    loaded = waveforms(recipe.stream_settings, shards, **stream)
    return recipe.front_end.chain(loaded, norm=recipe.stream_settings.norm)


def waveforms(settings: StreamSettings, shards: Any, *, device: str | None = None, **stream: Any) -> Stage:
    """The beginning of a recipe's chain: crops of clips -> `wav` at 16 kHz.

    Args:
        settings: how clips are cut and batched.
        shards: what a `ShardStream` accepts.
        device: stages that follow work on whole batches there, from int16 (`.on`); None: on samples, in the loader.
        **stream: further settings of `ShardStream`.
    """
    root = ShardStream(
        shards,
        max_batch_seconds=settings.max_batch_seconds,
        max_batch_size=settings.max_batch_size,
        crop_seconds=None if settings.crop_seconds is None else float(settings.crop_seconds),
        **stream,
    )
    if device is None:
        return root.load_audio(sample_rate=16_000, dtype="float32")
    return root.load_audio(sample_rate=16_000, dtype="int16").on(device)
