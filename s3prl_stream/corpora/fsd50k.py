"""FSD50K: 51 000 clips with several labels each, of the 200 classes of its vocabulary.

E. Fonseca et al., "FSD50K: an open dataset of human-labeled sound events", TASLP 2022. Layout:
ROOT/FSD50K.{dev,eval}_audio/NUMBER.wav, ROOT/FSD50K.ground_truth/{dev,eval}.csv.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from s3prl_stream.corpora.audio_files import audio_by_stem
from s3prl_stream.corpora.corpus import SPLIT, Corpus, options_checked
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import needed, read_rows

_TABLE_OF_SPLIT = {"train": "dev", "valid": "dev", "test": "eval"}
_SPLIT_OF_VALUE = {"train": "train", "val": "valid"}


@options_checked
def fsd50k(root: str | Path, split: str | Sequence[str] | None = None) -> Iterator[Utterance]:
    """Clips of one or several splits, in the order of the tables.

    Metadata: labels (a list), num_labels, split.

    Args:
        root: the folder with FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth.
        split: train, valid, test; None: all there are.

    Raises:
        UsageError: no such folder, table, column or split, or audio that the table does not know.
    """
    root = root_folder(root, "FSD50K.ground_truth and FSD50K.dev_audio")
    tables = {name: root / "FSD50K.ground_truth" / f"{name}.csv" for name in ("dev", "eval")}
    found = [name for name, table in _TABLE_OF_SPLIT.items() if tables[table].is_file()]
    wanted = chosen(root, found, split, "split", default_all=True, such_as="FSD50K.ground_truth/dev.csv")
    needed_tables = {name: tables[name] for name in ("dev", "eval") if name in {_TABLE_OF_SPLIT[w] for w in wanted}}
    return (one for name, table in needed_tables.items() for one in _clips(root, name, table, wanted))


def _clips(root: Path, part: str, table: Path, wanted: Sequence[str]) -> Iterator[Utterance]:
    folder = root_folder(root / f"FSD50K.{part}_audio", f"the audio of {table.name}")
    unknown = audio_by_stem(folder, str(folder))
    for row in read_rows(table):
        name, labels = needed(row, "fname"), needed(row, "labels").split(",")
        split = "test" if part == "eval" else _SPLIT_OF_VALUE.get(needed(row, "split"))
        if split is None:
            raise UsageError(f"{row.where}: split {row.values['split']!r} is neither train nor val.")
        audio = unknown.pop(name, folder / f"{name}.wav")
        if split in wanted:
            yield Utterance(name, audio, None, None, labels=labels, num_labels=len(labels), split=split)
    if unknown:
        raise UsageError(f"{table} has no row for {len(unknown)} files of {folder}, such as {min(unknown)}.")


FSD50K = Corpus(fsd50k, "FSD50K: sound events", "folder with FSD50K.ground_truth and the audio", (SPLIT,))
