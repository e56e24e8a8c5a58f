"""QUESST 2014: spoken queries to be found in spoken documents, six languages, 8 kHz.

X. Anguera et al., "QUESST2014: evaluating query-by-example speech search in a zero-resource setting with real-life
queries", ICASSP 2015. Layout: ROOT/{Audio,dev_queries,eval_queries}/*.wav, ROOT/scoring/language_key_*.lst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from s3prl_stream.corpora.corpus import LANGUAGE, SPLIT, Corpus, WithFiles, options_checked
from s3prl_stream.corpora.lists import read_lines
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance

_LISTS = {"docs": "language_key_utterances.lst", "dev": "language_key_dev.lst", "eval": "language_key_eval.lst"}
_SCORING = (".rttm", ".xml", ".stm", ".txt", ".csv", ".tsv")


@options_checked
def quesst14(
    root: str | Path, split: str | Sequence[str] | None = None, *, language: str | Sequence[str] | None = None
) -> WithFiles:
    """Documents and queries in the order of their lists; the key is the file's name without suffix.

    Metadata: split ("docs", which both sets of queries share, "dev", "eval"), language. What ROOT/scoring holds to
    score with (which query is where) goes along under its path, with - for /.

    Args:
        root: the folder quesst14Database.
        split: names of splits; None: all.
        language: such as "nnenglish", the only one of SUPERB; None: all.

    Raises:
        UsageError: no such folder, list, split or language, a line that is no file and language, or two files to score
            with whose paths differ in / and - alone.
    """
    root = root_folder(root, "Audio, dev_queries, eval_queries and scoring")
    scoring = root / "scoring" if (root / "scoring").is_dir() else root
    wanted = chosen(root, list(_LISTS), split, "split", default_all=True)
    lines = {name: _read(root, scoring / _LISTS[name]) for name in wanted}
    found = sorted({spoken for some in lines.values() for _, spoken in some})
    languages = chosen(root, found, language, "language", default_all=True)
    return WithFiles(_utterances(lines, languages), {} if scoring == root else _files(scoring))


def _files(scoring: Path) -> dict[str, bytes]:
    """What is scored with, by its path with - for /."""
    paths: dict[str, Path] = {}
    for path in sorted(scoring.rglob("*")):
        if path.suffix in _SCORING and path.is_file():
            name = path.relative_to(scoring).as_posix().replace("/", "-")
            first = paths.setdefault(name, path)
            if first != path:
                raise UsageError(f"{first} and {path} would both become the extra file {name!r}: rename one of them.")
    return {name: path.read_bytes() for name, path in paths.items()}


def _read(root: Path, file: Path) -> list[tuple[Path, str]]:
    read = []
    for where, (name, language, *more) in read_lines(file, 2, expected="FOLDER/NAME.wav LANGUAGE"):
        if more:
            raise UsageError(f"{where}: more than FOLDER/NAME.wav LANGUAGE.")
        # the lists name files from the folder above ROOT
        read.append((root / name.partition("/")[2] if name.count("/") > 1 else root / name, language))
    return read


def _utterances(lines: dict[str, list[tuple[Path, str]]], languages: Sequence[str]) -> Iterator[Utterance]:
    for split, read in lines.items():
        for audio, language in read:
            if language in languages:
                yield Utterance(audio.stem, audio, split=split, language=language)


QUESST14 = Corpus(quesst14, "QUESST 2014: queries and documents", "folder quesst14Database", (SPLIT, LANGUAGE))
