"""Audio SNIPS: orders to a voice assistant, spoken by synthetic voices, word by word with slots.

C.-I Lai et al., "Semi-supervised spoken language understanding via self-supervised speech and language model
pretraining", ICASSP 2021. Layout: ROOT/{train,valid,test}/SPEAKER-snips-SPLIT-NUMBER.wav, ROOT/all.iob.snips.txt with
lines "NAME BOS words EOS<TAB>O tags INTENT". The speakers of the splits are those of SUPERB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.corpora.audio_files import audio_by_stem
from s3prl_stream.corpora.corpus import SPLIT, Corpus, Option, options_checked
from s3prl_stream.corpora.lists import read_lines, said_twice
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance

_SPEAKERS = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "valid": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
_MARKS = re.compile(r"[^\w']+")


@options_checked
def audiosnips(
    root: str | Path, split: str | Sequence[str] | None = None, *, all_speakers: bool = False
) -> Iterator[Utterance]:
    """Utterances of one or several splits, sorted by name.

    Metadata: text (upper case, without punctuation), iob (a tag for each word, spaces between), intent, speaker, split.

    Args:
        root: the folder with the splits and all.iob.snips.txt.
        split: train, valid, test (one or several); None: all there are.
        all_speakers: all voices of a split's folder, not only those that SUPERB takes for it.

    Raises:
        UsageError: no such folder, split or table, audio without a line in it or with two, or a line with other numbers
            of words and tags.
    """
    root = root_folder(root, "train, valid, test and all.iob.snips.txt")
    found = [name for name in _SPEAKERS if (root / name).is_dir()]
    wanted = chosen(root, found, split, "split", default_all=True, such_as="train")
    return _utterances(root, wanted, all_speakers)


def _utterances(root: Path, splits: Sequence[str], all_speakers: bool) -> Iterator[Utterance]:
    table = root / "all.iob.snips.txt"
    lines = _lines(table)
    for split in splits:
        for name, audio in sorted(audio_by_stem(root / split, str(root / split)).items()):
            speaker = name.partition("-")[0]
            if not all_speakers and speaker not in _SPEAKERS[split]:
                continue
            if name not in lines:
                raise UsageError(f"{table} has no line for {audio}. Mend it, or move the file away.")
            where, line = lines[name]
            yield Utterance(name, audio, **_labels(line, where), speaker=speaker, split=split)


def _lines(table: Path) -> Mapping[str, tuple[str, str]]:
    """Name -> (file and line, the rest of the line)."""
    lines: dict[str, tuple[str, str]] = {}
    for where, (name, rest) in read_lines(table, 2, expected="NAME BOS words EOS<TAB>O tags INTENT", at_most=2):
        if lines.setdefault(name, (where, rest))[1] != rest:
            raise said_twice(name, where)
    return lines


def _labels(line: str, where: str) -> dict[str, Any]:
    words, _, tags = line.partition("\t")
    spoken, slots = words.split()[1:-1], tags.split()
    if len(slots) != len(spoken) + 2:
        raise UsageError(f"{where}: {len(spoken)} words between BOS and EOS, {max(len(slots) - 2, 0)} tags for them.")
    pairs = [(_MARKS.sub("", word).upper(), tag) for word, tag in zip(spoken, slots[1:-1], strict=True)]
    heard = [pair for pair in pairs if pair[0]]  # a comma is no word
    return {"text": " ".join(word for word, _ in heard), "iob": " ".join(tag for _, tag in heard), "intent": slots[-1]}


AUDIOSNIPS = Corpus(
    audiosnips,
    "Audio SNIPS: slots and intents",
    "folder with the splits and all.iob.snips.txt",
    (SPLIT, Option("all_speakers", "all voices, not only those of SUPERB's splits", "flag")),
)
