"""What upstreams from torchaudio and from Hugging Face have in common: wav2vec 2.0, HuBERT, WavLM.

The library's own model computes. Two things are done for it, so that an utterance gets in a batch what it gets alone:
waveforms are normalised one by one where the model wants them normalised, and the models of the base kind, whose first
convolution is normalised over time, do that over the valid frames.

B batch, T waveform samples at 16 kHz, F frames, H hidden.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from s3prl_stream.models import weight_names
from s3prl_stream.models.exact import is_wrong
from s3prl_stream.models.wave import MIN_SAMPLES, conv_frames, norm_over_time
from s3prl_stream.padding import is_valid
from s3prl_stream.upstreams.upstream import Lengths, Upstream, Wavs
from s3prl_stream.upstreams.waves import padded


class NormOverValidTime(nn.Module):
    """In the place of a GroupNorm with a group for each channel; `frames_B` is set before each batch."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        assert norm.num_groups == norm.num_channels
        self.weight = norm.weight
        self.bias = norm.bias
        self.eps = norm.eps
        self.frames_B = torch.zeros(0, dtype=torch.int64)

    def forward(self, input_BCF: Tensor) -> Tensor:
        """[B, C, F] -> [B, C, F]."""
        return norm_over_time(input_BCF, self.frames_B, self.weight, self.bias, self.eps)


class LibraryUpstream(Upstream):
    """A model of a library.

    Args:
        model: the library's.
        kernels, strides: of its convolutions.
        hidden_size, num_layers: of it.
        normalize: whether it wants waveforms of mean 0 and variance 1.
    """

    library: ClassVar[str]
    """As `weight_names.library_wave` calls it."""

    def __init__(
        self,
        model: nn.Module,
        *,
        kernels: Sequence[int],
        strides: Sequence[int],
        hidden_size: int,
        num_layers: int,
        normalize: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.kernels = tuple(kernels)
        self.strides = tuple(strides)
        self.stride = math.prod(strides)
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.normalize = normalize
        first = model.get_submodule("feature_extractor.conv_layers.0")
        self._time_norm: list[NormOverValidTime] = []
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            self._time_norm = [NormOverValidTime(first.layer_norm)]  # type: ignore[arg-type]
            first.layer_norm = self._time_norm[0]

    def wave_weights(self) -> dict[str, Tensor] | None:
        """Weights under the names of `WaveEncoder`, for a student to begin with; None: the model is of another kind."""
        if not self._time_norm:
            return None
        try:
            names = weight_names.library_wave(self.num_layers, library=self.library)
            return weight_names.to_ours(self.model.state_dict(), names)
        except KeyError:
            return None

    @abstractmethod
    def hidden_states(self, wav_BT: Tensor, wav_len_B: Tensor) -> list[Tensor]:
        """What the library's model makes of padded waveforms."""

    def forward(self, wavs: Wavs, lengths: Lengths | None = None) -> list[Tensor]:
        wav_BT, len_B = padded(wavs, lengths, next(self.parameters()).device)
        if wav_BT.shape[1] < MIN_SAMPLES:
            wav_BT = nn.functional.pad(wav_BT, (0, MIN_SAMPLES - wav_BT.shape[1]))
        if self.normalize:
            wav_BT = normalised(wav_BT, len_B)
        len_B = len_B.clamp(min=MIN_SAMPLES)
        for norm in self._time_norm:
            norm.frames_B = conv_frames(len_B, self.kernels[:1], self.strides[:1])
        in_bf16 = torch.is_autocast_enabled("cpu") and not any(map(is_wrong, self.model.modules()))
        with torch.autocast("cpu", enabled=in_bf16):  # of what is on a GPU it decides nothing
            return self.hidden_states(wav_BT, len_B)

    def num_frames(self, lengths: Lengths) -> Tensor:
        samples_B = torch.as_tensor(lengths).cpu().clamp(min=MIN_SAMPLES)
        return conv_frames(samples_B, self.kernels, self.strides)


def normalised(wav_BT: Tensor, len_B: Tensor) -> Tensor:
    """Each waveform at mean 0 and variance 1 over its valid samples; padding is 0."""
    valid_BT = is_valid(len_B, wav_BT.shape[1])
    count_B1 = len_B[:, None].clamp(min=1)
    centered_BT = (wav_BT - wav_BT.sum(dim=1, keepdim=True) / count_B1) * valid_BT
    variance_B1 = centered_BT.square().sum(dim=1, keepdim=True) / count_B1
    return centered_BT * torch.rsqrt(variance_B1 + 1e-7)
