"""Libri-light: 60 000 hours of read books without text, and 10 min, 1 h and 10 h with it.

J. Kahn et al., "Libri-light: a benchmark for ASR with limited or no supervision", ICASSP 2020. Layouts:
ROOT/{small,medium,large,duplicate}/SPEAKER/BOOK/*.flac with a .json beside each, and
ROOT/{1h/{0..5},9h}/{clean,other}/SPEAKER/CHAPTER/*.flac as in LibriSpeech.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.librispeech import genders_of, read_chapters
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.json_files import json_object
from s3prl_stream.sample import Utterance

_UNLABELLED = ("small", "medium", "large", "duplicate")
_FOLDS = tuple(f"1h/{fold}" for fold in range(6))
_LABELLED = {"1h": _FOLDS, "10h": (*_FOLDS, "9h"), **{f"10min-{fold}": (f"1h/{fold}",) for fold in range(6)}}
"""Split -> its folders, each with clean/ and other/ in it."""


@options_checked
def librilight(
    root: str | Path, split: str | Sequence[str] | None = None, *, voice_seconds: int | None = None
) -> Iterator[Utterance]:
    """Utterances of one or several splits: small, medium, large, duplicate, 10min-0 to 10min-5, 1h or 10h.

    Metadata without supervision: speaker, book, split, title, genre, snr (dB); `segments` where somebody speaks, by the
    corpus's own voice activity. With supervision: as in LibriSpeech, and `part` ("clean" or "other").

    Args:
        root: the folder that holds the splits, or librispeech_finetuning.
        split: name or names; None takes the only one there is. 1h holds the six of 10 minutes, 10h holds 1h.
        voice_seconds: cut recordings without supervision (minutes long) where nobody speaks, into utterances of at
            most so many seconds; one that is spoken without a pause stays whole.

    Raises:
        UsageError: no such folder or split, a recording without a readable .json, or voice_seconds below 1.
    """
    root = root_folder(root, "the splits of Libri-light")
    if voice_seconds is not None and voice_seconds < 1:
        raise UsageError(f"voice_seconds is {voice_seconds}, expected 1 or more.")
    found = [name for name in _UNLABELLED if (root / name).is_dir()]
    found += [name for name, folders in _LABELLED.items() if all((root / folder).is_dir() for folder in folders)]
    wanted = chosen(root, found, split, "split", such_as="small/ or 1h/0/clean/")
    genders = genders_of(root / "SPEAKERS.TXT")
    return (
        one
        for name in wanted
        for one in (
            _with_text(root, name, genders) if name in _LABELLED else _without_text(root / name, name, voice_seconds)
        )
    )


def _with_text(root: Path, split: str, genders: Mapping[str, str]) -> Iterator[Utterance]:
    for folder in _LABELLED[split]:
        for part in ("clean", "other"):
            yield from read_chapters(root / folder / part, genders, {"split": split, "part": part})


def _without_text(folder: Path, split: str, voice_seconds: int | None) -> Iterator[Utterance]:
    for audio in sorted(folder.glob("*/*/*.flac")):
        key = audio.relative_to(folder).with_suffix("").as_posix()
        metadata, voice = _described(audio.with_suffix(".json"))
        metadata |= {"speaker": audio.parts[-3], "book": audio.parts[-2], "split": split}
        if voice_seconds is None:
            segments = [{"start": start, "end": end, "label": "speech"} for start, end in voice]
            yield Utterance(key, audio, segments=segments, **metadata)
            continue
        for number, (start, end) in enumerate(grouped(voice, voice_seconds)):
            yield Utterance(f"{key}-{number:04d}", audio, start, end, **metadata)


def _described(file: Path) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """Metadata, and the stretches (s) in which somebody speaks."""
    try:
        content = json_object(file.read_bytes())
        book = content.get("book_meta") or {}
        voice = [(float(start), float(end)) for start, end in content["voice_activity"]]
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file. Each recording of Libri-light has a .json beside it.") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(f"{file}: not a description of Libri-light ({error!r}).") from None
    known = {"title": book.get("title"), "genre": book.get("meta_genre"), "snr": content.get("snr")}
    return {name: value for name, value in known.items() if value is not None}, voice


def grouped(voice: Sequence[tuple[float, float]], longest_seconds: int) -> Iterator[tuple[float, float]]:
    """Neighbouring stretches joined as long as they are together no longer than asked; the pauses stay inside."""
    if not voice:
        return
    first, last = voice[0]
    for start, end in voice[1:]:
        if end - first > longest_seconds:
            yield first, last
            first = start
        last = end
    yield first, last


LIBRILIGHT = Corpus(
    librilight,
    "Libri-light, with and without supervision",
    "folder that holds the splits, or librispeech_finetuning",
    (
        Option("split", "small, medium, large, duplicate, 10min-0 to 10min-5, 1h, 10h", "names", metavar="NAME"),
        Option("voice_seconds", "cut recordings at pauses into utterances no longer than this", "number", metavar="S"),
    ),
)
