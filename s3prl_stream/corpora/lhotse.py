"""Lhotse manifests: cuts, or recordings and supervisions, as .jsonl or .jsonl.gz; Lhotse itself is not needed.

P. Zelasko et al., "Lhotse: a speech data representation library for the modern deep learning ecosystem", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.lists import said_twice
from s3prl_stream.corpora.splits import as_path
from s3prl_stream.corpora.turns import in_time, segment
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance, with_free_names
from s3prl_stream.tables import TAKEN_NAMES, Row, read_rows

_FIELDS = ("text", "language", "speaker", "gender")


@options_checked
def lhotse(
    root: str | Path, *, only_channel: int | None = None, audio_root: str | Path | None = None
) -> Iterator[Utterance]:
    """One utterance a cut; else one a supervision; else, without supervisions, one a recording.

    Metadata: text, language, speaker, gender and what `custom` holds; of a cut with several supervisions, segments
    (labelled by speaker) in place of text and speaker. The key is the id of the cut, supervision or recording.

    Args:
        root: a manifest of cuts or of recordings, or a folder that holds *cuts*.jsonl(.gz), or *recordings*.jsonl(.gz)
            and *supervisions*.jsonl(.gz).
        only_channel: what is of this channel alone; None: everything, which must be of the first channel of its files.
            Pack with --channel.
        audio_root: where relative paths start; None: at the manifest's folder.

    Raises:
        UsageError: no manifest there, a row that is none, audio that is no file, mixed, padded or transformed cuts,
            other channels than the first, a supervision of a recording that is not there, two supervisions of one id,
            or two different recordings.
    """
    root = as_path(root, "ROOT is a manifest, or the folder that holds some")
    kinds = ("cuts", "recordings", "supervisions")
    files = {kind: _found(root, kind) for kind in kinds} if root.is_dir() else {}
    if not root.is_dir():
        files = {_kind(root): [root]}
    start = Path(audio_root) if audio_root is not None else root if root.is_dir() else root.parent
    if files.get("cuts"):
        found = _cuts(files["cuts"], start)
    elif files.get("recordings"):
        found = _supervised(files["recordings"], files.get("supervisions", []), start)
    else:
        raise UsageError(f"{root}: no manifest of cuts or recordings of Lhotse in here (*.jsonl or *.jsonl.gz).")
    return _of_one_channel(found, only_channel, root)


_Found = tuple[Utterance, int, int]  # with its channel in the recording, and where that is in the file


def _found(folder: Path, kind: str) -> list[Path]:
    return sorted(path for end in ("jsonl", "jsonl.gz") for path in folder.glob(f"*{kind}*.{end}"))


def _kind(file: Path) -> str:
    first = next(iter(read_rows(file)), None)
    return "recordings" if first is not None and "sources" in first.values else "cuts"


def _of_one_channel(found: Iterator[_Found], channel: int | None, root: Path) -> Iterator[Utterance]:
    seen: int | None = None
    for utterance, its, in_file in found:
        if channel is not None and its != channel:
            continue
        if seen is not None and in_file != seen:
            raise UsageError(
                f"{root}: {utterance.key!r} is channel {in_file} of its file, others are {seen}. Pack one at a time: "
                "only_channel= here, and --channel for packing."
            )
        if channel is None and in_file:
            raise UsageError(
                f"{root}: {utterance.key!r} is channel {in_file} of its file. Say so: only_channel={its} here, and "
                f"--channel {in_file} for packing."
            )
        seen = in_file
        yield utterance


def _cuts(files: Sequence[Path], start: Path) -> Iterator[_Found]:
    for row in (row for file in files for row in read_rows(file)):
        cut = row.values
        if cut.get("type", "MonoCut") != "MonoCut":
            raise UsageError(f"{row.where}: a {cut['type']}; only plain cuts of one recording can be packed.")
        with_audio = cut.get("recording")
        if not isinstance(with_audio, dict):
            raise UsageError(f"{row.where}: the cut has no recording, so there is no audio to pack.")
        first = _number(row, cut, "start")
        supervisions = cut.get("supervisions") or []
        if not isinstance(supervisions, list) or not all(isinstance(one, dict) for one in supervisions):
            raise UsageError(f"{row.where}: its supervisions are {supervisions!r:.60}; not a manifest of Lhotse.")
        about = {**_about(cut.get("custom")), **_supervisions(row, supervisions)}
        stretch = first, first + _number(row, cut, "duration")
        audio, its, in_file = _audio(with_audio, row, start, cut.get("channel", 0))
        yield Utterance(_text(row, cut, "id"), audio, *stretch, **about), its, in_file


def _supervised(recordings: Sequence[Path], supervisions: Sequence[Path], start: Path) -> Iterator[_Found]:
    known: dict[str, Row] = {}
    for row in (row for file in recordings for row in read_rows(file)):
        name = _text(row, row.values, "id")
        if known.setdefault(name, row).values != row.values:
            raise said_twice(name, row.where)
    if not supervisions:
        for name, row in known.items():
            audio, its, in_file = _audio(row.values, row, start, 0)
            yield Utterance(name, audio, None, None, **_about(row.values.get("custom"))), its, in_file
    seen = set[str]()
    for row in (row for file in supervisions for row in read_rows(file)):
        one = row.values
        name = _text(row, one, "id")
        if name in seen:
            raise UsageError(f"{row.where}: {name!r} is the id of an earlier supervision, too. Give it another one.")
        seen.add(name)
        recording = known.get(_text(row, one, "recording_id"))
        if recording is None:
            raise UsageError(f"{row.where}: recording {one['recording_id']!r} is in no manifest of recordings.")
        first = _number(row, one, "start")
        audio, its, in_file = _audio(recording.values, recording, start, one.get("channel", 0))
        about = {**_about(one.get("custom")), **_filled(one)}
        stretch = first, first + _number(row, one, "duration")
        yield Utterance(name, audio, *stretch, **about), its, in_file


def _audio(recording: Mapping[str, Any], row: Row, start: Path, channel: Any) -> tuple[Path, int, int]:
    """Path of a recording's audio, its channel, and where that is in the file."""
    if recording.get("transforms"):
        raise UsageError(f"{row.where}: the recording is transformed ({recording['transforms'][0]}). Save it to files.")
    wanted = channel[0] if isinstance(channel, list) and len(channel) == 1 else channel
    if not isinstance(wanted, int):
        raise UsageError(f"{row.where}: channels {channel}; one utterance is of one channel.")
    sources = recording.get("sources")
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise UsageError(f"{row.where}: the sources of the recording are {sources!r:.60}; not a manifest of Lhotse.")
    for source in sources:
        if wanted in source.get("channels", [0]):
            if source.get("type") != "file":
                raise UsageError(f"{row.where}: audio of type {source.get('type')!r}; only files can be packed.")
            return start / str(source.get("source", "")), wanted, source.get("channels", [0]).index(wanted)
    raise UsageError(f"{row.where}: the recording has no source of channel {wanted}.")


def _supervisions(row: Row, supervisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(supervisions) == 1:
        return {**_about(supervisions[0].get("custom")), **_filled(supervisions[0])}
    if not supervisions:
        return {}
    turns = []
    for one in supervisions:
        first = _number(row, one, "start")
        end = first + _number(row, one, "duration")
        turns.append(segment(first, end, str(one.get("speaker") or one.get("text") or "")))
    return {"segments": in_time(turns)}


def _filled(supervision: Mapping[str, Any]) -> dict[str, Any]:
    return {name: supervision[name] for name in _FIELDS if supervision.get(name) is not None}


def _about(custom: Any) -> dict[str, Any]:
    """Custom fields; what the stream would take for its own gets underscores."""
    return with_free_names(custom if isinstance(custom, dict) else {}, TAKEN_NAMES)


def _text(row: Row, values: Mapping[str, Any], name: str) -> str:
    if values.get(name) is None:
        raise UsageError(f"{row.where}: no {name!r}; not a manifest of Lhotse.")
    return str(values[name])


def _number(row: Row, values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # no float is as large as a whole number may be
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{row.where}: {name} is {value!r:.60}, expected seconds.")
    return number


LHOTSE = Corpus(
    lhotse,
    "Lhotse manifests",
    "a manifest of cuts or recordings, or the folder that holds them",
    (
        Option("only_channel", "only what is of this channel", "number", metavar="N"),
        Option("audio_root", "where relative paths start (default: the manifest's folder)", metavar="FOLDER"),
    ),
)
