"""Reverberation: each waveform in a room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from s3prl_stream.arguments import number_range, one_number, probability
from s3prl_stream.errors import UsageError
from s3prl_stream.padding import is_valid
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch, numbers_of
from s3prl_stream.pipes.rooms import DIRECT_AT, F32, RirBank, fft_size, reverberated, simulated
from s3prl_stream.pipes.stage import Samples
from s3prl_stream.sample import Batch, Sample


@chained("reverberate")
class Reverberation(OnBatch):
    """Convolve a share of the waveforms with room impulse responses, measured or simulated.

    In:     wav float32 [T]; sample_rate (Hz; 16 000 where there is none).
    Out:    wav float32 [T]. 1 -> 1. The direct sound keeps its level and its time; nothing is clipped; what would sound
            after the end is cut.
    Random: by identity: the coin (uniform); then of a bank the response (integer), else decay time, ratio, delay
            (uniform) and the reflections (normals).

    Args:
        rooms: "simulated" (`rooms.simulated`: noise that decays exponentially), or a `RirBank`.
        rt60: (lowest, highest) seconds in which the reflections decay by 60 dB, or one number; of simulated rooms.
        drr_db: (lowest, highest) ratio of direct to reflected energy in dB; of simulated rooms.
        max_seconds: a measured response is cut this long after its direct path.
        prob: share of the waveforms that are changed, 0 to 1.

    Raises:
        UsageError: at construction, for a value out of its range; later, where the bank has another sample rate than
            the audio.
    """

    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"wav": "float32 [T]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        rooms: str | RirBank = "simulated",
        rt60: Sequence[float] | float = (0.2, 0.8),
        drr_db: Sequence[float] | float = (0.0, 15.0),
        max_seconds: float = 2.0,
        prob: float = 1.0,
    ) -> None:
        if rooms != "simulated" and not isinstance(rooms, RirBank):
            raise UsageError(
                f'reverberate: rooms={rooms!r} is neither "simulated" nor a RirBank, such as '
                'RirBank("rirs") of a folder or a set.'
            )
        self.rooms = rooms
        self.rt60 = number_range("reverberate", "rt60", rt60, least=0.01, most=20.0)
        self.drr_db = number_range("reverberate", "drr_db", drr_db)
        self.max_seconds = one_number("reverberate", "max_seconds", max_seconds, least=0.001)
        self.prob = probability("reverberate", prob)
        super().__init__(source)

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """The response and what it is made of: which of the bank (from 0), or the room's decay and ratio."""
        drawn: dict[str, Any] = {"applied": bool(rng.random() < self.prob)}
        drawn |= {"rir": -1} if isinstance(self.rooms, RirBank) else {"rt60": 0.0, "drr_db": 0.0}
        if not drawn["applied"]:
            response = np.zeros(DIRECT_AT + 1, dtype=np.float32)
            response[DIRECT_AT] = 1.0
            return {**drawn, "response": response}
        rate = int(sample.get("sample_rate", 16_000))
        return {**drawn, **self._room(rng, rate)}

    def _room(self, rng: np.random.Generator, rate: int) -> dict[str, Any]:
        if isinstance(self.rooms, RirBank):
            if self.rooms.sample_rate != rate:
                raise UsageError(
                    f"reverberate: the responses are at {self.rooms.sample_rate} Hz, the audio at {rate} Hz"
                )
            number = int(rng.integers(len(self.rooms)))
            return {"rir": number, "response": self.rooms.response(number, max_seconds=self.max_seconds)}
        rt60, drr_db, delay_ms = rng.uniform(*self.rt60), rng.uniform(*self.drr_db), rng.uniform(2.0, 20.0)
        response = simulated(rng, rate, rt60_seconds=rt60, drr_db=drr_db, delay_ms=delay_ms)
        return {"rt60": rt60, "drr_db": drr_db, "response": response}

    def emit(self, sample: Sample) -> Iterator[Sample]:
        drawn = self.draw(sample, self.rng(sample))
        if drawn["applied"]:
            response: F32 = drawn["response"]
            sample = {**sample, "wav": torch.from_numpy(reverberated(sample["wav"].numpy(), response))}
        yield self.noted(sample, **numbers_of(drawn))

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        wav_BT = batch["wav"]
        longest = wav_BT.shape[1]
        num_points = fft_size(longest + drawn["response"].shape[1] - 1)
        spectrum = torch.fft.rfft(wav_BT.double(), num_points)
        spectrum *= torch.fft.rfft(drawn["response"].double(), num_points)
        wet_BT = torch.fft.irfft(spectrum, num_points)[:, DIRECT_AT : DIRECT_AT + longest].float()
        kept_BT = is_valid(batch["wav_len"], longest)
        dry_B1 = ~drawn["applied"][:, None]
        return {**batch, "wav": torch.where(dry_B1, wav_BT, wet_BT).masked_fill(~kept_BT, 0.0)}
