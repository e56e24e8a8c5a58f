"""IEMOCAP: five sessions of two actors each, turn by turn with an emotion.

C. Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", 2008. Layout:
ROOT/SessionN/sentences/wav/DIALOG/TURN.wav, ROOT/SessionN/dialog/{EmoEvaluation,transcriptions}/DIALOG.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.lists import by_name
from s3prl_stream.corpora.splits import root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import key_hash
from s3prl_stream.sample import Utterance

_FOUR = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
_EVALUATION = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+)\t(\w+)\t\[([\d.]+), ([\d.]+), ([\d.]+)\]", re.MULTILINE)
_TRANSCRIPT = re.compile(r"^(\S+) \[[\d.]+-[\d.]+\]: *(.*)$", re.MULTILINE)


@options_checked
def iemocap(root: str | Path, emotions: Literal["4", "all"] = "4") -> Iterator[Utterance]:
    """Turns, sorted by session and name.

    Metadata: label, emotion (as annotated), speaker (such as "Ses01F"), gender, session (1 to 5), act ("impro" or
    "script"), dialog, text where there is a transcript, valence, activation, dominance (1 to 5), and fifth (0 to 4, by
    a hash of the key). So a fold needs no packing of its own: test on "session == 1", validate on "session != 1 and
    fifth == 0", train on "session != 1 and fifth != 0".

    Args:
        root: the folder with Session1 to Session5.
        emotions: "4": the turns that are neutral, angry, sad or happy (with excited), 5 531 of them; label is neu, ang,
            sad or hap. "all": every turn with its own emotion, also "xxx" (no agreement) and the rare ones.

    Raises:
        UsageError: no such folder or session, or a turn without an evaluation or with two, or with two texts.
    """
    root = root_folder(root, "Session1 to Session5")
    sessions = [path for path in sorted(root.glob("Session[1-5]")) if (path / "sentences" / "wav").is_dir()]
    if not sessions:
        raise UsageError(f"{root}: no session of IEMOCAP in here, such as Session1/sentences/wav/.")
    return (one for session in sessions for one in _turns(session, emotions == "all"))


def _turns(session: Path, every_emotion: bool) -> Iterator[Utterance]:
    for dialog in sorted(path for path in (session / "sentences" / "wav").iterdir() if path.is_dir()):
        file = session / "dialog" / "EmoEvaluation" / f"{dialog.name}.txt"
        evaluations = by_name(_lines(_EVALUATION, file, _content(file, True)))
        transcript = session / "dialog" / "transcriptions" / file.name
        texts = by_name(_lines(_TRANSCRIPT, transcript, _content(transcript, False)))
        for audio in sorted(dialog.glob("[!.]*.wav")):  # ._NAME.wav: what macOS leaves in archives
            if audio.stem not in evaluations:
                raise UsageError(f"{file} has no evaluation of {audio.stem}. Fetch the corpus again.")
            emotion, *vad = evaluations[audio.stem]
            if every_emotion or emotion in _FOUR:
                about = _about(audio, session, vad)
                if audio.stem in texts:
                    (about["text"],) = texts[audio.stem]
                label = emotion if every_emotion else _FOUR[emotion]
                yield Utterance(audio.stem, audio, label=label, emotion=emotion, **about)


def _lines(pattern: re.Pattern[str], file: Path, content: str) -> Iterator[tuple[str, str, list[str]]]:
    """(file and line, turn, what else is in the line) of each line that the pattern fits."""
    for found in pattern.finditer(content):
        turn, *rest = found.groups()
        yield f"{file}, line {content.count(chr(10), 0, found.start()) + 1}", turn, rest


def _about(audio: Path, session: Path, vad: list[str]) -> dict[str, Any]:
    gender = audio.stem.rpartition("_")[2][0]  # Ses01F_impro02_M003: he speaks, she wears the markers
    names = ("valence", "activation", "dominance")
    return {
        "speaker": f"{audio.stem[:5]}{gender}",
        "gender": gender,
        "session": int(session.name[-1]),
        "act": "impro" if "impro" in audio.stem else "script",
        "dialog": audio.parent.name,
        "fifth": int(key_hash(audio.stem) % 5),
        **{name: float(value) for name, value in zip(names, vad, strict=True)},
    }


def _content(file: Path, must_be: bool) -> str:
    if not file.is_file():
        if must_be:
            raise UsageError(f"{file}: no such file. Every dialog of IEMOCAP has one.")
        return ""
    return file.read_text("utf-8", errors="replace")


IEMOCAP = Corpus(
    iemocap,
    "IEMOCAP: emotions, in five sessions",
    "folder with Session1 to Session5",
    (Option("emotions", "4 (default: neutral, happy with excited, angry, sad) or all", choices=("4", "all")),),
)
