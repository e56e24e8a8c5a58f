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
DECODERS = ("dr_flac", "soundfile")
FLOORS = (*DECODERS, INT16)
"""Each loader is held against a bare decode to what it gives: int16 is a pass over the audio less than float32."""

Epoch: TypeAlias = list[tuple[list[str], list[float]]]
"""Keys and seconds of each batch."""


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
    for name in names:
        run(python, "prepare", name, work, str(packed), 0)
    speeds: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for number in range(rounds):
        read_anew([packed, *(work / name for name in names)])
        for decoder in (FLOORS[0], INT16) if timed_only else FLOORS:
            for name, workers in [*((name, 0) for name in names), *((name, 2) for name in names)]:
                if not is_measured(name, decoder, workers):
                    continue
                case = "speed" if workers else "cpu" if decoder == "soundfile" else "speed-cpu"
                floor = [] if workers else [str(packed)]
                found = run(python, case, name, work, decoder, workers, *floor, packed=packed)
                speeds.setdefault((name, decoder, workers), []).append(found)
                print(f"round {number + 1}: {name}, {decoder}, {workers} workers: {found}", file=sys.stderr, flush=True)
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
    with ThreadPoolExecutor(2) as pool:  # nothing is timed from here on
        handed = dict(
            zip(names, pool.map(lambda name: delivered(name, python, work, packed, clips), names), strict=True)
        )
    for name in names:
        found["loaders"][name] |= handed[name]
    for name, asked in asked_of_store(names, python, work, packed, clips).items():
        found["loaders"][name]["store"] = asked
    return found


def bare_decoding(speeds: dict[tuple[str, str, int], list[dict[str, Any]]]) -> dict[str, Any]:
    """CPU seconds an audio hour by each decoder, in the processes of all loaders."""
    each: dict[str, list[float]] = {}
    for (_, decoder, workers), found in speeds.items():
        if not workers:
            each.setdefault(decoder, []).extend(one["decode_cpu_s_per_hour"] for one in found)
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


def is_measured(name: str, decoder: str, workers: int) -> bool:
    """Which of all combinations: each loader with the same decoder, the peers once more with their usual one."""
    if name == OURS[1] or decoder == INT16:
        return (name, decoder) == (OURS[1], INT16)
    return decoder == "dr_flac" or (name != OURS[0] and not workers)


def costs(name: str, speeds: dict[tuple[str, str, int], list[dict[str, Any]]]) -> dict[str, Any]:
    """What one loader takes."""
    found: dict[str, Any] = {}
    same = INT16 if name == OURS[1] else "dr_flac"
    for decoder in FLOORS:
        if mine := speeds.get((name, decoder, 0), []):
            found["soundfile" if decoder == "soundfile" else "dr_flac"] = {
                "cpu_s_per_hour": spread([one["cpu_s_per_hour"] for one in mine]),
                "overhead_cpu_s_per_hour": spread(
                    [one["cpu_s_per_hour"] - one["decode_cpu_s_per_hour"] for one in mine]
                ),
            }
    for workers in (0, 2):
        mine = speeds[name, same, workers]
        found[f"hours_per_second_{workers}_workers"] = spread([one["hours_per_second"] for one in mine])
    found["first_batch_s"] = spread([one["first_batch_s"] for one in speeds[name, same, 0]])
    found["peak_mb"] = spread([one["peak_mb"] for one in speeds[name, same, 0]])
    return found


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
    names: Sequence[str], python: Path, work: Path, packed: Path, clips: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What each loader asks of an object store, in an epoch and after a resume."""

    def measured(case: str, name: str, file: Path, told: dict[str, str]) -> dict[str, Any]:
        return run(python, case, name, work, "dr_flac", 0, str(file), packed=packed, told=told)

    folders = {name: packed if name in OURS else work / name / "data" for name in names if name not in WITHOUT_STORE}
    # with float32 waveforms the requests are the same
    return from_store.measure([name for name in names if name != OURS[1]], folders, clips, work, measured)


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
