"""Upstreams: waveforms in, hidden states out, for whatever stands downstream.

B waveforms, T samples at 16 kHz, F frames, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.features import HOP_SAMPLES, NUM_BINS, log_mel, normalised
from s3prl_stream.pipes.norm_wav import scale_to_db
from s3prl_stream.recipes import TARGET_DB, build_objective, load_objective, pick_device, read_settings

BASELINE = "logmel80"
MIN_SAMPLES = 800
"""Shorter waveforms are padded with zeros to this length, as S3PRL's upstreams do."""


class Upstream(nn.Module):
    """Waveforms -> hidden states at one frame each 10 ms.

    Features are computed on the CPU and utterance by utterance, so they do not depend on what else is in the batch.

    Args:
        encoder: (feat [B, F, 80], feat_len [B]) -> hidden states; None: the log-mel itself, without normalisation over
            the utterance (its mean would be 0), is the only hidden state.
        norm: of the features, as in `ExtractFeat`.

    Attributes:
        stride: samples from one frame to the next.
        hidden_size: H.
        num_layers: there are `num_layers` + 1 hidden states.
    """

    def __init__(self, encoder: nn.Module | None, *, norm: str = "utterance") -> None:
        super().__init__()
        self.encoder = encoder
        self.norm = "none" if encoder is None else norm
        self.stride = HOP_SAMPLES
        self.hidden_size = NUM_BINS if encoder is None else _whole_number(encoder, "hidden_size")
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
        feats = [self._features(wav[:size]) for wav, size in zip(wavs, sizes, strict=True)]
        device = next(self.buffers()).device
        feat_BFD = nn.utils.rnn.pad_sequence(feats, batch_first=True).to(device)
        if self.encoder is None:
            return [feat_BFD]
        hidden_states: list[Tensor] = self.encoder(feat_BFD, self.num_frames(sizes).to(device))
        return hidden_states

    def num_frames(self, lengths: Sequence[int] | Tensor) -> Tensor:
        """Valid frames int64 [B] of waveforms of these lengths (samples)."""
        return 1 + torch.as_tensor(lengths).clamp(min=MIN_SAMPLES) // self.stride

    def _features(self, wav: Tensor) -> Tensor:
        padded = np.zeros(max(len(wav), MIN_SAMPLES), dtype=np.float32)
        padded[: len(wav)] = np.asarray(wav.detach().cpu() if isinstance(wav, Tensor) else wav)
        feat_FD = log_mel(torch.as_tensor(scale_to_db(padded, TARGET_DB)))
        return normalised(feat_FD, self.norm)


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
        return Upstream(None).to(pick_device(device)).eval()
    settings = read_settings(name)
    if trained:
        network = load_objective(name, encoder=encoder).encoder
    else:
        sizes = settings["encoder"]
        if encoder is None and isinstance(sizes, str):
            raise UsageError(f"{name}: was trained with an encoder of your own; pass encoder= ({sizes})")
        network = build_objective(settings["recipe"], sizes, encoder=encoder, seed=seed).encoder
    return Upstream(network, norm=settings["norm"]).to(pick_device(device)).eval()


def _whole_number(encoder: nn.Module, name: str) -> int:
    value = getattr(encoder, name, None)
    if not isinstance(value, int):
        raise UsageError(f"encoder {type(encoder).__name__} needs an integer attribute `{name}`")
    return value
