"""The main job, once, in one readable script: pack, inspect, pretrain, kill, resume, compare, probe, draw.

Every step is a command that a user can type; it is printed before it runs. The claim that is put to the test here is
the one that matters for long runs: a process killed by SIGKILL and started again gives the losses of an undisturbed
one, bit for bit.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s3prl_stream.errors import StreamError, UsageError

LOSSES = "losses.jsonl"
PRETRAIN_SIZES = ("--hidden-size", "128", "--layers", "3", "--heads", "4", "--ffn-size", "512")
PRETRAIN_BUDGET = ("--batch-seconds", "60", "--crop-seconds", "10", "--lr", "0.001", "--seed", "0", "--device", "cpu")
HELD_OUT_SHARE = 0.25
"""Share of the speakers that the probe keeps for testing."""


class Task(NamedTuple):
    """What the probe is asked to tell apart, and which clips it is tested on."""

    label: str
    options: tuple[str, ...]


def quickstart(
    data: str | Path, out: str | Path, *, steps: int = 120, pattern: str | None = None, table: str | None = None
) -> bool:
    """Run all steps and print them.

    Args:
        data: a packed set, or a folder of audio files, which is packed first.
        out: folder for the set (if packed here), the runs and the pictures.
        steps: optimiser steps of each of the two runs, at least 4.
        pattern, table: for a folder of audio, as in `s3prl-stream pack folder`.

    Returns:
        True if everything held; False if the losses of the killed run differ.

    Raises:
        UsageError: data is missing, or steps is too small.
        StreamError: a command failed; its own message stands above.
    """
    if steps < 4:
        raise UsageError(f"quickstart: steps is {steps}; a run to be killed in the middle needs at least 4.")
    started = time.monotonic()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    packed = _pack_if_needed(Path(data), out / "set", pattern, table)

    _title("What is in the set")
    _command("inspect", str(packed))

    whole, killed = out / "undisturbed", out / "killed"
    for run in (whole, killed):
        shutil.rmtree(run, ignore_errors=True)
    _title(f"Pretrain a small TERA for {steps} steps, undisturbed")
    _command(*_pretrain_words(packed, whole, steps))

    _title("The same again, killed in the middle")
    _kill_in_the_middle(_pretrain_words(packed, killed, steps), killed / LOSSES, after=steps // 2)
    print("\nThe same command once more: it resumes.")
    _command(*_pretrain_words(packed, killed, steps))

    _title("Are the losses equal?")
    equal = _compare(read_losses(whole / LOSSES), read_losses(killed / LOSSES), steps)

    _title("What do the frozen features know?")
    task = find_task(packed)
    if task is None:
        print("Nothing to probe: the set has no column `digit`, `label` or `speaker` with two values or more.")
        print("Give labels by a name pattern (--pattern '{speaker}_{label}') or a table (--table labels.csv).")
    else:
        probe = ("probe", "--data", str(packed), "--upstream", str(killed), "--label", task.label, *task.options)
        _command(*probe)

    _title("Pictures")
    from s3prl_stream.pictures import draw_losses, draw_reconstruction

    draw_losses(read_losses(whole / LOSSES), read_losses(killed / LOSSES), steps // 2, out / "loss.png")
    draw_reconstruction(packed, killed, out / "reconstruction.png")

    _title(f"Done in {time.monotonic() - started:.0f} s")
    print(f"  {packed}: the set")
    print(f"  {killed}: the run: checkpoints, {LOSSES}, settings")
    print(f"  {out / 'loss.png'}, {out / 'reconstruction.png'}: the pictures")
    print("Next: more steps on the same run, `s3prl-stream plan` to see an epoch, your own audio with --data FOLDER.")
    return equal


def read_losses(path: Path) -> list[tuple[int, float]]:
    """(step, loss) of each line of a run's losses."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def find_task(packed: Path) -> Task | None:
    """The first of digit, label and speaker with two classes or more; tested on held-out speakers where it can be."""
    from s3prl_stream.hashing import key_hash
    from s3prl_stream.shards.shardset import open_shards

    table = open_shards(packed).table()
    counts: dict[str, Counter[Any]] = {
        name: Counter(value for value in table[name].to_pylist() if value is not None)
        for name in ("digit", "label", "speaker")
        if name in table.column_names
    }
    for name in ("digit", "label", "speaker"):
        if len(counts.get(name, ())) < 2:
            continue
        speakers = sorted(map(str, counts.get("speaker", ())), key=key_hash)
        if name != "speaker" and len(speakers) >= 4:
            held_out = speakers[:: round(1 / HELD_OUT_SHARE)]
            return Task(name, ("--holdout", f"speaker={','.join(held_out)}"))
        return Task(name, ())
    return None


def _pack_if_needed(data: Path, packed: Path, pattern: str | None, table: str | None) -> Path:
    from s3prl_stream.shards.layout import MANIFEST

    if not data.is_dir():
        raise UsageError(f"{data}: no such folder. Give a folder of audio files, or a packed set.")
    if (data / MANIFEST).is_file():
        return data
    _title("Pack the folder")
    options = [*(("--pattern", pattern) if pattern else ()), *(("--table", table) if table else ())]
    _command("pack", "folder", str(data), str(packed), *options, accepted=(0, 1))
    return packed


def _pretrain_words(packed: Path, run: Path, steps: int) -> list[str]:
    every = ("--checkpoint-every", str(max(1, steps // 5)))
    words = ["pretrain", "tera", "--data", str(packed), "--out", str(run), "--steps", str(steps)]
    return [*words, *PRETRAIN_SIZES, *PRETRAIN_BUDGET, *every]


def _command(*words: str, accepted: Sequence[int] = (0,)) -> None:
    status = subprocess.run(_announced(words), check=False).returncode
    if status not in accepted:
        raise StreamError(f"quickstart: `s3prl-stream {words[0]}` ended with exit status {status}; see above.")


def _announced(words: Sequence[str]) -> list[str]:
    print(f"$ s3prl-stream {shlex.join(words)}", flush=True)
    return [sys.executable, "-m", "s3prl_stream", *words]


def _kill_in_the_middle(words: Sequence[str], losses: Path, *, after: int) -> None:
    """Start a command and SIGKILL it, with all its workers, once `losses` has `after` lines."""
    process = subprocess.Popen(_announced(words), start_new_session=True)
    try:
        while process.poll() is None and _count_lines(losses) < after:
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise StreamError(
            f"quickstart: the run ended by itself (exit status {process.returncode}) before it was killed."
        )
    print(f"\nSIGKILL after {_count_lines(losses)} steps: process {process.pid} is gone, without a chance to tidy up.")


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _compare(whole: list[tuple[int, float]], killed: list[tuple[int, float]], steps: int) -> bool:
    if [step for step, _ in killed] != [step for step, _ in whole] or len(whole) != steps:
        print(f"NO: {len(whole)} and {len(killed)} steps were recorded, {steps} were asked for, each once.")
        return False
    different = [step for (step, loss), (_, other) in zip(whole, killed, strict=True) if loss != other]
    if different:
        print(f"NO: {len(different)} of {steps} losses differ, the first at step {different[0]}.")
        return False
    print(f"Yes: all {steps} losses are equal, bit for bit. The last is {whole[-1][1]!r} in both runs.")
    return True


def _title(text: str) -> None:
    print(f"\n== {text}\n", flush=True)
