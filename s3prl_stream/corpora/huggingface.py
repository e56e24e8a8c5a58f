"""Data sets of Hugging Face, from a folder: saved by `save_to_disk`, as Parquet, or an audiofolder.

Nothing is downloaded. The first two need `pip install "s3prl-stream[huggingface]"`. An audiofolder is read without it:
the library wants a decoder of audio even where nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.corpora.audio_files import audio_below
from s3prl_stream.corpora.corpus import SPLIT, Corpus, Option, options_checked
from s3prl_stream.corpora.folder import folder
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.corpora.unpacked import unpack
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import check_metadata_names, text_named

_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
_TABLES = ("metadata.csv", "metadata.jsonl")


@options_checked
def huggingface(
    root: str | Path,
    split: str | Sequence[str] | None = None,
    *,
    key: str | None = None,
    unpack_into: str | Path | None = None,
) -> Iterator[Utterance]:
    """Rows of one or several splits, in their order; of an audiofolder by path, which is the key.

    Metadata: the other columns under their own names; class labels by name, a transcription as text; split.

    Args:
        root: the folder.
        split: names; None: all there are.
        key: column that holds the key; None: "id" if there is such a column, else SPLIT-NUMBER.
        unpack_into: folder for audio whose bytes are inside the data set (as `save_to_disk` leaves it).

    Raises:
        UsageError: the library is not installed, the folder is no data set, has no column of audio or several, bytes
            inside without `unpack_into`, or a column with a reserved name.
    """
    root = root_folder(root, "a saved data set, an audiofolder or Parquet files")
    if not any(root.rglob("*.parquet")) and next(audio_below(root), None) is not None:
        return _audiofolder(root, split)
    parts = _loaded(root)
    wanted = chosen(root, list(parts), split, "split", default_all=True)
    into = None if unpack_into is None else Path(unpack_into)
    for name in wanted:
        _check(parts[name], key, f"{root}, split {name}")
    return (one for name in wanted for one in _utterances(parts[name], name, key, root, into))


def _audiofolder(root: Path, split: str | Sequence[str] | None) -> Iterator[Utterance]:
    """[SPLIT/]metadata.csv or .jsonl with a column file_name; without one, folders by class."""
    folders = {path.name: path for path in sorted(root.iterdir()) if path.name in _SPLITS and path.is_dir()}
    wanted = chosen(root, list(folders), split, "split", default_all=True) if folders else [""]
    found = []
    for name in wanted:
        part = folders.get(name, root)
        table = next((part / table for table in _TABLES if (part / table).is_file()), None)
        found.append((name, folder(part, table=table) if table else folder(part, label_from="folder")))
    return (_of_split(one, name) for name, some in found for one in some)


def _of_split(one: Utterance, split: str) -> Utterance:
    """With the name of the split, in the key too; a column of that name says it itself."""
    return Utterance(f"{split}/{one.key}", one.audio, **{"split": split, **one.metadata}) if split else one


def _loaded(root: Path) -> dict[str, Any]:
    """Split -> data set whose audio is not decoded."""
    try:
        import datasets
    except ImportError:
        raise UsageError('datasets is not installed: pip install "s3prl-stream[huggingface]".') from None
    saved = any((root / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
    try:
        found = datasets.load_from_disk(str(root)) if saved else datasets.load_dataset(str(root))
    except Exception as error:  # a dozen kinds, and none of them ours
        raise UsageError(f"{root}: not a data set of Hugging Face: {' '.join(str(error).split())[:200]}") from None
    parts = dict(found) if isinstance(found, Mapping) else {str(found.split or "all"): found}
    for name, part in parts.items():
        for column, feature in part.features.items():
            if isinstance(feature, datasets.Audio):
                part = part.cast_column(column, datasets.Audio(decode=False))
        parts[name] = part
    return parts


def _audio_columns(part: Any) -> list[str]:
    return [name for name, feature in part.features.items() if type(feature).__name__ == "Audio"]


def _check(part: Any, key: str | None, where: str) -> None:
    columns = _audio_columns(part)
    if len(columns) != 1:
        raise UsageError(f"{where}: {len(columns)} columns of audio among {', '.join(part.features)}; expected one.")
    if key is not None and key not in part.features:
        raise UsageError(f"{where}: no column {key!r} in the data set. It has: {', '.join(part.features)}.")
    check_metadata_names([name for name in part.features if name != columns[0]], where)


def _utterances(part: Any, split: str, key: str | None, root: Path, into: Path | None) -> Iterator[Utterance]:
    (audio_column,) = _audio_columns(part)
    labels = {name: feature.names for name, feature in part.features.items() if type(feature).__name__ == "ClassLabel"}
    key_column = key or ("id" if "id" in part.features else None)
    for number, row in enumerate(part):
        values = {name: value for name, value in row.items() if value is not None and name != audio_column}
        name = f"{split}-{number:08d}" if key_column is None else str(values.pop(key_column, ""))
        named = {column: names[values[column]] for column, names in labels.items() if values.get(column, -1) >= 0}
        about = text_named({"split": split, **{n: v for n, v in values.items() if n not in labels}, **named})
        path = _path(row[audio_column] or {}, f"{root}, split {split}, row {number}", f"{split}/{name}", into)
        yield Utterance(name, path, None, None, **about)


def _path(audio: Mapping[str, Any], where: str, name: str, into: Path | None) -> Path:
    path, content = Path(audio.get("path") or ""), audio.get("bytes")
    if content is None:
        return path
    if into is None:
        raise UsageError(f"{where}: the audio is inside the data set. Give a folder for it with unpack_into.")
    return unpack(into, name, path.suffix or ".wav", content)


HUGGINGFACE = Corpus(
    huggingface,
    "a data set of Hugging Face, from a folder",
    "a saved data set, an audiofolder or Parquet files",
    (
        SPLIT,
        Option("key", "column that holds the key (default: id, else numbers)", metavar="COLUMN"),
        Option("unpack_into", "folder for audio whose bytes are inside the data set", metavar="FOLDER"),
    ),
)
