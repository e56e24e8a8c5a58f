"""Loudness: each waveform at the same RMS level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.arguments import one_number
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch, rms_of_rows
from s3prl_stream.pipes.s3prl_arguments import NORM_REFUSED, norm_arguments
from s3prl_stream.pipes.stage import Samples
from s3prl_stream.sample import Batch, Sample


@chained(
    "norm_wav",
    aliases={"target_level": "target_db"},
    key_names={"wav_name": "wav"},
    refused=NORM_REFUSED,
    translate=norm_arguments,
)
class NormWav(OnBatch):
    """Scale each waveform to one RMS level, as S3PRL's upstreams expect it; nothing is clipped.

    In:     wav float32 [T].
    Out:    wav float32 [T]. 1 -> 1. Silence stays silence.
    Random: none.

    Args:
        target_db: RMS level that comes out, in dB relative to an RMS of 1.0 (so below 0, usually).
    """

    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"wav": "float32 [T]"}

    def __init__(self, source: Samples | None = None, *, target_db: float = -25.0) -> None:
        self.target_db = one_number("norm_wav", "target_db", target_db)
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, "wav": torch.from_numpy(scale_to_db(sample["wav"].numpy(), self.target_db))}

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:  # noqa: ARG002
        """`scale_to_db` of each row."""
        scale_B = 10.0 ** (self.target_db / 20.0) / (rms_of_rows(batch["wav"], batch["wav_len"]) + 1e-10)
        return {**batch, "wav": batch["wav"] * scale_B[:, None].float()}


def scale_to_db(wav: npt.NDArray[np.float32], target_db: float) -> npt.NDArray[np.float32]:
    """wav float32 [T] scaled to an RMS of 10^(target_db / 20); an empty or silent one stays as it is.

    The scale is S3PRL's, 10^(db / 20) / (rms + 1e-10), so a waveform of RMS near 1e-10 is not blown up to full level.
    """
    scale = 10.0 ** (target_db / 20.0) / (rms(wav) + 1e-10)
    scaled: npt.NDArray[np.float32] = wav * np.float32(scale)
    return scaled


def rms(wav: npt.NDArray[np.float32]) -> float:
    """Root mean square of wav [T]; 0.0 of an empty one.

    Summed by numpy in float64, in one thread and in a fixed order, without an array of squares: BLAS (`np.dot`) and
    torch split a sum by the number of threads, and the last bits of every waveform would depend on the machine's load
    settings.
    """
    if not wav.size:
        return 0.0
    return float(np.sqrt(np.einsum("i,i->", wav, wav, dtype=np.float64) / wav.size))
