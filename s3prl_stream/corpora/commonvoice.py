"""Common Voice: sentences read by volunteers, in more than a hundred languages.

R. Ardila et al., "Common Voice: a massively-multilingual speech corpus", LREC 2020. Layout: ROOT/LANGUAGE/clips/*.mp3
and ROOT/LANGUAGE/SPLIT.tsv; ROOT may also be the folder of one language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from s3prl_stream.corpora.corpus import LANGUAGE, SPLIT, Corpus, options_checked
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import Row, needed, read_rows, renamed

_SPLITS = ("train", "dev", "test", "validated", "invalidated", "other")
_COLUMNS = {"sentence": "text", "age": "age", "accents": "accent", "accent": "accent", "variant": "variant"}
_COUNTS = ("up_votes", "down_votes")
_GENDERS = {"male": "M", "male_masculine": "M", "female": "F", "female_feminine": "F"}


@options_checked
def commonvoice(
    root: str | Path, split: str | Sequence[str] | None = None, *, language: str | Sequence[str] | None = None
) -> Iterator[Utterance]:
    """Utterances in the order of the tables; the key is the clip's name without suffix.

    Metadata: text, speaker (client_id), language, split, up_votes, down_votes; age, gender ("F", "M", or as the speaker
    put it), accent, variant where given. Most clips of validated are in train, dev and test as well: list one or the
    other.

    Args:
        root: the folder of the languages, or of one.
        split: train, dev, test, validated, invalidated, other (one or several).
        language: codes such as "en"; None: all there are.

    Raises:
        UsageError: no such folder, language or split, or a table without one of its columns.
    """
    root = root_folder(root, "the languages of Common Voice, or clips/ and its tables")
    folders = {path.name: path for path in sorted(root.iterdir()) if (path / "clips").is_dir()}
    if (root / "clips").is_dir():
        folders = {root.resolve().name: root}
    languages = chosen(root, list(folders), language, "language", default_all=True, such_as="en/clips/, or clips/")
    tables = [
        (folders[name], table)
        for name in languages
        for table in chosen(folders[name], _splits_of(folders[name]), split, "split", such_as="train.tsv")
    ]
    return (one for folder, table in tables for one in _utterances(folder, table))


def _splits_of(folder: Path) -> list[str]:
    return [name for name in _SPLITS if (folder / f"{name}.tsv").is_file()]


def _utterances(folder: Path, split: str) -> Iterator[Utterance]:
    for row in read_rows(folder / f"{split}.tsv"):
        name = PurePosixPath(needed(row, "path"))
        clip = name if name.suffix else name.with_suffix(".mp3")  # early releases leave the suffix out
        about = {"language": str(row.values.get("locale", folder.resolve().name)), "split": split, **_about(row)}
        yield Utterance(clip.stem, folder / "clips" / clip, **about)


def _about(row: Row) -> Mapping[str, Any]:
    about = {"speaker": needed(row, "client_id"), **renamed(row, _COLUMNS)}
    if "sentence" not in row.columns:
        needed(row, "sentence")
    if "gender" in row.values:
        about["gender"] = _GENDERS.get(row.values["gender"], row.values["gender"])
    return about | {name: int(row.values[name]) for name in _COUNTS if str(row.values.get(name, "")).isdecimal()}


COMMONVOICE = Corpus(commonvoice, "Common Voice", "folder of the languages, or of one", (SPLIT, LANGUAGE))
