"""Kaldi's features of one waveform, as torchaudio computes them: 25 ms windows every 10 ms, without dither.

The windows lie inside of the waveform, so that a rest shorter than a hop is left out. T waveform samples at 16 kHz,
F frames.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from s3prl_stream.errors import SampleError, UsageError

SAMPLE_RATE = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
NUM_BINS = 80
NUM_CEPSTRA = 13


def kaldi_fbank(wav: Tensor, *, window: str = "hamming") -> Tensor:
    """80 log mel energies.

    Args:
        wav: float32 [T] at 16 kHz in [-1, 1] (not scaled to 16 bits), T >= 400.
        window: "hamming" (S3PRL's APC, VQ-APC and NPC) or "povey" (Kaldi's own, S3PRL's Mockingjay).

    Returns:
        float32 [1 + (T - 400) // 160, 80].

    Raises:
        SampleError: shorter than one window.
        UsageError: torchaudio cannot be imported.
    """
    feat_FD: Tensor = _compliance().fbank(
        _checked(wav), num_mel_bins=NUM_BINS, sample_frequency=SAMPLE_RATE, window_type=window, dither=0.0
    )
    return feat_FD


def kaldi_mfcc(wav: Tensor) -> Tensor:
    """13 cepstral coefficients of 23 log mel energies, Povey window; float32 [1 + (T - 400) // 160, 13].

    Arguments and errors are those of `kaldi_fbank`.
    """
    feat_FD: Tensor = _compliance().mfcc(_checked(wav), num_ceps=NUM_CEPSTRA, sample_frequency=SAMPLE_RATE, dither=0.0)
    return feat_FD


def too_short(where: str, wav: Any, needed: int) -> SampleError:
    """The error for a waveform of too few samples."""
    return SampleError(f"{where}: {len(wav)} samples; at least {needed} are needed at 16 kHz", reason="too_short")


def _checked(wav: Tensor) -> Tensor:
    if len(wav) < WINDOW_SAMPLES:
        raise too_short("kaldi", wav, WINDOW_SAMPLES)
    return torch.as_tensor(wav, dtype=torch.float32)[None]


def _compliance() -> Any:
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"the Kaldi features need torchaudio, which cannot be imported here ({error}). "
            "torch 2.11.0 with torchaudio 2.11.0 work together; or use the kind 'logmel80', which does without."
        ) from error
    return kaldi
