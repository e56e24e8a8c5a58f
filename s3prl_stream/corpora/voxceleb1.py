"""VoxCeleb1: 1 251 celebrities, for speaker identification (SID) and verification (SV).

A. Nagrani, J. S. Chung, A. Zisserman, "VoxCeleb: a large-scale speaker identification dataset", Interspeech 2017.
Layout: ROOT/{dev,test}/wav/SPEAKER/VIDEO/NUMBER.wav (or ROOT/wav/...), ROOT/iden_split.txt, and for verification a
trial list. The splits are those of SUPERB (S.-w. Yang et al., Interspeech 2021).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from s3prl_stream.corpora.audio_files import AUDIO_SUFFIXES
from s3prl_stream.corpora.corpus import SPLIT, Corpus, Option, WithFiles, options_checked
from s3prl_stream.corpora.lists import by_name, read_lines
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import read_rows

_TRIAL_LISTS = ("veri_test2.txt", "voxceleb1_test_v2.txt", "veri_test.txt")
_SPLIT_OF_CODE = {"1": "train", "2": "valid", "3": "test"}
_TEST_SPEAKERS = frozenset(f"id{number}" for number in range(10270, 10310))


@options_checked
def voxceleb1(
    root: str | Path,
    task: Literal["sid", "sv"] = "sid",
    *,
    split: str | Sequence[str] | None = None,
    iden_split: str | Path | None = None,
    trials: str | Path | None = None,
) -> WithFiles:
    """Utterances SPEAKER-VIDEO-NUMBER, sorted.

    Metadata: speaker, label (the same), video, split; gender and nationality where ROOT/vox1_meta.csv is.

    Args:
        root: the folder with dev/wav and test/wav, or with wav.
        task: "sid": train, valid and test of iden_split.txt. "sv": the 40 speakers id10270 to id10309 are the test
            split, whose trials go along as trials.txt, a line "1 KEY KEY" (same speaker) or "0 KEY KEY"; of the others,
            those that iden_split.txt has in its valid part are the valid split.
        split: names of splits; None: all.
        iden_split: None: ROOT/iden_split.txt. Verification does without, and then has no valid split.
        trials: the trial list; None: veri_test2.txt (cleaned), voxceleb1_test_v2.txt or veri_test.txt in ROOT.

    Raises:
        UsageError: a folder, list or split that is not there, audio that iden_split.txt does not know, two files of one
            utterance, two lines that say different things of one, or a trial of one that is not there. A line of
            iden_split.txt without audio becomes an utterance that packing reports.
    """
    root = root_folder(root, "dev/wav and test/wav")
    audio = _audio(root)
    if not audio:
        raise UsageError(f"{root}: no audio of VoxCeleb1 in here, such as dev/wav/id10001/VIDEO/00001.wav.")
    codes = _codes(root / "iden_split.txt" if iden_split is None else Path(iden_split), task == "sid")
    strangers = sorted(audio.keys() - codes.keys()) if codes else []
    if strangers:
        raise UsageError(f"{root}: iden_split.txt does not have {len(strangers)} of the files, such as {strangers[0]}.")
    if task == "sid":
        splits = {key: _SPLIT_OF_CODE[code] for key, code in codes.items()}
    else:
        splits = {key: _split_of_verification(key, codes.get(key)) for key in audio.keys() | codes.keys()}
    wanted = chosen(root, sorted(Counter(splits.values())), split, "split", default_all=True)
    utterances = _utterances(root, audio, {key: name for key, name in splits.items() if name in wanted})
    if task == "sid" or "test" not in wanted:
        return WithFiles(utterances, {})
    return WithFiles(utterances, {"trials.txt": _trials(root, trials, audio)})


def _audio(root: Path) -> dict[str, Path]:
    """Key -> path; each folder is read once. One may be a link to another."""
    folders = [root / "dev" / "wav", root / "test" / "wav", root / "wav"]
    paths = (path for folder in folders for path in folder.glob("id*/*/*") if path.suffix in AUDIO_SUFFIXES)
    audio: dict[str, Path] = {}
    for path in paths:
        first = audio.setdefault("-".join((*path.parts[-3:-1], path.stem)), path)
        if first is not path and not first.samefile(path):
            raise UsageError(f"{path} and {first} are one utterance. Remove one of them.")
    return audio


def _key(path: str) -> str:
    """Key of SPEAKER/VIDEO/NUMBER.wav."""
    return path.rpartition(".")[0].replace("/", "-")


def _codes(file: Path, must_be: bool) -> dict[str, str]:
    if not must_be and not file.is_file():
        return {}
    return by_name(_code_lines(file))


def _code_lines(file: Path) -> Iterator[tuple[str, str, str]]:
    for where, (code, path, *_) in read_lines(file, 2, expected="1, 2 or 3 and SPEAKER/VIDEO/NUMBER.wav"):
        if code not in _SPLIT_OF_CODE or path.count("/") != 2:
            raise UsageError(f"{where}: {code} {path} is not 1, 2 or 3 and SPEAKER/VIDEO/NUMBER.wav.")
        yield where, _key(path), code


def _split_of_verification(key: str, code: str | None) -> str:
    if key.partition("-")[0] in _TEST_SPEAKERS:
        return "test"
    return "valid" if code == "2" else "train"


def _utterances(root: Path, audio: Mapping[str, Path], splits: Mapping[str, str]) -> Iterator[Utterance]:
    about = _speakers(root / "vox1_meta.csv")
    for key, split in sorted(splits.items()):
        speaker, rest = key.split("-", 1)
        video, _, number = rest.rpartition("-")
        path = audio.get(key, root / "dev" / "wav" / speaker / video / f"{number}.wav")
        yield Utterance(key, path, speaker=speaker, label=speaker, video=video, split=split, **about.get(speaker, {}))


def _speakers(file: Path) -> dict[str, dict[str, Any]]:
    """Speaker -> gender ("F", "M") and nationality."""
    if not file.is_file():
        return {}
    return by_name(
        (where, row["VoxCeleb1 ID"],
         {"gender": str(row.get("Gender", "")).upper(), "nationality": row.get("Nationality", "")})
        for where, row, _ in read_rows(file)
        if "VoxCeleb1 ID" in row
    )  # fmt: skip


def _trials(root: Path, given: str | Path | None, audio: Mapping[str, Path]) -> bytes:
    names = [root / name for name in _TRIAL_LISTS] if given is None else [Path(given)]
    file = next((name for name in names if name.is_file()), names[0])
    lines = []
    for where, (same, *paths) in read_lines(file, 3, expected="1 or 0 and two of SPEAKER/VIDEO/NUMBER.wav"):
        keys = [_key(path) for path in paths[:2]]
        missing = [path for path, key in zip(paths, keys, strict=False) if key not in audio]
        if same not in ("0", "1") or missing:
            what = f"{missing[0]} is not below {root}" if missing else f"{same!r} is neither 1 nor 0"
            raise UsageError(f"{where}: {what}. Trials are of the test split of VoxCeleb1.")
        lines.append(f"{same} {' '.join(keys)}\n")
    return "".join(lines).encode()


VOXCELEB1 = Corpus(
    voxceleb1,
    "VoxCeleb1, for identification or verification",
    "folder with dev/wav and test/wav",
    (
        Option("task", "identification (default) or verification, with trials", choices=("sid", "sv")),
        SPLIT,
        Option("iden_split", "default: ROOT/iden_split.txt", metavar="FILE"),
        Option("trials", "default: ROOT/veri_test2.txt and its other names", metavar="FILE"),
    ),
)
