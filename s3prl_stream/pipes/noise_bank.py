"""Noise, music and voices to be added to speech: a draw is a place on a timeline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s3prl_stream.pipes.audio_bank import I16, AudioBank


class NoiseBank(AudioBank):
    """A noise corpus, opened once on a machine; for `add_noise(noise=NoiseBank("musan/noise"))`.

    Arguments, attributes and errors are those of `AudioBank`. Blocks of digital silence are left out, so that a stretch
    has a level.
    """

    def draw(self, rng: np.random.Generator, num_samples: int, *, voices: int = 1) -> I16:
        """A stretch of the timeline, int16 [num_samples]; it goes on at the beginning where the timeline ends.

        With several voices, stretches of equal RMS are added up and brought to full scale: babble, of a bank of speech.
        """
        return self.noise(self.places(rng, voices), num_samples)

    def places(self, rng: np.random.Generator, voices: int) -> list[int]:
        """Where on the timeline each of the voices begins (sample)."""
        return [int(rng.integers(len(self.timeline))) for _ in range(voices)]

    def noise(self, places: Sequence[int], num_samples: int) -> I16:
        """What `draw` gives of these places."""
        stretches = [self._stretch(first, num_samples) for first in places]
        if len(stretches) == 1 or not num_samples:
            return stretches[0]
        mixed = np.zeros(num_samples)
        for stretch in stretches:
            mixed += stretch / (np.sqrt(np.mean(np.square(stretch, dtype=np.float64))) or 1.0)
        scaled: I16 = np.rint(mixed * (32767.0 / (np.abs(mixed).max() or 1.0))).astype(np.int16)
        return scaled

    def _stretch(self, first: int, num_samples: int) -> I16:
        if first + num_samples <= len(self.timeline):
            return np.array(self.timeline[first : first + num_samples])
        return np.take(self.timeline, np.arange(first, first + num_samples), mode="wrap")
