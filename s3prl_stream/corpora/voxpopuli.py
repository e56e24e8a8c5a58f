"""VoxPopuli: 400 000 hours of the European Parliament in 23 languages, 1 800 hours of them transcribed.

C. Wang et al., "VoxPopuli: a large-scale multilingual speech corpus", ACL 2021. Layout, as its own scripts leave it:
ROOT/raw_audios/LANGUAGE/YEAR/SESSION_LANGUAGE.ogg (hours long), ROOT/unlabelled_data/unlabelled_v2.tsv.gz (a row a
segment), ROOT/unlabelled_data/LANGUAGE/YEAR/*.ogg (the segments cut out), and
ROOT/transcribed_data/LANGUAGE/{asr_SPLIT.tsv,YEAR/ID.ogg}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from s3prl_stream.corpora.corpus import LANGUAGE, SPLIT, Corpus, Option, options_checked
from s3prl_stream.corpora.splits import chosen, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import Row, needed, read_rows, renamed, seconds

_SPLITS = ("train", "dev", "test")
_SEGMENT_COLUMNS = (("event_id", "segment_no", "start", "end"), ("session_id", "id_", "start_time", "end_time"))
"""Of unlabelled_v2, and of the list of segments by speaker (unlabelled_sd)."""

_LANGUAGE_IN_NAME = re.compile(r"[-_][a-z]{2}(?:_|$)")
"""SESSION_en, SESSION_en_NUMBER, or SESSION-en_DATE-TIME_NUMBER of what is transcribed."""

_TEXT_COLUMNS = {"normalized_text": "text", "raw_text": "raw_text", "speaker_id": "speaker", "accent": "accent"}


@options_checked
def voxpopuli(
    root: str | Path,
    part: Literal["segments", "cut", "sessions", "transcribed"] = "segments",
    *,
    language: str | Sequence[str] | None = None,
    split: str | Sequence[str] | None = None,
    segments: str | Path | None = None,
) -> Iterator[Utterance]:
    """Utterances of one or several languages.

    Metadata: language, session, year; of the transcribed part split, text (normalised), raw_text, speaker, gender,
    accent as far as the table has them.

    Args:
        root: the folder with raw_audios/, unlabelled_data/ or transcribed_data/.
        part: "segments": stretches of the sessions by the segment list, nothing needs to be cut before; "cut": the
            files that VoxPopuli's script has cut; "sessions": whole sessions, for --split-seconds; "transcribed".
        language: codes such as "en"; None: all that the part has.
        split: of the transcribed part: train, dev, test; None: all there are.
        segments: the segment list; None: unlabelled_v2.tsv.gz or .tsv in ROOT/unlabelled_data. Both lists that
            VoxPopuli publishes are understood.

    Raises:
        UsageError: a folder, language, split, segment list or column that is not there.
    """
    root = root_folder(root, "raw_audios/, unlabelled_data/ or transcribed_data/")
    folders = {"segments": "raw_audios", "cut": "unlabelled_data", "sessions": "raw_audios",
               "transcribed": "transcribed_data"}  # fmt: skip
    if split is not None and part != "transcribed":
        raise UsageError(f"split is for part='transcribed'; part {part!r} has none.")
    base = root_folder(root / folders[part], f"the languages of part {part!r}")
    found = [folder.name for folder in sorted(base.iterdir()) if folder.is_dir() and folder.name != "original"]
    languages = chosen(base, found, language, "language", default_all=True, such_as="en")
    if part == "transcribed":
        tables = {one: _tables(base / one, split) for one in languages}
        return (one for name, some in tables.items() for one in _transcribed(base / name, name, some))
    if part == "segments":
        return _segments(base, _segment_list(root, segments), languages)
    return (one for name in languages for one in _files(base / name, name))


def _files(folder: Path, language: str) -> Iterator[Utterance]:
    for audio in sorted(folder.glob("*/[!.]*.ogg")):  # ._NAME.ogg: what macOS leaves in archives
        yield Utterance(audio.stem, audio, **_about(audio.stem, language, str(audio)))


def _about(name: str, language: str, where: str) -> dict[str, Any]:
    if not name[:4].isdecimal():
        raise UsageError(f"{where}: {name[:40]!r} does not begin with a year, as the sessions of VoxPopuli do.")
    return {"language": language, "session": _LANGUAGE_IN_NAME.split(name)[0], "year": int(name[:4])}


def _segment_list(root: Path, given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    names = [root / "unlabelled_data" / f"unlabelled_v2.tsv{end}" for end in (".gz", "")]
    return next((name for name in names if name.exists()), names[0])


def _segments(base: Path, table: Path, languages: Sequence[str]) -> Iterator[Utterance]:
    names: Sequence[str] | None = None
    for row in read_rows(table, header=True):
        if names is None:
            names = next((some for some in _SEGMENT_COLUMNS if some[0] in row.columns), _SEGMENT_COLUMNS[0])
        event, number, start, end = (needed(row, name) for name in names)
        language = event.rpartition("_")[2]
        if language in languages:
            audio = base / language / event[:4] / f"{event}.ogg"
            stretch = seconds(start, row.where, names[2]), seconds(end, row.where, names[3])
            yield Utterance(f"{event}_{number}", audio, *stretch, **_about(event, language, row.where))


def _tables(folder: Path, split: str | Sequence[str] | None) -> list[Path]:
    found = [name for name in _SPLITS if (folder / f"asr_{name}.tsv").is_file()]
    wanted = chosen(folder, found, split, "split", default_all=True, such_as="asr_train.tsv")
    return [folder / f"asr_{name}.tsv" for name in wanted]


def _transcribed(folder: Path, language: str, tables: Sequence[Path]) -> Iterator[Utterance]:
    for table in tables:
        for row in read_rows(table):
            key = needed(row, "id")
            about = {**_about(key, language, row.where), "split": table.stem.removeprefix("asr_"), **_text(row)}
            yield Utterance(key, folder / key[:4] / f"{key}.ogg", **about)


def _text(row: Row) -> dict[str, Any]:
    text = {name: value for name, value in renamed(row, _TEXT_COLUMNS).items() if value != "None"}
    gender = {"female": "F", "male": "M"}.get(str(row.values.get("gender")))
    return text if gender is None else {**text, "gender": gender}


VOXPOPULI = Corpus(
    voxpopuli,
    "VoxPopuli, unlabelled or transcribed",
    "folder with raw_audios/, unlabelled_data/ or transcribed_data/",
    (
        Option("part", "default: segments, stretches of raw_audios by the segment list",
               choices=("segments", "cut", "sessions", "transcribed")),
        LANGUAGE,
        SPLIT,
        Option("segments", "the segment list (default: unlabelled_data/unlabelled_v2.tsv.gz)", metavar="FILE"),
    ),
)  # fmt: skip
