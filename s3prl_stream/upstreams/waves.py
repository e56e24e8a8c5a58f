"""Upstreams that take waveforms as they are: HuBERT and its kind, and DistilHuBERT.

B waveforms, T samples at 16 kHz, F frames, H hidden, N predicted layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3prl_stream.models.wave import WaveEncoder
from s3prl_stream.padding import is_valid
from s3prl_stream.upstreams.upstream import Lengths, Upstream, Wavs, check_wavs, sizes_of, states_of, whole_number


class WaveUpstream(Upstream):
    """An encoder of waveforms.

    Args:
        encoder: (wav [B, T], wav_len [B]) -> list of hidden states [B, F, H], or one, with `stride` and `num_frames`.
        head: (last hidden state [B, F, H]) -> [B, N, F, H], N further hidden states: DistilHuBERT's predictions of its
            teacher's layers; None: there are none.
        num_predictions: N.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module | None = None, *, num_predictions: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.stride = whole_number(encoder, "stride")
        self.hidden_size = whole_number(encoder, "hidden_size")
        self.num_layers = whole_number(encoder, "num_layers") + num_predictions

    def forward(self, wavs: Wavs, lengths: Lengths | None = None) -> list[Tensor]:
        wav_BT, len_B = padded(wavs, lengths, next(self.parameters()).device)
        hidden_states = states_of(self.encoder, self.encoder(wav_BT, len_B))
        if self.head is not None:
            hidden_states = [*hidden_states, *self.head(hidden_states[-1]).unbind(1)]
        return hidden_states

    def num_frames(self, lengths: Lengths) -> Tensor:
        frames_B: Tensor = self.encoder.num_frames(torch.as_tensor(lengths).cpu())  # type: ignore[operator]
        return frames_B

    def wave_weights(self) -> dict[str, Tensor] | None:
        """Weights under the names of `WaveEncoder`, for a student to begin with."""
        return dict(self.encoder.state_dict()) if isinstance(self.encoder, WaveEncoder) else None


def padded(wavs: Wavs, lengths: Lengths | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """(float32 [B, T] with zeros after the valid samples, lengths int64 [B]), on the device.

    A batch that lies there already, with its lengths, is not waited for.
    """
    check_wavs(wavs)
    if isinstance(wavs, Tensor):
        wav_BT = wavs.to(device, torch.float32)
        is_there = isinstance(lengths, Tensor) and lengths.device.type != "cpu"
        valid = lengths if is_there else sizes_of(wavs, lengths)
        len_B = torch.as_tensor(valid, dtype=torch.int64).to(device)
        return wav_BT * is_valid(len_B, wav_BT.shape[1]), len_B
    sizes = sizes_of(wavs, lengths)
    rows = [torch.as_tensor(wav)[:size].to(device, torch.float32) for wav, size in zip(wavs, sizes, strict=True)]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(sizes, device=device)
