"""Kaldi data directories: wav.scp, segments, utt2spk, text, spk2gender, utt2lang, rttm.

D. Povey et al., "The Kaldi speech recognition toolkit", ASRU 2011.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from s3prl_stream.corpora.audio_files import audio_by_stem
from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.lists import read_lines, texts_by_name
from s3prl_stream.corpora.splits import root_folder
from s3prl_stream.corpora.turns import Segments, about_turns, in_time, read_rttm, segment
from s3prl_stream.corpora.unpacked import run_pipe
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import seconds


class _Part(NamedTuple):
    recording: str
    start: float
    end: float | None


@options_checked
def kaldi(
    root: str | Path,
    *,
    recordings: bool = False,
    pipes_into: str | Path | None = None,
    audio_root: str | Path | None = None,
) -> Iterator[Utterance]:
    """Utterances in the order of segments, or of wav.scp where there are none.

    Metadata: speaker (utt2spk), text, gender ("F", "M"), language; segments and num_speakers where there is an rttm,
    cut to the utterance.

    Args:
        root: the data directory. Without wav.scp, the audio files of its folder wav are the recordings.
        recordings: whole recordings; the lines of segments are then who speaks when, as in S3PRL's diarization.
        pipes_into: a folder. Entries of wav.scp that end in | are shell commands: refused, unless a folder is given
            into which their output is written. Only for directories that you trust.
        audio_root: where relative paths of wav.scp start; None: at the data directory.

    Raises:
        UsageError: no such folder, a pipe, a part of an archive, a line that is none, a recording that is not in
            wav.scp; text, utt2spk or utt2lang with an utterance too few, too many or twice.
    """
    root = root_folder(root, "wav.scp, or a folder wav")
    audio = _audio(root, Path(audio_root) if audio_root is not None else root, pipes_into is not None)
    parts = _parts(root / "segments", audio)
    speakers = _table(root / "utt2spk", parts)
    turns = _turns(root, parts, speakers, recordings)
    if recordings:
        return (
            Utterance(name, _path(pipes_into, name, entry, root), None, None, **about_turns(turns.get(name, [])))
            for name, entry in audio.items()
        )
    texts, languages = (_table(root / name, parts) for name in ("text", "utt2lang"))
    genders = texts_by_name(root / "spk2gender", "SPEAKER GENDER") or {}
    columns = {"speaker": speakers, "text": texts, "language": languages}
    return _utterances(root, audio, parts, columns, genders, turns, pipes_into)


def _utterances(
    root: Path,
    audio: Mapping[str, str],
    parts: Mapping[str, _Part],
    columns: Mapping[str, Mapping[str, str]],
    genders: Mapping[str, str],
    turns: Mapping[str, Segments],
    pipes_into: str | Path | None,
) -> Iterator[Utterance]:
    for name, part in parts.items():
        about: dict[str, Any] = {column: table[name] for column, table in columns.items() if name in table}
        gender = genders.get(about.get("speaker", name))
        if gender is not None:
            about["gender"] = gender.upper()
        if part.recording in turns:
            about |= about_turns(_cut(turns[part.recording], part))
        path = _path(pipes_into, part.recording, audio[part.recording], root)
        whole = part.start == 0 and part.end is None
        yield Utterance(name, path, None if whole else part.start, part.end, **about)


def _audio(root: Path, start: Path, pipes_allowed: bool) -> dict[str, str]:
    """Recording -> path, or command that ends in |."""
    scp = root / "wav.scp"
    if not scp.exists() and (root / "wav").is_dir():
        return {name: str(path) for name, path in audio_by_stem(root / "wav", str(root / "wav")).items()}
    audio: dict[str, str] = {}
    for where, (name, entry) in read_lines(scp, 2, expected="RECORDING PATH", at_most=2):
        if name in audio:
            raise UsageError(f"{where}: recording {name!r} stands in wav.scp twice.")
        if entry.endswith("|"):
            if not pipes_allowed:
                raise UsageError(
                    f"{where}: {entry[:80]!r} is a shell command. It is run only if pipes_into names a folder for its "
                    "output, and that only for directories that you trust."
                )
            audio[name] = entry
        elif ":" in entry and entry.rpartition(":")[2].isdecimal():
            raise UsageError(f"{where}: {entry[:80]!r} is a place in an archive. Extract it to files (wav-copy).")
        else:
            audio[name] = str(start / entry)
    if not audio:
        raise UsageError(f"{scp}: no recordings in it.")
    return audio


def _path(pipes_into: str | Path | None, recording: str, entry: str, root: Path) -> str:
    if not entry.endswith("|") or pipes_into is None:
        return entry
    return str(run_pipe(Path(pipes_into), recording, entry[:-1], str(root / "wav.scp")))


def _parts(segments: Path, audio: Collection[str]) -> dict[str, _Part]:
    if not segments.exists():
        return {name: _Part(name, 0.0, None) for name in audio}
    parts: dict[str, _Part] = {}
    for where, (name, recording, start, end, *_) in read_lines(segments, 4, expected="UTTERANCE RECORDING START END"):
        if recording not in audio:
            raise UsageError(f"{where}: recording {recording!r} is not in wav.scp.")
        if name in parts:
            raise UsageError(f"{where}: utterance {name!r} stands in segments twice.")
        parts[name] = _Part(
            recording, seconds(start, where, "START"), None if end == "-1" else seconds(end, where, "END")
        )
    return parts


def _table(path: Path, parts: Collection[str]) -> dict[str, str]:
    """Utterance -> value, for each of them; empty without the file."""
    table = texts_by_name(path, "UTTERANCE VALUE")
    if table is None:
        return {}
    missing = [name for name in parts if name not in table]
    strange = [name for name in table if name not in parts]
    for names, what in ((missing, "has no line for"), (strange, "has lines for unknown utterances,")):
        if names:
            raise UsageError(
                f"{path} {what} {names[0]!r} and {len(names) - 1} more; there are {len(parts)} utterances. Make the "
                "directory consistent, as utils/fix_data_dir.sh does."
            )
    return table


def _turns(
    root: Path, parts: Mapping[str, _Part], speakers: Mapping[str, str], recordings: bool
) -> dict[str, Segments]:
    if (root / "rttm").exists():
        return read_rttm(root / "rttm")
    turns: dict[str, Segments] = {}
    if recordings and (root / "segments").exists():
        for name, part in parts.items():
            if part.end is None:
                raise UsageError(f"{root / 'segments'}: {name!r} has no end; a speaker's turn needs one.")
            turns.setdefault(part.recording, []).append(segment(part.start, part.end, speakers.get(name, name)))
    return {recording: in_time(found) for recording, found in turns.items()}


def _cut(turns: Segments, part: _Part) -> Segments:
    """Turns inside a part, in seconds from its beginning."""
    end = float("inf") if part.end is None else part.end
    inside = [turn for turn in turns if turn["start"] < end and turn["end"] > part.start]
    return [
        segment(max(turn["start"] - part.start, 0.0), min(turn["end"], end) - part.start, turn["label"])
        for turn in inside
    ]


KALDI = Corpus(
    kaldi,
    "a Kaldi data directory",
    "the data directory",
    (
        Option("recordings", "whole recordings, with segments as turns of speakers", "flag"),
        Option(
            "pipes_into", "run the commands of wav.scp, output into this folder (default: refused)", metavar="FOLDER"
        ),
        Option("audio_root", "where relative paths of wav.scp start (default: ROOT)", metavar="FOLDER"),
    ),
)
