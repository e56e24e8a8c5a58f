"""Packed sets made of the real recordings beside the checkout, by the command line, each once in a test session."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from s3prl_stream.cli import main

RATE = 16_000


def pack(*words: str | Path) -> None:
    """`s3prl-stream pack ...`; 1 means that damaged files were left out and listed."""
    assert main(["pack", *map(str, words), "--workers", "0"]) in (0, 1)


def wakewords(data: Path, out: Path) -> None:
    """760 clips of four keywords; a few are really damaged."""
    pack("folder", data / "wakewords", out, "--label-from", "folder")


def fsdd(data: Path, out: Path) -> None:
    """2000 spoken digits of four speakers."""
    pack("folder", data / "fsdd/recordings", out, "--pattern", "{digit}_{speaker}_{take}")


def kathleen(data: Path, out: Path) -> None:
    """400 sentences of one reader."""
    pack("ljspeech", data / "kathleen", out)


def barista(data: Path, out: Path) -> None:
    """159 orders with their slots as columns."""
    pack(
        "manifest", data / "barista/label.json", out, "--audio-root", data / "barista/audio", "--columns-from", "slots"
    )


def yesno(data: Path, out: Path) -> None:
    """60 recordings of eight Hebrew words, yes or no."""
    files = sorted((data / "yesno/waves_yesno").glob("*.wav"))
    words = {"0": "no", "1": "yes"}
    rows = [
        {"audio": str(file), "key": file.stem, "text": " ".join(words[one] for one in file.stem.split("_"))}
        for file in files
    ]
    pack_rows(rows, out)


def diarization(data: Path, out: Path) -> None:
    """15 clips of conversations."""
    pack("rttm", data / "diarization", out)


def libri_pieces(data: Path, out: Path) -> None:
    """Readings of 248 people in pieces of at most 5 s, so that each has several."""
    pack("librispeech", data / "LibriSpeech", out, "--split", "train-clean-100", "--split-seconds", "5")


def mixtures(data: Path, out: Path, count: int = 24) -> None:
    """Two readers of LibriSpeech one over the end of the other, with the segments of both."""
    files = sorted((data / "LibriSpeech/train-clean-100").rglob("*.flac"))
    folder = out.with_name(f"{out.name}-audio")
    folder.mkdir()
    rows, rng = [], np.random.default_rng(0)
    for number in range(count):
        wavs = [soundfile.read(files[place])[0][: 4 * RATE] for place in rng.choice(len(files), 2, replace=False)]
        starts = [0, int(rng.uniform(1.5, 3.5) * RATE)]
        mixed = np.zeros(max(start + len(wav) for start, wav in zip(starts, wavs, strict=True)))
        segments = []
        for who, (start, wav) in enumerate(zip(starts, wavs, strict=True)):
            mixed[start : start + len(wav)] += 0.1 * wav / (np.sqrt(np.mean(wav**2)) + 1e-9)
            segments.append({"start": start / RATE, "end": (start + len(wav)) / RATE, "label": f"reader{who}"})
        soundfile.write(folder / f"mix{number:02d}.flac", np.clip(mixed, -1, 1), RATE)
        rows.append({"audio": str(folder / f"mix{number:02d}.flac"), "key": f"mix{number:02d}", "segments": segments})
    pack_rows(rows, out)


def iemocap_layout(data: Path, out: Path) -> None:
    """Digits of fsdd in the folders and files of IEMOCAP: a session a speaker, four digits in the role of emotions."""
    emotions = {"0": "neu", "1": "hap", "2": "ang", "3": "sad"}
    root = out.with_name(f"{out.name}-corpus")
    for number, speaker in enumerate(("george", "jackson", "nicolas", "theo"), start=1):
        session, dialog = root / f"Session{number}", f"Ses0{number}F_impro01"
        audio, evaluations = session / "sentences/wav" / dialog, session / "dialog/EmoEvaluation"
        audio.mkdir(parents=True)
        evaluations.mkdir(parents=True)
        lines = []
        for place, file in enumerate(sorted((data / "fsdd/recordings").glob(f"[0-3]_{speaker}_?.wav"))):
            turn = f"{dialog}_F{place:03d}"
            soundfile.write(audio / f"{turn}.wav", *soundfile.read(file))
            lines.append(f"[{place}.0000 - {place}.5000]\t{turn}\t{emotions[file.name[0]]}\t[2.5000, 3.0000, 1.5000]")
        (evaluations / f"{dialog}.txt").write_text("\n\n".join(lines) + "\n")
    pack("iemocap", root, out)


def queries(data: Path, out: Path) -> None:
    """Digits as queries: the first take of each of one speaker."""
    files = sorted((data / "fsdd/recordings").glob("?_jackson_0.wav"))
    pack_rows([{"audio": str(file), "key": file.stem, "text": file.stem[0]} for file in files], out)


def documents(data: Path, out: Path, count: int = 30) -> None:
    """Three of the queries, one after the other; `text` says which."""
    folder, rng, rows = out.with_name(f"{out.name}-audio"), np.random.default_rng(1), []
    folder.mkdir()
    for number in range(count):
        digits = rng.choice(10, 3, replace=False)
        takes = [data / f"fsdd/recordings/{digit}_jackson_0.wav" for digit in digits]
        wav = np.concatenate([soundfile.read(take)[0] for take in takes])
        soundfile.write(folder / f"doc{number:02d}.wav", wav, 8_000)
        text = " ".join(map(str, digits))
        rows.append({"audio": str(folder / f"doc{number:02d}.wav"), "key": f"doc{number:02d}", "text": text})
    pack_rows(rows, out)


def pack_rows(rows: list[dict[str, object]], out: Path) -> None:
    """Pack the rows of a manifest, which is written beside the set."""
    manifest = out.with_name(f"{out.name}.jsonl")
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pack("manifest", manifest, out)


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    maker.__name__: maker
    for maker in (
        wakewords, fsdd, kathleen, barista, yesno, diarization, libri_pieces, mixtures, iemocap_layout, queries,
        documents,
    )
}  # fmt: skip
