"""Upstreams: waveforms in, hidden states out, for whatever stands downstream.

B waveforms, T samples at 16 kHz, F frames, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.run_folder import fresh_objective, load_objective, pick_device, read_settings, recipe_of

BASELINE = "logmel80"


class Upstream(nn.Module):
    """Waveforms -> hidden states.

    Features are computed on the CPU and utterance by utterance, so they do not depend on what else is in the batch.

    Args:
        encoder: (feat [B, F, D], feat_len [B]) -> hidden states; None: the features themselves, without normalisation
            over the utterance (their mean would be 0), are the only hidden state.
        front_end: from waveforms to features.
        norm: of the features, as in `ExtractFeat`.

    Attributes:
        stride: samples from one frame to the next.
        hidden_size: H.
        num_layers: there are `num_layers` + 1 hidden states.
    """

    def __init__(self, encoder: nn.Module | None, front_end: FrontEnd, *, norm: str = "utterance") -> None:
        super().__init__()
        self.encoder = encoder
        self.front_end = front_end
        self.norm = "none" if encoder is None else norm
        self.stride = front_end.stride
        self.hidden_size = front_end.feat_dim if encoder is None else _whole_number(encoder, "hidden_size")
        self.num_layers = 0 if encoder is None else _whole_number(encoder, "num_layers")
        self.register_buffer("_where", torch.zeros(()), persistent=False)

    def forward(self, wavs: Sequence[Tensor] | Tensor, lengths: Sequence[int] | Tensor | None = None) -> list[Tensor]:
        """Hidden states of a batch.

        Args:
            wavs: float [T] each, or one padded tensor [B, T], at 16 kHz in [-1, 1].
            lengths: valid samples of each [B]; None: all.

        Returns:
            `num_layers` + 1 tensors [B, F, H]; `num_frames(lengths)` are valid, the rest has no meaning.
        """
        sizes = [len(wav) for wav in wavs] if lengths is None else [int(length) for length in lengths]
        pairs = zip(wavs, sizes, strict=True)
        feats = [self.front_end.features(wav[:size], norm=self.norm) for wav, size in pairs]
        device = next(self.buffers()).device
        feat_BFD = nn.utils.rnn.pad_sequence(feats, batch_first=True).to(device)
        if self.encoder is None:
            return [feat_BFD]
        hidden_states: list[Tensor] = self.encoder(feat_BFD, self.num_frames(sizes).to(device))
        return hidden_states

    def num_frames(self, lengths: Sequence[int] | Tensor) -> Tensor:
        """Valid frames int64 [B] of waveforms of these lengths (samples)."""
        return self.front_end.num_frames(lengths)


def upstream(
    name: str | Path,
    *,
    trained: bool = True,
    seed: int = 0,
    encoder: nn.Module | None = None,
    device: str | None = "cpu",
) -> Upstream:
    """An upstream in evaluation mode.

    Args:
        name: output folder of a pretraining run, or "logmel80" (the baseline without a network).
        trained: False: the same network with fresh weights.
        seed: of these fresh weights.
        encoder: a fresh instance, if the run was made with an encoder of one's own.
        device: where it computes; None: the GPU if there is one.

    Raises:
        UsageError: no run there, or no checkpoint in it.
    """
    if str(name) == BASELINE:
        return Upstream(None, FrontEnd("logmel80", target_db=-25.0)).to(pick_device(device)).eval()
    settings = read_settings(name)
    recipe = recipe_of(settings)
    assert recipe.front_end is not None
    if trained:
        objective = load_objective(name, encoder=encoder)
    else:
        objective = fresh_objective(name, settings, encoder=encoder, seed=seed)
    network: nn.Module = objective.encoder  # type: ignore[assignment]
    return Upstream(network, recipe.front_end, norm=settings["norm"]).to(pick_device(device)).eval()


def _whole_number(encoder: nn.Module, name: str) -> int:
    value = getattr(encoder, name, None)
    if not isinstance(value, int):
        raise UsageError(f"encoder {type(encoder).__name__} needs an integer attribute `{name}`")
    return value
