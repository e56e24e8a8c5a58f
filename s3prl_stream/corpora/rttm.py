"""A folder of recordings and RTTM files that say who speaks when."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from s3prl_stream.corpora.audio_files import audio_below
from s3prl_stream.corpora.corpus import Corpus, Option, WithFiles, options_checked
from s3prl_stream.corpora.splits import root_folder
from s3prl_stream.corpora.turns import Segments, about_turns, read_rttm
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance


class _Turns(NamedTuple):
    segments: Segments
    split: str | None


@options_checked
def rttm(root: str | Path, *, rttm: str | Path | Sequence[str | Path] | None = None) -> WithFiles:
    """Every audio file below a folder, with its speakers' turns.

    Metadata: segments (empty where nobody speaks), num_speakers, recording (its name in the RTTM); split where several
    RTTM files describe several recordings each: the last part of their names ("debug.train.rttm": "train").

    A recording is found by its file's name without suffix; where that fails, by the same without accents. One that
    has no file becomes an utterance that packing reports as missing. The RTTM and UEM lines go with
    the set as reference.rttm and reference.uem.

    Args:
        root: the folder.
        rttm: the RTTM file or files; None: all below the folder.

    Raises:
        UsageError: no such folder, no audio or RTTM in it, a line that is none of RTTM, or a recording in two files.
    """
    root = root_folder(root, "recordings and RTTM files")
    paths = [PurePosixPath(path) for path in audio_below(root)]
    given = sorted(root.rglob("*.rttm")) if rttm is None else [rttm] if isinstance(rttm, str | Path) else rttm
    files = [Path(file) for file in given]
    if not paths or not files:
        raise UsageError(f"{root}: no {'RTTM files' if paths else 'audio'} found in this folder.")
    turns = _all_turns(files)
    references = {"rttm": files, "uem": sorted(root.rglob("*.uem"))}
    return WithFiles(
        _utterances(root, paths, turns),
        {f"reference.{kind}": b"".join(map(_whole_lines, found)) for kind, found in references.items() if found},
    )


def _all_turns(files: Sequence[Path]) -> dict[str, _Turns]:
    turns: dict[str, _Turns] = {}
    found = {file: read_rttm(file) for file in files}
    splits = len(files) > 1 and all(len(recordings) > 1 for recordings in found.values())
    for file, recordings in found.items():
        for recording, segments in recordings.items():
            if recording in turns:
                raise UsageError(
                    f"{file}: recording {recording!r} stands in another RTTM file too. Give one with rttm."
                )
            turns[recording] = _Turns(segments, file.stem.rpartition(".")[2] if splits else None)
    return turns


def _utterances(root: Path, paths: Sequence[PurePosixPath], turns: Mapping[str, _Turns]) -> Iterator[Utterance]:
    plain = _by_plain_name(paths)
    taken = set()
    for path in paths:
        recording = next((name for name in (path.stem, plain.get(path)) if name in turns), None)
        if recording is not None:
            if recording in taken:
                raise UsageError(f"{root}: recording {recording!r} of the RTTM fits several files, one is {path}.")
            taken.add(recording)
        yield _utterance(path.with_suffix("").as_posix(), root / path, recording or path.stem, turns)
    for recording in turns:
        if recording not in taken:
            yield _utterance(recording, root / f"{recording}.wav", recording, turns)


def _utterance(key: str, audio: Path, recording: str, turns: Mapping[str, _Turns]) -> Utterance:
    segments, split = turns.get(recording, _Turns([], None))
    about = {"recording": recording, **about_turns(segments)}
    return Utterance(key, audio, **about) if split is None else Utterance(key, audio, **about, split=split)


def _by_plain_name(paths: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    """File -> its name without suffix and accents, where no other file has that name."""
    plain = {path: _without_accents(path.stem) for path in paths}
    names = Counter(plain.values())
    return {path: name for path, name in plain.items() if names[name] == 1}


def _without_accents(name: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))


def _whole_lines(file: Path) -> bytes:
    content = file.read_bytes()
    return content if content.endswith(b"\n") else content + b"\n"


RTTM = Corpus(
    rttm,
    "recordings and RTTM files: who speaks when",
    "folder with both",
    (Option("rttm", "RTTM files (default: all below the folder)", "names", metavar="FILE"),),
)
