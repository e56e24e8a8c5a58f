"""The quality gate: what is looked at in every clip while its samples are in hand, and what counts as a finding.

A finding is a word in the index column `findings`. Nothing is left out for it unless the caller asks for that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from s3prl_stream.audio.measures import Measures
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import TEXT_KEYS

FINDINGS: dict[str, str] = {
    "clipped": "more samples at full scale than a share of",
    "silent": "more frames of 20 ms below -60 dB than a share of",
    "dc_offset": "the mean of the samples is further from 0, of full scale, than",
    "upsampled": "the source has a lower rate than the set",
    "multichannel": "the source has several channels",
    "glued": "the source is several FLACs, Oggs, WAVs or MP3s in one file, of which the first is read",
    "duplicate": "another clip has the same samples",
    "empty_text": "there is a text, and nothing in it",
    "long_text": "more characters a second than",
    "unsafe_key": "the key had characters that no shard can hold, other than slashes, or was too long",
}
"""Finding -> what it means."""

THRESHOLDS: dict[str, float] = {"clipped": 0.001, "silent": 0.9, "dc_offset": 0.02, "long_text": 40.0}
"""Of the findings that have one; a value above it is a finding."""


def checked_thresholds(given: Mapping[str, float]) -> dict[str, float]:
    """`THRESHOLDS`, with those that are given.

    Raises:
        UsageError: a finding without a threshold, or a value that is no number from 0.
    """
    for name, value in given.items():
        if name not in THRESHOLDS:
            raise UsageError(f"thresholds: {name!r} has none; {', '.join(THRESHOLDS)} have one.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UsageError(f"thresholds: {name} is {value!r}, expected a number from 0.")
    return {**THRESHOLDS, **{name: float(value) for name, value in given.items()}}


def checked_refusals(refuse: Iterable[str]) -> tuple[str, ...]:
    """The findings for which a clip is left out, each once, sorted.

    Raises:
        UsageError: no such finding, or one that is not known while packing.
    """
    names = sorted({refuse} if isinstance(refuse, str) else set(refuse))
    for name in names:
        if name == "duplicate":
            raise UsageError(
                "refuse: duplicates are known only when all is packed. Leave them out of a stream or a subset with "
                'where="duplicate_of is None".'
            )
        if name not in FINDINGS:
            raise UsageError(f"refuse: no finding is called {name!r}; there are {', '.join(FINDINGS)}.")
    return tuple(names)


def findings_of(
    measures: Measures | None,
    *,
    seconds: float,
    sample_rate: int,
    source_sample_rate: int,
    source_channels: int,
    is_glued: bool,
    text: str | None,
    key_is_unsafe: bool,
    thresholds: Mapping[str, float],
) -> list[str]:
    """What there is to say of one clip, in the order of `FINDINGS`; duplicates come later.

    Args:
        measures: None where the sound was not decoded.
        seconds: of the clip.
        sample_rate: of the set (Hz).
        source_sample_rate, source_channels: of its file.
        is_glued: others follow in the file (`audio.open_source.is_glued`); False where the sound was not decoded.
        text: None where it has none.
        key_is_unsafe: it was escaped or shortened.
        thresholds: from `checked_thresholds`.
    """
    found = {
        "clipped": measures is not None and measures.clipped_share > thresholds["clipped"],
        "silent": measures is not None and measures.silent_share > thresholds["silent"],
        "dc_offset": measures is not None and abs(measures.dc_offset) > thresholds["dc_offset"],
        "upsampled": source_sample_rate < sample_rate,
        "multichannel": source_channels > 1,
        "glued": is_glued,
        "empty_text": text is not None and not text.strip(),
        "long_text": text is not None and len(text) / seconds > thresholds["long_text"],
        "unsafe_key": key_is_unsafe,
    }
    return [name for name in FINDINGS if found.get(name)]


def text_of(metadata: Mapping[str, Any]) -> str | None:
    """The text of an utterance as the stages find it; None: it has none."""
    return next((value for name in TEXT_KEYS if isinstance(value := metadata.get(name), str)), None)


def with_duplicates(findings: str) -> str:
    """The column's value of a clip that has turned out to be a duplicate."""
    found = {*findings.split(), "duplicate"}
    return " ".join(name for name in FINDINGS if name in found)


def report_json(samples: int, thresholds: Mapping[str, float], found: Mapping[str, dict[str, Any]]) -> bytes:
    """`report.json`: every finding with its meaning, threshold, how often it was found, and the first keys."""
    report = {
        "samples": samples,
        "findings": {
            name: {
                "meaning": meaning,
                **({"threshold": thresholds[name]} if name in thresholds else {}),
                **found.get(name, {"samples": 0, "seconds": 0.0, "first_keys": []}),
            }
            for name, meaning in FINDINGS.items()
        },
    }
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode()
