"""Lhotse's audio by a decoder of choice: its libsndfile backend, or dr_flac behind the same interface."""

from __future__ import annotations

from typing import Any

import numpy as np
from lhotse.audio.backend import AudioBackend, LibsndfileBackend, get_current_audio_backend, set_current_audio_backend

from peers.clips import SAMPLE_RATE, decode


class DrFlac(AudioBackend):
    """Whole FLAC files by dr_flac."""

    def read_audio(
        self, path_or_fd: Any, offset: float = 0.0, duration: float | None = None, force_opus_sampling_rate: Any = None
    ) -> tuple[np.ndarray, int]:
        """[1, T] float32 and the sample rate."""
        assert offset == 0.0
        return decode(path_or_fd.read(), "dr_flac")[None], SAMPLE_RATE


def use(decoder: str) -> None:
    """Make it Lhotse's, in this process."""
    kind = DrFlac if decoder == "dr_flac" else LibsndfileBackend
    if not isinstance(get_current_audio_backend(), kind):
        set_current_audio_backend(kind())
