"""Streams of the project and of its peers, side by side on the same clips: `tools/bench peers SET`.

Each measurement is a process of its own; the peers run in an environment of their own, made on first use from
requirements.txt. Rounds are interleaved: one round measures every loader once, and in its process, between its batches,
bare decoding of the same clips.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np

from peers import from_store
from peers.clips import INT16

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVIRONMENT = ROOT / ".peers"
OURS = ("s3prl_stream", "s3prl_stream, int16")
PEERS = ("files + DataLoader", "webdataset", "Lhotse Shar", "LitData", "HF datasets", "Energon", "Mosaic Streaming")
WITHOUT_RESUME = ("files + DataLoader", "webdataset")
WITHOUT_STORE = ("files + DataLoader",)

Epoch: TypeAlias = list[tuple[list[str], list[float]]]
"""Keys and seconds of each batch."""
Speeds: TypeAlias = dict[tuple[str, int], list[dict[str, Any]]]
"""(loader, workers) -> what each round has measured."""


def compare(
    packed: Path, work: Path, rounds: int, peers: Sequence[str], environment: Path, timed_only: bool
) -> dict[str, Any]:
    """All figures of all loaders.

    Args:
        packed: a packed set of FLAC clips at 16 kHz.
        work: folder for the peers' own formats; what is there is used again.
        rounds: of the speed measurements.
        peers: which of `PEERS`.
        environment: where they are installed, or will be.
        timed_only: leave out what does not change from day to day, and each peer's own decoder.
    """
    python = make_environment(environment)
    names = [*OURS, *peers]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: run(python, "prepare", name, work, str(packed), 0), names))
    speeds: Speeds = {}
    for number in range(rounds):
        read_anew([packed, *(work / name for name in names)])
        for name, workers in [*((name, 0) for name in names), *((name, 2) for name in names)]:
            case, floor = case_of(name, workers, timed_only), [] if workers else [str(packed)]
            found = run(python, case, name, work, decoder_of(name), workers, *floor, packed=packed)
            speeds.setdefault((name, workers), []).append(found)
            print(f"round {number + 1}: {name}, {workers} workers: {found}", file=sys.stderr, flush=True)
    clips = json.loads((work / "clips.json").read_text())
    found = {
        "clips": len(clips),
        "hours": sum(one[0] for one in clips.values()) / 3600,
        "rounds": rounds,
        "bare_decode_cpu_s_per_hour": bare_decoding(speeds),
        "loaders": {name: costs(name, speeds) for name in names},
        "versions": versions(python),
    }
    if timed_only:
        return found
    with from_store.gateway(work / "server") as store, ThreadPoolExecutor(2) as pool:

        def not_timed(name: str) -> dict[str, Any]:
            about = delivered(name, python, work, packed, clips)
            if name != OURS[1]:  # with float32 waveforms the requests are the same
                about["store"] = asked_of_store(name, store, python, work, packed, clips)
            print(f"{name}: {about}", file=sys.stderr, flush=True)
            return about

        longest_first = names[::-1]
        for name, about in zip(longest_first, pool.map(not_timed, longest_first), strict=True):
            found["loaders"][name] |= about
    return found


def case_of(name: str, workers: int, timed_only: bool) -> str:
    """What of `measure.py` a round runs: CPU without workers, the peers' once more by their usual decoder."""
    if workers:
        return "speed"
    return "speed-cpu" if timed_only or name in OURS else "speed-cpu-usual"


def decoder_of(name: str) -> str:
    """The same for all, to what each gives."""
    return INT16 if name == OURS[1] else "dr_flac"


def bare_decoding(speeds: Speeds) -> dict[str, Any]:
    """CPU seconds an audio hour by each decoder, in the processes of all loaders.

    Each loader is held against a bare decode to what it gives: int16 is a pass over the audio less than float32.
    """
    each: dict[str, list[float]] = {}
    for (name, workers), found in speeds.items():
        for one in () if workers else found:
            each.setdefault(decoder_of(name), []).append(one["decode_cpu_s_per_hour"])
            if "soundfile" in one:
                each.setdefault("soundfile", []).append(one["soundfile"]["decode_cpu_s_per_hour"])
    return {decoder: spread(values) for decoder, values in each.items()}


def read_anew(folders: Sequence[Path]) -> None:
    """Let the system forget what it holds of all files, and read them into other pages.

    Where they lie in memory makes some percent, the same for all that follows: rounds are to differ in what one run and
    the next differ in. What another process has mapped stays.
    """
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(1 << 20):
                pass


def costs(name: str, speeds: Speeds) -> dict[str, Any]:
    """What one loader takes."""
    alone = speeds[name, 0]
    found: dict[str, Any] = {"dr_flac": cpu_of(alone)}
    if usual := [one["soundfile"] for one in alone if "soundfile" in one]:
        found["soundfile"] = cpu_of(usual)
    for workers in (0, 2):
        found[f"hours_per_second_{workers}_workers"] = spread(
            [one["hours_per_second"] for one in speeds[name, workers]]
        )
    found["first_batch_s"] = spread([one["first_batch_s"] for one in alone])
    found["peak_mb"] = spread([one["peak_mb"] for one in alone])
    return found


def cpu_of(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the whole, and over the decode."""
    return {
        "cpu_s_per_hour": spread([one["cpu_s_per_hour"] for one in rounds]),
        "overhead_cpu_s_per_hour": spread([one["cpu_s_per_hour"] - one["decode_cpu_s_per_hour"] for one in rounds]),
    }


def delivered(
    name: str, python: Path, work: Path, packed: Path, clips: dict[str, tuple[float, str, int, int]]
) -> dict[str, Any]:
    """What batches one loader makes, and what of an epoch comes, with workers and after a resume."""
    found: dict[str, Any] = {}
    epochs = run(python, "order", name, work, "dr_flac", 0, packed=packed)["epochs"]
    found |= quality(epochs, clips)
    with_workers = run(python, "order", name, work, "dr_flac", 2, packed=packed)["epochs"][0]
    found["two_workers"] = ledger([key for keys, _ in with_workers for key in keys], clips)
    for workers in () if name in WITHOUT_RESUME else (0, 2):
        state = work / name / f"state-{workers}"
        half = run(python, "half", name, work, "dr_flac", workers, str(state), packed=packed)
        rest = run(python, "rest", name, work, "dr_flac", workers, str(state), packed=packed)
        found[f"resumed_{workers}_workers"] = ledger(half["keys"] + rest["keys"], clips) | {
            "state_bytes": half["state_bytes"]
        }
        if workers == 0:
            before = {clips[key][2] for key in half["keys"]}
            found["resumed_0_workers"]["decoded_again"] = sum(one in before for one in rest["decoded_before_first"])
    return found


def asked_of_store(
    name: str, store: from_store.Store | None, python: Path, work: Path, packed: Path, clips: dict[str, Any]
) -> dict[str, Any]:
    """What one loader asks of an object store, in an epoch and after a resume."""

    def measured(case: str, file: Path, told: dict[str, str]) -> dict[str, Any]:
        return run(python, case, name, work, "dr_flac", 0, str(file), packed=packed, told=told)

    if name in WITHOUT_STORE:
        return {"why_not": "reads no store"}
    return from_store.asked(store, work / name, packed if name in OURS else work / name / "data", clips, measured)


def ledger(keys: Sequence[str], clips: dict[str, Any]) -> dict[str, int]:
    """Clips of an epoch that came twice, and those that did not come.

    Where whole epochs came, each clip is due once in each: Energon goes on with a second one after a resume, and its
    workers begin that one by one.
    """
    counts = Counter(keys)
    due = len(keys) // len(clips) if keys and len(keys) % len(clips) == 0 else 1
    return {
        "twice": sum(max(counts[key] - due, 0) for key in clips),
        "lost": sum(max(due - counts[key], 0) for key in clips),
    }


def quality(epochs: Sequence[Epoch], clips: dict[str, tuple[float, str, int, int]]) -> dict[str, float]:
    """What batches waste, over one epoch and the next.

    "filled" is the mean batch over the largest one, padded seconds: a device must have room for the largest. "used" is
    the audio in the mean batch over that room: what both kinds of waste leave, so loaders that are filled differently
    can be compared.
    """
    padded = [len(seconds) * max(seconds) for _, seconds in epochs[0]]
    valid = sum(sum(seconds) for _, seconds in epochs[0])
    met = [{pair for keys, _ in epoch for pair in combinations(sorted(keys), 2)} for epoch in epochs]
    rng = np.random.default_rng(0)
    speakers = np.array([one[1] for one in clips.values()])
    found = [len({clips[key][1] for key in keys}) for keys, _ in epochs[0]]
    uniform = [
        np.mean([len(set(rng.choice(speakers, len(keys), replace=False))) for _ in range(20)]) for keys, _ in epochs[0]
    ]
    return {
        "batches": len(epochs[0]),
        "padding": 1 - valid / sum(padded),
        "filled": sum(padded) / len(padded) / max(padded),
        "used": valid / len(padded) / max(padded),
        "repeated_pairs": len(met[0] & met[1]) / max(len(met[0]), 1),
        "speakers_of_uniform": float(np.sum(found) / np.sum(uniform)),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, range, and the values of the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "each": list(values)}


def run(
    python: Path,
    case: str,
    name: str,
    folder: Path,
    decoder: str,
    workers: int,
    *rest: str,
    packed: Path | None = None,
    told: dict[str, str] | None = None,
) -> dict[str, Any]:
    """One measurement in a process of its own.

    Args:
        told: more variables of its environment.
    """
    ours = name in OURS
    script = [str(sys.executable if ours else python), str(HERE / "measure.py")]
    command = [*script, case, name, str(folder / name), decoder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"PYTHONPATH": str(ROOT), "BENCH_SET": str(packed)} if ours else {}
    environment |= told or {}
    command += [str(workers), *rest]
    # Mosaic Streaming leaves two locks there for each number that a run has taken, and tries those first in the next.
    with TemporaryDirectory(prefix="peers-") as environment["TMPDIR"]:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{name}, {case}, {decoder}, {workers} workers: exit {done.returncode}\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def make_environment(folder: Path = ENVIRONMENT) -> Path:
    """The peers' Python; made where it is not there or its requirements have changed."""
    wanted = hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()
    stamp, python = folder / "installed-for", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {folder}, the environment of the peers (about 6 GB, once)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # pip alone took minutes more to unpack PyTorch
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "uv"], check=True, stdout=sys.stderr)
    install = [str(python), "-m", "uv", "pip", "install", "--python", str(python), "--quiet"]
    wanted_list = ["-r", str(HERE / "requirements.txt")]
    if subprocess.run([*install, *wanted_list], stdout=sys.stderr).returncode:  # its settings are not pip's
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted_list], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return python


def versions(python: Path) -> dict[str, str]:
    """Of the peers."""
    names = ["torch", "webdataset", "lhotse", "litdata", "datasets", "torchdata", "megatron-energon"]
    names += ["mosaicml-streaming", "soundfile", "miniaudio", "numpy"]
    ask = (
        f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {names!r}}}))"
    )
    done = subprocess.run([str(python), "-c", ask], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def plot(found: dict[str, Any], path: Path) -> None:
    """CPU an audio hour at the same decoder: decoding, and what each loader adds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(found["loaders"])[::-1]
    bare = found["bare_decode_cpu_s_per_hour"]
    floor = [bare[INT16 if name == OURS[1] else "dr_flac"]["median"] for name in names]
    added = [found["loaders"][name]["dr_flac"]["overhead_cpu_s_per_hour"] for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.barh(names, floor, color="0.75", label="decoding alone")
    medians = [one["median"] for one in added]
    error = [[one["median"] - one["min"] for one in added], [one["max"] - one["median"] for one in added]]
    axes.barh(names, medians, left=floor, xerr=error, color="tab:blue", label="what the loader adds")
    axes.set_xlabel("CPU seconds an audio hour (dr_flac for all)")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
