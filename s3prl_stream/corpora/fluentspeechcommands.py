"""Fluent Speech Commands: spoken orders with an action, an object and a location.

L. Lugosch et al., "Speech model pre-training for end-to-end spoken language understanding", Interspeech 2019. Layout:
ROOT/data/{train,valid,test}_data.csv, ROOT/wavs/speakers/SPEAKER/*.wav.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from s3prl_stream.corpora.corpus import SPLIT, Corpus, options_checked
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import needed, read_rows

_SLOTS = ("action", "object", "location")


@options_checked
def fluentspeechcommands(root: str | Path, split: str | Sequence[str] | None = None) -> Iterator[Utterance]:
    """Utterances in the order of the tables; the key is the file's name without suffix.

    Metadata: text, speaker, action, object, location, split.

    Args:
        root: the folder with data/ and wavs/.
        split: train, valid, test (one or several); None: all there are.

    Raises:
        UsageError: no such folder, no tables, a split that is not there, or a table without one of its columns.
    """
    root = root_folder(root, "data/ and wavs/")
    found = [name for name in ("train", "valid", "test") if (root / "data" / f"{name}_data.csv").is_file()]
    return _utterances(root, chosen(root, found, split, "split", default_all=True, such_as="data/train_data.csv"))


def _utterances(root: Path, splits: Sequence[str]) -> Iterator[Utterance]:
    for split in splits:
        for row in read_rows(root / "data" / f"{split}_data.csv"):
            path = needed(row, "path")
            slots = {name: needed(row, name) for name in _SLOTS}
            speaker, text = needed(row, "speakerId"), needed(row, "transcription")
            yield Utterance(Path(path).stem, root / path, None, None, speaker=speaker, text=text, **slots, split=split)


FLUENTSPEECHCOMMANDS = Corpus(
    fluentspeechcommands, "Fluent Speech Commands: intents of three slots", "folder with data/ and wavs/", (SPLIT,)
)
