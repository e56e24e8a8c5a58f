"""Additive noise at a drawn signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.arguments import number_range, probability
from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import key_hash
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.load_audio import INT16_SCALE
from s3prl_stream.pipes.noise_bank import NoiseBank
from s3prl_stream.pipes.norm_wav import rms
from s3prl_stream.pipes.on_batch import Drawn, OnBatch, normals_of_rows, numbers_of, rms_of_rows
from s3prl_stream.pipes.s3prl_arguments import NOISE_REFUSED
from s3prl_stream.pipes.stage import Samples
from s3prl_stream.sample import Batch, Sample


@chained("add_noise", aliases={"snrs": "snr"}, key_names={"wav_name": "wav"}, refused=NOISE_REFUSED)
class NoiseAugmentation(OnBatch):
    """Add noise to a share of the waveforms, at a ratio drawn uniformly in dB; nothing is clipped.

    In:     wav float32 [T]; sample_rate (Hz), of which a bank must be.
    Out:    wav float32 [T]. 1 -> 1. Silence has no ratio to any noise and stays silence.
    Random: by identity, always in this order: the coin (uniform), the ratio (uniform), then T normals; or, of a bank,
            the number of voices (integer) if it is a range, and a place on the timeline for each (integer). Behind
            `.on(device)` the normals are the device's, from a seed for each waveform: the same ratio, other noise.

    Args:
        noise: "gaussian" (white), or a `NoiseBank` of noise, music or speech.
        snr: (lowest, highest) signal-to-noise ratio in dB over the whole waveform, or one number. S3PRL's list is
            accepted.
        prob: share of the waveforms that get noise, 0 to 1.
        voices: how many stretches of the bank are added up, or (lowest, highest): 3 to 8 of a bank of speech are
            babble.

    Raises:
        UsageError: at construction, for another kind of noise or a value out of its range; later, where the bank has
            another sample rate than the audio.
    """

    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"wav": "float32 [T]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        noise: str | NoiseBank = "gaussian",
        snr: Sequence[float] | float = (3.0, 20.0),
        prob: float = 1.0,
        voices: Sequence[int] | int = 1,
    ) -> None:
        if noise != "gaussian" and not isinstance(noise, NoiseBank):
            raise UsageError(
                f'NoiseAugmentation: noise={noise!r} is neither "gaussian" nor a NoiseBank, such as '
                'NoiseBank("musan/noise") of a folder or a set.'
            )
        self.noise = noise
        self.snr = number_range("NoiseAugmentation", "snr", snr)
        self.prob = probability("NoiseAugmentation", prob)
        fewest, most = number_range("NoiseAugmentation", "voices", voices, least=1, most=100)
        if (fewest, most) != (int(fewest), int(most)) or (most > 1 and noise == "gaussian"):
            raise UsageError(f"NoiseAugmentation: voices={voices!r}: a number of stretches of a NoiseBank")
        self.voices = int(fewest), int(most)
        super().__init__(source)

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """The coin, the ratio, and the noise itself where it comes from a bank, with the number of voices and where on
        its timeline the first begins; else a seed for it."""
        applied = bool(rng.random() < self.prob)
        drawn: dict[str, Any] = {"applied": applied, "snr_db": float(rng.uniform(*self.snr)) if applied else 0.0}
        if not isinstance(self.noise, NoiseBank):
            return {**drawn, "seed": key_hash(f"{self.stage_id}/{sample['identity']}") >> 1}
        if not applied:
            return {**drawn, "voices": 0, "place": -1, "noise": np.zeros(0, dtype=np.int16)}
        rate = sample.get("sample_rate", self.noise.sample_rate)
        if rate != self.noise.sample_rate:
            raise UsageError(f"add_noise: the bank is at {self.noise.sample_rate} Hz, the audio at {rate} Hz")
        fewest, most = self.voices
        voices = fewest if fewest == most else int(rng.integers(fewest, most + 1))
        places = self.noise.places(rng, voices)
        noise = self.noise.noise(places, len(sample["wav"]))
        return {**drawn, "voices": voices, "place": places[0], "noise": noise}

    def emit(self, sample: Sample) -> Iterator[Sample]:
        rng = self.rng(sample)
        drawn = self.draw(sample, rng)
        if drawn["applied"]:
            wav = sample["wav"].numpy()
            if isinstance(self.noise, NoiseBank):
                noise = drawn["noise"] * INT16_SCALE
            else:
                noise = rng.standard_normal(len(wav), dtype=np.float32)
            sample = {**sample, "wav": torch.from_numpy(mix_at_snr(wav, noise, drawn["snr_db"]))}
        yield self.noted(sample, **numbers_of(drawn))

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        """`mix_at_snr` of each row."""
        wav_BT, lengths_B = batch["wav"], batch["wav_len"]
        if isinstance(self.noise, NoiseBank):
            noise_BT = drawn["noise"] * INT16_SCALE.item()
            noise_BT = torch.nn.functional.pad(noise_BT, (0, wav_BT.shape[1] - noise_BT.shape[1]))
        else:
            noise_BT = normals_of_rows(wav_BT, drawn.host["seed"], drawn.host_lengths["wav_len"])
        wav_rms_B, noise_rms_B = rms_of_rows(wav_BT, lengths_B), rms_of_rows(noise_BT, lengths_B)
        gain_B = wav_rms_B / noise_rms_B * 10.0 ** (-drawn["snr_db"].double() / 20.0)
        gain_B = torch.where(drawn["applied"] & (noise_rms_B > 0), gain_B, 0.0)
        return {**batch, "wav": wav_BT + noise_BT * gain_B[:, None].float()}


def mix_at_snr(wav: npt.NDArray[np.float32], noise: npt.NDArray[np.float32], snr_db: float) -> npt.NDArray[np.float32]:
    """wav float32 [T] + noise float32 [T] scaled so that 20 * log10(rms(wav) / rms(what is added)) is `snr_db`.

    The noise is scaled by its own measured RMS, not by its expected one. Where either is silent, wav comes back.
    """
    wav_rms, noise_rms = rms(wav), rms(noise)
    if wav_rms == 0.0 or noise_rms == 0.0:
        return wav
    mixed: npt.NDArray[np.float32] = wav + noise * np.float32(wav_rms / noise_rms * 10.0 ** (-snr_db / 20.0))
    return mixed
