"""Heads by name: frame layers, a pooling where the answer is about an utterance, and the layer that answers.

B batch, F frames, H hidden, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.heads.ecapa import EcapaTdnn
from s3prl_stream.heads.linear import Linear, LinearWithHiddens
from s3prl_stream.heads.pooling import build_pooling
from s3prl_stream.heads.rnn import RNNs
from s3prl_stream.heads.spec_augment import SpecAugment
from s3prl_stream.heads.transformer import Transformer
from s3prl_stream.heads.xvector import XVector
from s3prl_stream.models.sizes import fits_memory, possible
from s3prl_stream.settings import fit_keywords, keyword_defaults

LEVELS = ("frame", "utterance", "embedding")


class _Kind(NamedTuple):
    layers: Callable[..., nn.Module]
    pooling: str  # if none is asked for


KINDS = {
    "linear": _Kind(Linear, "mean"),
    "hidden": _Kind(LinearWithHiddens, "mean"),
    "rnn": _Kind(RNNs, "mean"),
    "transformer": _Kind(Transformer, "mean"),
    "xvector": _Kind(XVector, "statistics"),
    "ecapa": _Kind(EcapaTdnn, "attentive"),
}
"""Name -> frame layers: a module (input_size, **settings) with `output_size`, mapping ([B, F, H], [B]) to the same."""


class Head(nn.Module):
    """Frame layers and what answers behind them: ([B, F, H], [B]) -> ([B, F, C], [B]), or pooled ([B, C], ones [B]).

    An embedding is as in SUPERB's x-vector: two layers with ReLU after the pooling, of which the second is there while
    training only.
    """

    def __init__(self, layers: nn.Module, level: str, pooling: str, output_size: int) -> None:
        super().__init__()
        self.layers = layers
        self.level = level
        width = int(layers.output_size)  # type: ignore[arg-type]
        if level != "frame":
            self.pooling = build_pooling(pooling, width)
            width *= int(self.pooling.growth)  # type: ignore[arg-type]
        if level == "embedding":
            self.first, self.second = nn.Linear(width, output_size), nn.Linear(output_size, output_size)
        else:
            self.output = nn.Linear(width, output_size)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and their lengths; of an utterance the second value has no meaning."""
        hidden_BFH, len_B = self.layers(hidden_BFH, len_B)
        if self.level == "frame":
            return self.output(hidden_BFH), len_B
        pooled_BH = self.pooling(hidden_BFH, len_B)
        if self.level == "utterance":
            return self.output(pooled_BH), torch.ones_like(len_B)
        embedding_BC = torch.relu(self.first(pooled_BH))
        if self.training:
            embedding_BC = torch.relu(self.second(embedding_BC))
        return embedding_BC, torch.ones_like(len_B)


class AugmentedHead(nn.Module):
    """A head behind SpecAugment, which acts while training only."""

    def __init__(self, head: nn.Module, augment: SpecAugment) -> None:
        super().__init__()
        self.head = head
        self.augment = augment

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """What the head gives."""
        outputs: tuple[Tensor, Tensor] = self.head(self.augment(hidden_BFH, len_B), len_B)
        return outputs


def build_head(
    kind: str,
    *,
    level: str,
    input_size: int,
    output_size: int,
    pooling: str | None = None,
    spec_augment: bool = False,
    **settings: Any,
) -> nn.Module:
    """A head: ([B, F, H], valid frames [B]) -> (outputs, their lengths [B]). Padding changes nothing.

    Args:
        kind: of the frame layers: "linear", "hidden", "rnn", "transformer", "xvector", "ecapa".
        level: "frame" ([B, F, C] comes out), "utterance" ([B, C]) or "embedding" ([B, C], nothing above it).
        input_size: H of the upstream.
        output_size: C.
        pooling: "mean", "statistics", "self_attentive" or "attentive"; None: what fits the kind.
        spec_augment: mask frames and dimensions while training (`SpecAugment`).
        **settings: of the frame layers, such as `hidden_size`.

    Raises:
        UsageError: an unknown kind, level, pooling or setting, one of a wrong type or size, or a pooling for frames.
    """
    if kind not in KINDS:
        raise UsageError(f"head {kind!r} is unknown; there are {', '.join(KINDS)}")
    if level not in LEVELS:
        raise UsageError(f"head level {level!r} is unknown; there are {', '.join(LEVELS)}")
    if level == "frame" and pooling is not None:
        raise UsageError(f"head {kind!r}: this task asks for an answer for each frame, so there is nothing to pool")
    if level == "frame" and kind == "xvector":
        raise UsageError("head 'xvector' gives 14 frames less than there are; choose 'ecapa' or another for frames")
    known = keyword_defaults(KINDS[kind].layers)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UsageError(f"head {kind!r} has no setting {', '.join(unknown)}; there are {', '.join(known)}")
    of = f"head {kind!r}"
    given = {"pooling": pooling or KINDS[kind].pooling, "spec_augment": spec_augment}
    pooling, spec_augment = fit_keywords(of, build_head, given).values()
    settings = fit_keywords(of, KINDS[kind].layers, settings)
    for name, value in settings.items():
        for size in value if isinstance(value, tuple) else (value,):
            if type(size) is int:
                possible(of, **{name: size})

    def build() -> nn.Module:
        return Head(KINDS[kind].layers(input_size, **settings), level, pooling, output_size)

    try:
        fits_memory(of, build)
    except UsageError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        told = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        raise UsageError(f"{of}: {told} cannot be used ({str(error).splitlines()[0]})") from None
    return AugmentedHead(build(), SpecAugment()) if spec_augment else build()


def settings_of_head(kind: str, level: str) -> dict[str, Any]:
    """Name -> default of all that `build_head` takes as a setting; UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"head {kind!r} is unknown; there are {', '.join(KINDS)}")
    pooling = {} if level == "frame" else {"pooling": KINDS[kind].pooling}
    return {**pooling, "spec_augment": False, **keyword_defaults(KINDS[kind].layers)}
