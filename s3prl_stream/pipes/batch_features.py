"""The features of `features.py` and `kaldi.py` for padded batches of waveforms, in torch on any device.

Spectra, products with the filters and statistics are in float64: in float32 a log-mel of real speech is off by up to
4e-4 in quiet bins, and by more where TF32 is allowed.

B batch, T waveform samples at 16 kHz, F frames, K frequencies, D bins.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from s3prl_stream.padding import is_valid
from s3prl_stream.pipes.features import CENTRED_KINDS, fixed_scale
from s3prl_stream.pipes.kaldi import FFT_SAMPLES, FLOOR, HOP_SAMPLES, WINDOW_SAMPLES, filter_matrix, window_of
from s3prl_stream.pipes.log_mel import hann_window, mel_filter_matrix

BATCH_KINDS = ("logmel80", "linear201", "fbank80", "fbank80_povey")
"""Those of `features.KINDS` that there are for batches."""


def extract_rows(wav_BT: Tensor, lengths_B: Tensor, kind: str, *, norm: str, deltas: int = 0) -> tuple[Tensor, Tensor]:
    """What `features.extract` makes of each row, zero-padded.

    Args:
        wav_BT: float32, zeros after each row's length.
        lengths_B: int64, each long enough for a frame (two with norm="utterance").
        kind: of `BATCH_KINDS`.
        norm, deltas: see `features.ExtractFeat`.

    Returns:
        (float32 [B, F, D], int64 [B] frames).
    """
    if kind in CENTRED_KINDS:
        frames_B = 1 + lengths_B // HOP_SAMPLES
        power_BFK = _centred_power(wav_BT, lengths_B)
        if kind == "logmel80":
            power_BFK = power_BFK @ _on(wav_BT.device, "mel")
        feat_BFD = (power_BFK + 1e-10).log().float()
    else:
        frames_B = 1 + (lengths_B - WINDOW_SAMPLES) // HOP_SAMPLES
        power_BFK = _kaldi_power(wav_BT, "povey" if kind == "fbank80_povey" else "hamming")
        feat_BFD = (power_BFK @ _on(wav_BT.device, "kaldi")).clamp(min=FLOOR).log().float()
    if deltas:
        feat_BFD = _with_deltas(feat_BFD, frames_B, deltas)
    valid_BF1 = is_valid(frames_B, feat_BFD.shape[1])[:, :, None]
    if norm == "utterance":
        feat_BFD = _cmvn(feat_BFD, frames_B, valid_BF1)
    elif norm == "fixed":
        feat_BFD = fixed_scale(feat_BFD, deltas)
    return feat_BFD.masked_fill(~valid_BF1, 0.0), frames_B


def _centred_power(wav_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Power spectrum [B, F, 201] of windows centred on their frame, each row reflected at its own two ends."""
    reach = WINDOW_SAMPLES // 2
    wav_BT = wav_BT.double()
    padded = torch.cat([wav_BT[:, 1 : reach + 1].flip(1), wav_BT, wav_BT.new_zeros(len(wav_BT), reach)], dim=1)
    after = torch.arange(reach, device=wav_BT.device)
    mirrored = wav_BT.gather(1, lengths_B[:, None] - 2 - after)
    padded.scatter_(1, lengths_B[:, None] + reach + after, mirrored)
    return _power(padded.unfold(1, WINDOW_SAMPLES, HOP_SAMPLES) * _on(wav_BT.device, "hann"))


def _kaldi_power(wav_BT: Tensor, window: str) -> Tensor:
    """Kaldi's power spectrum [B, F, 257]: mean taken off each window, pre-emphasis of 0.97, window, zeros up to 512."""
    windows = wav_BT.double().unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
    windows = windows - windows.mean(dim=2, keepdim=True)
    before = torch.cat([windows[:, :, :1], windows[:, :, :-1]], dim=2)
    return _power((windows - 0.97 * before) * _on(wav_BT.device, window), num_points=FFT_SAMPLES)


def _power(windows: Tensor, num_points: int = WINDOW_SAMPLES) -> Tensor:
    spectrum: Tensor = torch.fft.rfft(windows, n=num_points)
    return spectrum.real.square() + spectrum.imag.square()


def _with_deltas(feat_BFD: Tensor, frames_B: Tensor, order: int) -> Tensor:
    """`features.with_deltas` of each row: [B, F, D * (order + 1)]; the last valid frame is repeated."""
    place_F = torch.arange(feat_BFD.shape[1], device=feat_BFD.device)
    last_B1 = (frames_B - 1)[:, None]
    parts = [feat_BFD]
    for _ in range(order):
        rise = torch.zeros_like(feat_BFD)
        for n in (1, 2):
            after = torch.minimum(place_F + n, last_B1)[:, :, None].expand_as(feat_BFD)
            before = torch.minimum((place_F - n).clamp(min=0), last_B1)[:, :, None].expand_as(feat_BFD)
            rise = rise + n * (parts[-1].gather(1, after) - parts[-1].gather(1, before))
        parts.append(rise / 10)
    return torch.cat(parts, dim=2)


def _cmvn(feat_BFD: Tensor, frames_B: Tensor, valid_BF1: Tensor) -> Tensor:
    values = feat_BFD.double()
    count_B11 = frames_B[:, None, None]
    mean = values.masked_fill(~valid_BF1, 0.0).sum(dim=1, keepdim=True) / count_B11
    centred = (values - mean).masked_fill(~valid_BF1, 0.0)
    deviation = (centred.square().sum(dim=1, keepdim=True) / (count_B11 - 1)).sqrt()
    return (centred / (deviation + 1e-10)).float()


@cache
def _on(device: torch.device, name: str) -> Tensor:
    """A window or the filters, on a device."""
    if name == "mel":
        return mel_filter_matrix().double().to(device)
    if name == "kaldi":
        return torch.from_numpy(filter_matrix()).to(device)
    if name == "hann":
        return torch.from_numpy(hann_window()).to(device)
    return torch.from_numpy(window_of(name)).to(device)
