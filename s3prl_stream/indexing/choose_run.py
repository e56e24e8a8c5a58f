"""How many neighbours of a tar made elsewhere may be read together without harm to the batches.

A run is one cheap read, and its clips meet in a batch. That is harmless where neighbours are a random draw of the set
(as our packer leaves them), and harmful where they are one speaker after the other, as corpora list them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LONGEST_RUN = 4
SIMILAR_RATIO = 1.25
"""Durations within this ratio fit one batch well; the plan cuts a run at a larger jump anyway."""

_LEADING = re.compile(r"[^\W_]+")
_MOST_EXCESS = 0.02
_MOST_SPEAKERS = 1_000_000


class Neighbours:
    """Statistics over the neighbours of many tars."""

    def __init__(self) -> None:
        self._pairs = 0
        self._similar = 0
        self._same_speaker = 0
        self._speakers: dict[str, int] = {}

    def add(self, seconds: npt.NDArray[np.float64], speakers: Sequence[str]) -> None:
        """Take note of one tar: durations [N] (s) and speakers [N] in its order."""
        if len(seconds) > 1:
            ratio = np.abs(np.diff(np.log(np.maximum(seconds, 1e-3))))
            self._similar += int(np.count_nonzero(ratio <= np.log(SIMILAR_RATIO)))
            self._pairs += len(seconds) - 1
        for position, speaker in enumerate(speakers):
            if speaker in self._speakers or len(self._speakers) < _MOST_SPEAKERS:
                self._speakers[speaker] = self._speakers.get(speaker, 0) + 1
            self._same_speaker += position > 0 and speaker == speakers[position - 1]

    def choose_run(self) -> int:
        """1 where neighbours repeat speakers more than chance (by 2 % of the pairs) or few are of similar duration.

        Dissimilar neighbours never stay together, so a longer run would cost the plan its shuffling for nothing.
        """
        if not self._pairs:
            return 1
        counts = np.array(list(self._speakers.values()), dtype=np.float64)
        by_chance = float(np.square(counts / max(counts.sum(), 1.0)).sum())
        is_random = self._same_speaker / self._pairs - by_chance <= _MOST_EXCESS
        return LONGEST_RUN if is_random and self._similar / self._pairs >= 0.25 else 1


def speaker_of(key: str, speaker: object) -> str:
    """The speaker where it is known, else the first word of the key: corpora put the speaker or recording there."""
    if speaker is not None:
        return str(speaker)
    words = _LEADING.findall(key.rpartition("/")[2])
    return words[0] if len(words) > 1 else ""
