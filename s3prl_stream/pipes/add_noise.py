"""Additive noise at a drawn signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.norm_wav import rms
from s3prl_stream.pipes.stage import Samples, Stage, chained
from s3prl_stream.sample import Sample


@chained("add_noise")
class NoiseAugmentation(Stage):
    """Add noise to a share of the waveforms, at a ratio drawn uniformly in dB; nothing is clipped.

    In:     wav float32 [T].
    Out:    wav float32 [T]. 1 -> 1. Silence has no ratio to any noise and stays silence.
    Random: by identity, always in this order: the coin (uniform), the ratio (uniform), the noise (T normals).

    Args:
        source: what to read from; None to bind later.
        noise: the kind; "gaussian" (white) is the one there is.
        snr: (lowest, highest) signal-to-noise ratio in dB over the whole waveform, or one number. S3PRL's list is
            accepted.
        prob: share of the waveforms that get noise, 0 to 1.

    Raises:
        UsageError: at construction, for another kind of noise or a value out of its range.
    """

    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"wav": "float32 [T]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        noise: str = "gaussian",
        snr: Sequence[float] | float = (3.0, 20.0),
        prob: float = 1.0,
    ) -> None:
        if noise != "gaussian":
            raise UsageError(f'NoiseAugmentation: noise={noise!r} does not exist; there is "gaussian".')
        if not 0.0 <= prob <= 1.0:
            raise UsageError(f"NoiseAugmentation: prob={prob!r} is not between 0 and 1.")
        self.noise = noise
        self.snr = _snr_range(snr)
        self.prob = float(prob)
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        wav, rng = sample["wav"].numpy(), self.rng(sample)
        if rng.random() >= self.prob:
            yield sample
            return
        snr_db = rng.uniform(*self.snr)
        noise = rng.standard_normal(len(wav), dtype=np.float32)
        yield {**sample, "wav": torch.from_numpy(mix_at_snr(wav, noise, snr_db))}


def mix_at_snr(wav: npt.NDArray[np.float32], noise: npt.NDArray[np.float32], snr_db: float) -> npt.NDArray[np.float32]:
    """wav float32 [T] + noise float32 [T] scaled so that 20 * log10(rms(wav) / rms(what is added)) is `snr_db`.

    The noise is scaled by its own measured RMS, not by its expected one. Where either is silent, wav comes back.
    """
    wav_rms, noise_rms = rms(wav), rms(noise)
    if wav_rms == 0.0 or noise_rms == 0.0:
        return wav
    mixed: npt.NDArray[np.float32] = wav + noise * np.float32(wav_rms / noise_rms * 10.0 ** (-snr_db / 20.0))
    return mixed


def _snr_range(snr: Sequence[float] | float) -> tuple[float, float]:
    bounds = (snr, snr) if isinstance(snr, int | float) else tuple(snr)
    if len(bounds) != 2 or not bounds[0] <= bounds[1]:
        raise UsageError(f"NoiseAugmentation: snr={snr!r} is neither a number of dB nor (lowest, highest) in dB.")
    return float(bounds[0]), float(bounds[1])
