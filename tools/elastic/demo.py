"""The elastic receipt: `tools/demo_elastic` says what it is, and `tools/elastic/ledger.py` how it is made."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from elastic.ledger import Attempt, Run, judge, read_run  # noqa: E402
from elastic.rank import Settings  # noqa: E402
from elastic.store import STORES, Store, choose, store_with  # noqa: E402
from s3prl_stream.chaos import ChaosProxy  # noqa: E402
from s3prl_stream.pictures import picture  # noqa: E402
from s3prl_stream.shards.shardset import open_shards  # noqa: E402
from s3prl_stream.trainer.checkpoint import list_checkpoints, load_state  # noqa: E402
from s3prl_stream.trainer.losslog import read_lines, read_losses  # noqa: E402

PLAN = ((4, 7), (3, 13), (1, None))
"""(ranks, steps after which they are killed), one attempt after the other."""
STEPS, UPDATE_BATCHES, CHECKPOINT_EVERY = 18, 12, 3
"""12 batches in an update: a multiple of 4, 3 and 1."""
PRETRAIN: dict[str, Any] = {
    "hidden_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "ffn_size": 64,
    "attention_dropout": 0.0,
    "lr": 2e-3,
    "max_batch_seconds": 12.0,
    "crop_seconds": 12.0,
    "update_batches": UPDATE_BATCHES,
    "checkpoint_every": CHECKPOINT_EVERY,
    "seed": 3,
    "device": "cpu",
}
FAULTS = "503:0.04:burst=2,cut@*.tar:0.08,reset@*.tar:0.04,short@*.tar:0.04,stall@*.tar:0.03:seconds=0.5"
SECONDS_TO_WAIT = 300.0


def main() -> int:
    """0 if every promise held."""
    parser = argparse.ArgumentParser(prog="tools/demo_elastic", description="See the head of tools/demo_elastic.")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "elastic", help="default: out/elastic")
    parser.add_argument("--store", choices=STORES, help="default: the first that is installed, else nginx")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "shards" / "sample", help="a packed set (default: the sample)"
    )
    parser.add_argument("--faults", default=FAULTS, help="of the road to the store (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--judge", type=Path, metavar="DIR", help="of an earlier demo: its receipt once more")
    args = parser.parse_args()
    began = time.monotonic()
    out = args.judge or args.out
    if args.judge is None:
        demo(args.data, out, choose(args.store), args.faults, args.seed)
    receipt = make_receipt(args.data, out)
    (out / "receipt.json").write_text(json.dumps(receipt, indent=1) + "\n", "utf-8")
    print(text_of(receipt))
    print(f"{time.monotonic() - began:.0f} s. {out}: receipt.json, loss.png, ledgers, and the two runs")
    return 1 if receipt["failures"] else 0


def demo(packed: Path, out: Path, kind: str, faults: str, seed: int) -> None:
    """Both runs, with their ledgers in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("undisturbed", "elastic"):
        shutil.rmtree(out / name, ignore_errors=True)
    say(f"starting {STORES[kind][1]}, and putting {packed} into it")
    with store_with(packed, kind, out / "server") as store:
        say("an undisturbed run: 4 ranks, no faults")
        train(store, out / "undisturbed", ((4, None),))
        with ChaosProxy(store.endpoint, faults, seed=seed) as proxy:
            say(f"the same again behind a proxy ({faults})")
            train(store.behind(proxy.url), out / "elastic", PLAN)
            about = {"store": store.what, "requests": proxy.num_requests, "faults": proxy.faults}
    (out / "store.json").write_text(json.dumps(about), "utf-8")


def train(store: Store, folder: Path, plan: tuple[tuple[int, int | None], ...]) -> None:
    """A run in as many attempts as the plan has; the last one is to come to the end."""
    run = folder / "run"
    folder.mkdir()
    attempts: list[Attempt] = []
    for number, (ranks, kill_after) in enumerate(plan):
        checkpoints = list_checkpoints(run) if run.exists() else []
        begins_at = int(load_state(checkpoints[-1])["loader"]["next_batch"]) if checkpoints else 0
        settings = Settings(store.url, str(run), str(folder), number, STEPS, {**PRETRAIN, "quiet": True})
        with started(settings, ranks, store.variables) as process:
            wait_for(process, run, kill_after, folder / f"errors-{number}")
            killed = 0 if kill_after is None else kill_all(process)
        losses = [(line["step"], line["loss"]) for line in read_losses(run)]
        last = None if kill_after is None else losses[-1][0]
        attempts.append(Attempt(ranks, begins_at, last, killed, losses))
        end = f"SIGKILL to {killed} processes after step {last}" if killed else f"came to step {losses[-1][0]}"
        say(f"{ranks} rank{'s' * (ranks > 1)} from batch {begins_at}: {end}")
    about = {"attempts": [one._asdict() for one in attempts], "end": STEPS * UPDATE_BATCHES}
    (folder / "attempts.json").write_text(json.dumps(about), "utf-8")


@contextlib.contextmanager
def started(settings: Settings, ranks: int, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Ranks under torchrun, with their output in `errors-ATTEMPT`; none is left when the block ends."""
    folder = Path(settings.ledgers)
    path = folder / f"settings-{settings.attempt}.json"
    path.write_text(json.dumps(settings._asdict()), "utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    # Where this process is killed, torchrun is asked to end, and ends its ranks.
    with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    command = [*with_us, sys.executable, *torchrun, str(ROOT / "tools" / "elastic" / "rank.py"), str(path)]
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (folder / f"errors-{settings.attempt}").open("wb") as errors:
        process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=errors, stderr=errors)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_all(process)


def wait_for(process: subprocess.Popen[bytes], run: Path, steps: int | None, errors: Path) -> None:
    """Until the log has so many steps; None: until the process has ended well."""
    end = time.monotonic() + SECONDS_TO_WAIT
    while process.poll() is None and (steps is None or len(read_losses(run)) < steps):
        if time.monotonic() > end:
            fail(f"nothing came of it in {SECONDS_TO_WAIT:g} s", errors)
        time.sleep(0.02)
    if steps is not None and process.poll() is not None:
        fail("ended before it could be killed", errors)
    if steps is None and process.returncode != 0:
        fail(f"exit status {process.returncode}", errors)


def kill_all(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL to torchrun and its ranks, each in a session of its own; returns how many they were."""
    parent = psutil.Process(process.pid)
    doomed = [parent, *parent.children(recursive=True)]
    for one in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs(doomed[1:], timeout=20)
    return len(doomed)


def make_receipt(packed: Path, out: Path) -> dict[str, Any]:
    """From what lies in `out`; draws the picture."""
    whole, elastic = read_run(out / "undisturbed"), read_run(out / "elastic")
    keys = open_shards(packed).table()["key"].to_pylist()
    receipt = {**json.loads((out / "store.json").read_text("utf-8")), **judge(whole, elastic, keys)}
    resumes = read_lines(out / "elastic" / "run" / "resumes.jsonl")
    receipt["failures"] += [
        f"the loader itself counted {one['clips_again']} clips read again" for one in resumes if one["clips_again"]
    ]
    if not receipt["faults"]:
        receipt["failures"].append("no request was hit by a fault: raise the probabilities of --faults")
    receipt["attempts"] = [one._asdict() | {"losses": len(one.losses)} for one in elastic.attempts]
    draw(whole, elastic, out / "loss.png")
    return receipt


def draw(whole: Run, elastic: Run, file: Path) -> None:
    """The losses of both runs, those of each attempt by itself: what one did after the checkpoint that the next began
    at is drawn too, and all but the last end at a SIGKILL."""
    with picture(file, 8, 4) as figure:
        axes = figure.subplots()
        axes.plot(*zip(*whole.attempts[-1].losses, strict=True), color="0.75", linewidth=6, label="undisturbed")
        for one in elastic.attempts:
            losses = [pair for pair in one.losses if pair[0] > one.begins_at // UPDATE_BATCHES]
            name = f"{one.ranks} rank{'s' * (one.ranks > 1)}"
            (line,) = axes.plot(*zip(*losses, strict=True), marker=".", linewidth=1.5, label=name)
            if one is not elastic.attempts[-1]:
                axes.plot(*losses[-1], "x", color=line.get_color(), markersize=12, label="SIGKILL")
        axes.set(xlabel="step", ylabel="loss")
        axes.legend()


def text_of(receipt: dict[str, Any]) -> str:
    """For people."""
    lines = ["", "Elastic receipt", ""]
    hits = ", ".join(f"{number} x {kind}" for kind, number in sorted(receipt["faults"].items()))
    lines.append(f"  store         {receipt['store']}; {receipt['requests']} requests, of which {hits}")
    for number, one in enumerate(receipt["attempts"], start=1):
        ranks = f"{one['ranks']} rank{'s' * (one['ranks'] > 1)}"
        end = f"killed -9 after step {one['killed_after']}" if one["killed_after"] else f"to the end, step {STEPS}"
        lines.append(f"  attempt {number}     {ranks}, from step {one['begins_at'] // UPDATE_BATCHES + 1}, {end}")
    batches, again = receipt["batches"], receipt["clips_done_again_after_a_checkpoint"]
    equal, largest = batches - receipt["batches_with_other_numbers"], receipt["largest_difference_of_a_loss"]
    lines += [
        f"  clips         {receipt['clips']} taken in {batches} batches; {receipt['whole_epochs']} epochs are whole",
        f"  lost          {receipt['lost']}",
        f"  twice         {receipt['twice']}",
        f"  read again    {receipt['consumed_clips_read_again']} of those that a checkpoint has",
        f"  done again    {again}, which were trained on after the last checkpoint before a kill",
        f"  numbers       {equal} of {batches} batches have features and masks of the undisturbed run, bit for bit",
        f"  losses        {receipt['losses']} of {STEPS}; the largest difference is {largest:.1e} of the loss",
        "",
    ]
    return "\n".join([*lines, *([f"FAILED: {one}" for one in receipt["failures"]] or ["All of it held."])])


def say(text: str) -> None:
    """On stderr, so that the receipt alone is on stdout."""
    print(f"demo_elastic: {text}", file=sys.stderr, flush=True)


def fail(what: str, errors: Path) -> None:
    """End with what the ranks said."""
    tail = errors.read_text("utf-8", "replace")[-3000:]
    raise SystemExit(f"demo_elastic: {what}. The end of {errors}:\n{tail}")


if __name__ == "__main__":
    sys.exit(main())
