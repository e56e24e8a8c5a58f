"""LibriSpeech and corpora in its layout: ROOT/SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac.

V. Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.corpora.corpus import SPLIT, Corpus, options_checked
from s3prl_stream.corpora.lists import by_name, texts_by_name
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance


@options_checked
def librispeech(root: str | Path, split: str | Sequence[str] | None = None) -> Iterator[Utterance]:
    """Utterances of one or several splits, in the order of their names.

    Metadata: speaker, chapter, split (all str); text where the chapter has a transcript; gender ("F" or "M") where
    ROOT/SPEAKERS.TXT knows the speaker.

    Args:
        root: the folder that holds the splits.
        split: name or names of splits; None takes the only one there is.

    Raises:
        UsageError: no such folder or split, a transcript without a line for one of its utterances, or two lines that
            say different things of one utterance or speaker.
    """
    root = root_folder(root, "the splits of LibriSpeech")
    found = [folder.name for folder in sorted(root.iterdir()) if any(folder.glob("*/*/*.flac"))]
    wanted = chosen(root, found, split, "split", such_as="train-clean-100/SPEAKER/CHAPTER/*.flac")
    genders = genders_of(root / "SPEAKERS.TXT")
    return (one for name in wanted for one in read_chapters(root / name, genders, {"split": name}))


def read_chapters(folder: Path, genders: Mapping[str, str], about: Mapping[str, Any]) -> Iterator[Utterance]:
    """Utterances of FOLDER/SPEAKER/CHAPTER/*.flac; each transcript is read once. `about` is in all metadata.

    Raises:
        UsageError: a transcript has no line for an utterance, or two different ones.
    """
    for chapter in sorted(folder.glob("*/*/")):
        speaker = chapter.parent.name
        metadata: dict[str, Any] = {"speaker": speaker, "chapter": chapter.name, **about}
        if speaker in genders:
            metadata["gender"] = genders[speaker]
        texts_file = chapter / f"{speaker}-{chapter.name}.trans.txt"
        texts = texts_by_name(texts_file, "KEY WORDS ...")
        for audio in sorted(chapter.glob("*.flac")):
            if texts is None:
                yield Utterance(audio.stem, audio, **metadata)
            elif audio.stem in texts:
                yield Utterance(audio.stem, audio, text=texts[audio.stem], **metadata)
            else:
                raise UsageError(f"{texts_file} has no line for {audio.stem}. Mend it, or remove it.")


def genders_of(file: Path) -> dict[str, str]:
    """Lines of "ID | SEX | SUBSET | MINUTES | NAME"; ; begins a comment. Empty if there is no such file.

    Raises:
        UsageError: two lines give a speaker different ones.
    """
    if not file.is_file():
        return {}
    lines = file.read_text("utf-8", errors="replace").splitlines()  # names are not ASCII, and nobody needs them here
    rows = ((number, line.split("|")) for number, line in enumerate(lines, start=1) if not line.startswith(";"))
    return by_name((f"{file}, line {number}", row[0].strip(), row[1].strip()) for number, row in rows if len(row) > 1)


LIBRISPEECH = Corpus(librispeech, "LibriSpeech, or a corpus in its layout", "folder that holds the splits", (SPLIT,))
