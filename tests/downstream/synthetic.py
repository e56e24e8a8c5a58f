"""Clips that a small model can learn by heart in seconds: tones, in a row or at the same time."""

from __future__ import annotations

from typing import Any

import numpy as np

import s3prl_stream as ss

RATE = 16_000
PITCHES = {"a": 400, "b": 1000, "c": 2000, "d": 3500}


def tone(pitch_hz: float, seconds: float) -> np.ndarray:
    """float64 [T]."""
    return np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * RATE)) / RATE)


def clip(wav: np.ndarray, seed: int, **metadata: Any) -> dict[str, Any]:
    """A sample with a little noise."""
    noisy = 3000 * (wav + 0.05 * np.random.default_rng(seed).standard_normal(len(wav)))
    return {"wav": noisy.astype(np.int16), "sample_rate": RATE, **metadata}


def classes(count: int = 12) -> ss.MemoryShards:
    """One tone a clip: `label` is which, `loud` whether there is a second; each fourth is of `part` test."""
    clips = {}
    for number in range(count):
        letter, loud = "abcd"[number % 4], number % 3 == 0
        wav = tone(PITCHES[letter], 0.2 + 0.02 * (number % 5))
        wav = wav + tone(6000, len(wav) / RATE) if loud else wav
        clips[f"clip{number:02d}"] = clip(
            wav, number, label=letter, loud="yes" if loud else None, tags=f"{letter},loud" if loud else letter,
            speaker=letter, part="test" if number % 4 == number // 4 % 4 else "train",
        )  # fmt: skip
    return ss.MemoryShards(clips)


def texts(words: tuple[str, ...] = ("abc", "dab", "cd", "bad")) -> ss.MemoryShards:
    """A tone for each letter, silence between them."""
    clips = {}
    for number, text in enumerate(words):
        parts = [np.zeros(800)]
        for letter in text:
            parts += [tone(PITCHES[letter], 0.1) if letter != " " else tone(6000, 0.1), np.zeros(800)]
        tags = " ".join("drink" if word in ("dab", "cd") else "O" for word in text.split())
        clips[f"clip{number:02d}"] = clip(
            np.concatenate(parts), number, text=text, iob=tags, size="abc" if "a" in text else None, kind=text[0]
        )
    return ss.MemoryShards(clips)


def conversations() -> ss.MemoryShards:
    """Two speakers, each of one pitch, who overlap now and then; `segments` says when."""
    spoken = [
        [(0.0, 0.5, "a"), (0.3, 0.9, "c")],
        [(0.1, 0.4, "c"), (0.6, 1.0, "a")],
        [(0.0, 0.8, "c"), (0.2, 0.4, "a")],
        [(0.2, 0.7, "a")],
    ]
    clips = {}
    for number, turns in enumerate(spoken):
        wav = np.zeros(RATE)
        for start, end, who in turns:
            wav[round(start * RATE) : round(end * RATE)] += tone(PITCHES[who], end - start)
        segments = [{"start": start, "end": end, "label": who} for start, end, who in turns]
        clips[f"clip{number:02d}"] = clip(wav, number, segments=segments)
    return ss.MemoryShards(clips)
