"""Speech Commands, versions 1 and 2: single words of one second.

P. Warden, "Speech Commands: a dataset for limited-vocabulary speech recognition", arXiv 1804.03209. Layout:
ROOT/WORD/SPEAKER_nohash_NUMBER.wav, ROOT/_background_noise_/*.wav; version 1 has a test set in another folder, with one
folder for each of twelve classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from s3prl_stream.audio.source import probe
from s3prl_stream.corpora.corpus import SPLIT, Corpus, Option, options_checked
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.sample import Utterance

_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
_UNKNOWN, _SILENCE, _NOISE = "_unknown_", "_silence_", "_background_noise_"
_SPLITS = ("train", "valid", "test")
_MOST_WAVS = 2**27 - 1  # of a class, as the corpus's README has it


@options_checked
def speechcommands(
    root: str | Path,
    split: str | Sequence[str] | None = None,
    *,
    classes: Literal["12", "all"] = "12",
    test_root: str | Path | None = None,
) -> Iterator[Utterance]:
    """Utterances WORD/FILE, sorted, in the splits that a hash of the speaker gives (the corpus's own rule).

    Metadata: label, word, speaker, split. Background noise becomes one utterance a whole second, _silence_, without
    speaker; its splits come from the same hash, of the file's name and the second.

    Args:
        root: the folder with the words.
        split: train, valid, test (one or several); None: all.
        classes: "12": ten words, _unknown_ for all the others, _silence_; "all": every word its own label, no silence.
        test_root: the test set that was published apart. It is the test split then; what the hash puts there, and the
            corpus publishes again in the test set, is left away as SUPERB does.

    Raises:
        UsageError: no such folder or split, or no words in it, or noise that cannot be read.
    """
    root = root_folder(root, "a folder for each word")
    words = [path for path in sorted(root.iterdir()) if path.name != _NOISE and any(path.glob("*.wav"))]
    if not words:
        raise UsageError(f"{root}: no words in here, such as yes/SPEAKER_nohash_0.wav.")
    wanted = chosen(root, _SPLITS, split, "split", default_all=True)
    by_hash = [name for name in wanted if name != "test" or test_root is None]
    return _all(root, words, by_hash, classes, _apart(test_root) if "test" in wanted and test_root else [])


def _all(
    root: Path, words: Sequence[Path], by_hash: Sequence[str], classes: str, apart: Sequence[Utterance]
) -> Iterator[Utterance]:
    for folder in words:
        for audio in sorted(folder.glob("*.wav")):
            split = split_of(audio.name)
            if split in by_hash:
                yield _word(f"{folder.name}/{audio.stem}", audio, split, classes)
    if classes == "12":
        yield from (one for one in _silence(root / _NOISE) if one.metadata["split"] in by_hash)
    yield from apart


def split_of(name: str) -> str:
    """The split of SPEAKER_nohash_NUMBER.wav: a speaker is in one split only."""
    speaker = re.sub(r"_nohash_.*$", "", name)
    digest = int(hashlib.sha1(speaker.encode(), usedforsecurity=False).hexdigest(), 16)
    percentage = digest % (_MOST_WAVS + 1) * (100.0 / _MOST_WAVS)
    return "valid" if percentage < 10 else "test" if percentage < 20 else "train"


def _word(key: str, audio: Path, split: str, classes: str) -> Utterance:
    word = audio.parent.name
    label = word if classes == "all" or word in _WORDS else _UNKNOWN
    return Utterance(key, audio, label=label, word=word, speaker=audio.stem.partition("_nohash_")[0], split=split)


def _silence(folder: Path) -> Iterator[Utterance]:
    for audio in sorted(folder.glob("*.wav")):
        try:
            whole_seconds = int(probe(str(audio)).seconds)
        except SampleError as error:
            raise UsageError(f"{audio}: {error}. Fetch the corpus again.") from None
        for second in range(whole_seconds):
            name = f"{audio.stem}-{second:04d}"
            yield Utterance(f"{_NOISE}/{name}", audio, second, second + 1, label=_SILENCE, split=split_of(name))


def _apart(test_root: str | Path) -> list[Utterance]:
    root = root_folder(test_root, "one folder for each of the twelve classes of the test set")
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
    missing = [name for name in (*_WORDS, _UNKNOWN, _SILENCE) if name not in folders]
    if missing:
        raise UsageError(f"{root}: no folder {missing[0]}; the test set has one for each of its twelve classes.")
    return [
        Utterance(f"test/{name}/{audio.stem}", audio, label=name, split="test", **_speaker(audio.stem, name))
        for name, folder in folders.items()
        for audio in sorted(folder.glob("*.wav"))
    ]


def _speaker(stem: str, label: str) -> dict[str, Any]:
    word = {} if label in (_UNKNOWN, _SILENCE) else {"word": label}
    return word if label == _SILENCE else {"speaker": stem.partition("_nohash_")[0], **word}


SPEECHCOMMANDS = Corpus(
    speechcommands,
    "Speech Commands, versions 1 and 2",
    "folder with a folder for each word",
    (
        SPLIT,
        Option("classes", "12 (default: ten words, unknown, silence) or all words", choices=("12", "all")),
        Option("test_root", "the test set that was published apart", metavar="FOLDER"),
    ),
)
