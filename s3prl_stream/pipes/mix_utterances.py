"""Utterance mixing: a stretch of another utterance of the batch over each of some.

Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", JSTSP 2022, algorithm
1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.arguments import number_range, probability
from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64, key_hash
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.norm_wav import rms
from s3prl_stream.pipes.stage import Samples, Stage
from s3prl_stream.sample import Sample

F32: TypeAlias = npt.NDArray[np.float32]


@chained("mix_utterances")
class MixUtterances(Stage):
    """Add a stretch of another utterance of the batch to a share of the waveforms; text and labels stay the first
    one's.

    In:     wav float32 [T], of all samples of a planned batch at one sample rate.
    Out:    wav float32 [T]; nothing is clipped. 1 -> 1.
    Random: by identity: the coin (uniform), the ratio (uniform), length, place here and place there (uniform). The
            other utterance is the one whose identity, hashed with this one's, gives the greatest number: a damaged
            sample that drops out of the batch changes no other pair.

    Args:
        ratio_db: (lowest, highest) ratio in dB of this utterance's RMS to the other's, each over its whole length.
        max_share: the stretch is up to this share of the waveform long, 0 to 1, and up to the length of the other.
        prob: share of the waveforms that are mixed, 0 to 1.

    Raises:
        UsageError: at construction, for a value out of its range; later, where rates differ.
    """

    scope = "batch"
    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"wav": "float32 [T]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        ratio_db: Sequence[float] | float = (-5.0, 5.0),
        max_share: float = 0.5,
        prob: float = 0.2,
    ) -> None:
        self.ratio_db = number_range("mix_utterances", "ratio_db", ratio_db)
        self.max_share = probability("mix_utterances", max_share, "max_share")
        self.prob = probability("mix_utterances", prob)
        super().__init__(source)

    def emit_batch(self, samples: Sequence[Sample]) -> Iterator[Sample]:
        rates = {sample["sample_rate"] for sample in samples if "sample_rate" in sample}
        if len(rates) > 1:
            raise UsageError(
                f"mix_utterances: a batch has audio at {' and '.join(map(str, sorted(rates)))} Hz; load it at one "
                "rate, load_audio(sample_rate=...)"
            )
        identities = np.array([key_hash(sample["identity"]) for sample in samples], dtype=np.uint64)
        for number, sample in enumerate(samples):
            rng = self.rng(sample)
            if rng.random() >= self.prob or len(samples) < 2:
                yield self.noted(sample, applied=False)
                continue
            pairs = hash64(identities[number], identities)
            pairs[number] = 0
            other = samples[int(pairs.argmax())]
            ratio_db, shares = float(rng.uniform(*self.ratio_db)), rng.random(3)
            mixed = mix_stretch(
                sample["wav"].numpy(), other["wav"].numpy(), ratio_db, self.max_share * shares[0], *shares[1:]
            )
            yield self.noted(
                {**sample, "wav": torch.from_numpy(mixed)}, applied=True, ratio_db=ratio_db, other=other["key"]
            )


def mix_stretch(wav: F32, other: F32, ratio_db: float, share: float, place: float, other_place: float) -> F32:
    """wav [T] + a stretch of other [S] that is `share` of T long, at most S, at least one sample; float32 [T].

    The places are shares, 0 to 1, of the room that there is to move. `other` is scaled so that 20 * log10(rms(wav) /
    rms(other)) is `ratio_db`. Where either is silent or empty, wav comes back.
    """
    wav_rms, other_rms = rms(wav), rms(other)
    if wav_rms == 0.0 or other_rms == 0.0:
        return wav
    length = min(max(round(share * len(wav)), 1), len(other))
    first = round(place * (len(wav) - length))
    other_first = round(other_place * (len(other) - length))
    mixed = np.array(wav)
    gain = np.float32(wav_rms / other_rms * 10.0 ** (-ratio_db / 20.0))
    mixed[first : first + length] += gain * other[other_first : other_first + length]
    return mixed
