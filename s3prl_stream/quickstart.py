"""The main job, once, in one readable script: pack, inspect, pretrain, kill, resume, compare, probe, draw.

Every step is a command that a user can type; it is printed before it runs. The claim that is put to the test here is
the one that matters for long runs: a process killed by SIGKILL and started again gives the losses of an undisturbed
one, bit for bit.
"""

from __future__ import annotations

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

PRETRAIN_OPTIONS = shlex.split(
    "--hidden-size 128 --layers 2 --heads 4 --ffn-size 512 --attention-dropout 0 --batch-seconds 20 --crop-seconds 10 "
    "--lr 0.002 --seed 0 --device cpu"
)
HELD_OUT_SHARE = 0.25
"""Share of the speakers that the probe keeps for testing."""


class Task(NamedTuple):
    """What the probe is asked to tell apart, and which clips it is tested on."""

    label: str
    options: tuple[str, ...]


def quickstart(data: str | Path, out: str | Path, *, steps: int = 120, pack_options: Sequence[str] = ()) -> bool:
    """Run all steps and print them.

    Args:
        data: a packed set, or a folder of audio files, which is packed first.
        out: folder for the set (if packed here), the runs and the pictures.
        steps: optimiser steps of each of the two runs, at least 4.
        pack_options: for a folder of audio, options of `s3prl-stream pack folder`, such as "--label-from", "folder".

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
    packed = _pack_if_needed(Path(data), out, pack_options)

    _title("What is in the set")
    _command("inspect", str(packed))

    whole, killed = out / "undisturbed", out / "killed"
    for run in (whole, killed):
        shutil.rmtree(run, ignore_errors=True)
    _title(f"Pretrain a small TERA for {steps} steps, undisturbed")
    _command(*_pretrain_words(packed, whole, steps))

    _title("The same again, killed in the middle")
    _kill_in_the_middle(_pretrain_words(packed, killed, steps), killed, after=steps // 2)
    print("\nThe same command once more: it resumes.")
    _command(*_pretrain_words(packed, killed, steps))

    _title("Are the losses equal?")
    equal = _compare(_losses(whole), _losses(killed), steps)

    _title("What do the frozen features know?")
    task = find_task(packed)
    if task is None:
        print("Nothing to probe: the set has no column `digit`, `label` or `speaker` with two values or more.")
        print("Give labels by a name pattern (--pattern '{speaker}_{label}'), a table (--table labels.csv),")
        print("or by the folders that the files are in (--label-from folder).")
    else:
        probe = ("probe", "--data", str(packed), "--upstream", str(killed), "--label", task.label)
        _command(*probe, "--where", f"{task.label} is not None", *task.options)

    _title("Pictures")
    pictures = _draw(packed, whole, killed, out, killed_after=steps // 2)

    _title(f"Done in {time.monotonic() - started:.0f} s")
    print(f"  {packed}: the set")
    print(f"  {killed}: the run: checkpoints, losses.jsonl, run.json")
    if pictures:
        print(f"  {', '.join(map(str, pictures))}: the pictures")
    print("Next: more steps on the same run, `s3prl-stream plan` to see an epoch, your own audio with --data FOLDER.")
    if shutil.which("s3prl-stream") is None:
        print(f"`. {shlex.quote(f'{sys.prefix}/bin/activate')}` puts s3prl-stream on the PATH.")
    return equal


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
    for name, values in counts.items():
        if len(values) < 2:
            continue
        speakers = sorted(map(str, counts.get("speaker", ())), key=key_hash)
        if name != "speaker" and len(speakers) >= 4:
            held_out = speakers[:: round(1 / HELD_OUT_SHARE)]
            return Task(name, ("--holdout", f"speaker={','.join(held_out)}"))
        return Task(name, ())
    return None


def _pack_if_needed(data: Path, out: Path, options: Sequence[str]) -> Path:
    from s3prl_stream.shards.layout import MANIFEST

    if not data.is_dir():
        raise UsageError(f"{data}: no such folder. Give a folder of audio files, or a packed set.")
    if (data / MANIFEST).is_file():
        if options:
            raise UsageError(f"{data}: is a packed set; {options[0]} is for a folder of audio files. Leave it out.")
        return data
    packed = out / f"set-{data.resolve().name}"
    _title("Pack the folder")
    # 1: some files were damaged; they are listed above, and the set is complete without them.
    _command("pack", "folder", str(data), str(packed), *options, accepted=(0, 1))
    return packed


def _pretrain_words(packed: Path, run: Path, steps: int) -> list[str]:
    every = ("--checkpoint-every", str(max(1, steps // 5)))
    words = ["pretrain", "tera", "--data", str(packed), "--out", str(run), "--steps", str(steps)]
    return [*words, *PRETRAIN_OPTIONS, *every]


def _command(*words: str, accepted: Sequence[int] = (0,)) -> None:
    status = subprocess.run(_announced(words), check=False).returncode
    if status not in accepted:
        raise StreamError(f"quickstart: `s3prl-stream {words[0]}` ended with exit status {status}; see above.")


def _announced(words: Sequence[str]) -> list[str]:
    print(f"$ s3prl-stream {shlex.join(words)}", flush=True)
    return [sys.executable, "-m", "s3prl_stream", *words]


def _kill_in_the_middle(words: Sequence[str], run: Path, *, after: int) -> None:
    """Start a command and SIGKILL it, with all its workers, once its run has recorded `after` steps."""
    process = subprocess.Popen(_announced(words), start_new_session=True)
    try:
        while process.poll() is None and len(_losses(run)) < after:
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise StreamError(f"quickstart: the run ended by itself (exit status {process.returncode}) before the kill.")
    print(f"\nSIGKILL after {len(_losses(run))} steps: process {process.pid} is gone, with no chance to tidy up.")


def _losses(run: Path) -> list[tuple[int, float]]:
    """(step, loss) of each step that a run has recorded so far."""
    from s3prl_stream.trainer.losslog import read_losses

    return [(line["step"], line["loss"]) for line in read_losses(run)]


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


def _draw(packed: Path, whole: Path, killed: Path, out: Path, *, killed_after: int) -> list[Path]:
    """The loss curves, and the longest clip of one masked batch with what the network makes of it.

    Returns:
        the files; none, and why is printed, where matplotlib is missing: the package does without it.
    """
    import torch

    from s3prl_stream.loader import Loader
    from s3prl_stream.pictures import draw_losses, draw_reconstruction
    from s3prl_stream.recipes.run_folder import load_objective
    from s3prl_stream.recipes.tera import TERA
    from s3prl_stream.shards.shardset import open_shards

    losses, reconstruction = out / "loss.png", out / "reconstruction.png"
    try:
        draw_losses(_losses(whole), _losses(killed), killed_after, losses)
    except UsageError as error:
        print(f"None: {error}")
        return []
    objective: Any = load_objective(killed)
    batch = next(iter(Loader(TERA.stream(open_shards(packed), seed=1, max_batch_seconds=60.0))))
    with torch.inference_mode():
        predicted_BFD = objective.head(objective.encoder(batch["masked_feat"], batch["feat_len"])[-1])
    row = int(batch["feat_len"].argmax())
    frames = int(batch["feat_len"][row])
    pictures = [tensor[row, :frames].numpy() for tensor in (batch["feat"], batch["masked_feat"], predicted_BFD)]
    draw_reconstruction(pictures[0], pictures[1], pictures[2], batch["key"][row], reconstruction)
    return [losses, reconstruction]


def _title(text: str) -> None:
    print(f"\n== {text}\n", flush=True)
