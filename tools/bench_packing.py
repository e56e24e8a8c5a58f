"""The cases `pack` and `pack-plan` of tools/bench."""

from __future__ import annotations

import io
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RATE = 16_000
AUDIO = (".flac", ".wav")

SHAR = """
import sys, time, json
from pathlib import Path
import soundfile
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource
from lhotse.shar import SharWriter
from lhotse.audio.backend import LibsndfileBackend, set_current_audio_backend

set_current_audio_backend(LibsndfileBackend())
jobs, out = json.loads(sys.stdin.read()), sys.argv[1]
def cut(key, path):
    info = soundfile.info(path)
    source = AudioSource(type="file", channels=[0], source=path)
    recording = Recording(key, [source], info.samplerate, info.frames, info.duration)
    return MonoCut(id=key, start=0, duration=info.duration, channel=0, recording=recording)
began = time.process_time()
with SharWriter(out, fields={"recording": "flac"}, shard_size=2000) as writer:
    for key, path in jobs:
        one = cut(key, path)
        writer.write(one if one.sampling_rate == 16000 else one.resample(16000))
print(time.process_time() - began)
"""

PLAN = """
import json, resource, sys, tempfile, time
from pathlib import Path
import numpy, pyarrow, pyarrow.parquet, soundfile
import s3prl_stream as ss
from s3prl_stream.packing.listing import list_utterances
from s3prl_stream.packing.packplan import make_plan
from s3prl_stream.packing.settings import PackSettings
from s3prl_stream.shards.workers import Workers

files, number = json.loads(sys.stdin.read()), int(sys.argv[1])
def corpus():
    for n in range(number):
        path, frames = files[n * len(files) // number]
        start = n % 100 * frames / 16000 / 200
        yield ss.Utterance(f"recording-{n:08d}", path, start, start + 0.2 + n % 1000 / 2000,
                           speaker=f"s{n % 5000}", text="what was said " * (n % 7), split="train")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
before, began, cpu = peak(), time.perf_counter(), time.process_time()
with tempfile.TemporaryDirectory() as folder, Workers(0) as workers:
    listing = list_utterances(corpus(), Path(folder, "list"), lambda done: None)
    listed = time.perf_counter() - began
    plan = make_plan(listing, Path(folder), "set", PackSettings(shard_mb=20), workers, lambda done, total: None)
    size = Path(folder, "plan.arrow").stat().st_size
print(json.dumps({
    "utterances": number, "clips": sum(plan.clips), "shards": len(plan.clips),
    "listing_s": round(listed, 1), "seconds": round(time.perf_counter() - began, 1),
    "cpu_s": round(time.process_time() - cpu, 1), "memory_mb": round(peak() - before), "plan_mb": round(size / 1e6),
}))
"""


def bench_pack(folder: Path, rounds: int, repeat: int, peers: Path | None) -> dict[str, Any]:
    """Audio hours a CPU second (user and system) of every way to pack the same files, in interleaved rounds."""
    import soundfile

    paths = [str(path) for path in sorted(folder.rglob("*")) if path.suffix in AUDIO]
    jobs = [(f"{number:02d}-{Path(path).stem}", path) for number in range(repeat) for path in paths]
    hours = repeat * sum(soundfile.info(path).duration for path in paths) / 3600
    ways: dict[str, Callable[[Path], float | None]] = {
        "bare_encoder": lambda _: bare(jobs),
        "s3prl_stream": lambda out: ours(jobs, out),
        "webdataset": lambda out: by_webdataset(jobs, out),
    }
    if peers is not None:
        python = python_with(peers, "lhotse")
        ways["lhotse_shar"] = lambda out: by_lhotse(python, jobs, out)
    copying: dict[str, Callable[[Path], float | None]] = {
        "tar": lambda out: by_tar(jobs, out),
        "s3prl_stream_original": lambda out: ours(jobs, out, codec="original", decode=False),
    }
    found: dict[str, list[float]] = {name: [] for name in (*ways, *copying)}
    for number in range(rounds + 1):  # the first warms up
        for name, way in (*ways.items(), *copying.items()):
            seconds = cpu_seconds(way)
            if number:
                found[name].append(hours / seconds)

    def over(name: str, base: str) -> list[float]:
        return sorted(round(one / other, 3) for one, other in zip(found[name], found[base], strict=True))

    packed, copied = over("s3prl_stream", "bare_encoder"), over("s3prl_stream_original", "tar")
    return {
        "files": len(jobs),
        "hours": round(hours, 2),
        "hours_per_cpu_s": {name: round(statistics.median(values), 3) for name, values in found.items()},
        "packing_of_bare_encoder": statistics.median(packed),
        "packing_ratios": packed,
        "copying_of_tar": statistics.median(copied),
        "copying_ratios": copied,
        "webdataset_of_bare_encoder": statistics.median(over("webdataset", "bare_encoder")),
    }


def bench_pack_plan(folder: Path, number: int) -> dict[str, Any]:
    """Planning stretches of the files of a folder, in a process of its own; and a header, which is read once a file."""
    import soundfile

    from s3prl_stream.audio.source import probe

    paths = [str(path) for path in sorted(folder.rglob("*")) if path.suffix in AUDIO]
    long_enough = [path for path in paths if soundfile.info(path).duration > 4]
    jobs = [(path, soundfile.info(path).frames) for path in long_enough]
    began = time.process_time()
    for path in paths:
        probe(path)
    header_us = (time.process_time() - began) / len(paths) * 1e6
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(number)], input=json.dumps(jobs), cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return {**json.loads(done.stdout), "files": len(jobs), "header_cpu_us_per_file": round(header_us, 1)}


def cpu_seconds(way: Callable[[Path], float | None]) -> float:
    """Of this process and of those that it ran, unless the way says it itself."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        began = _cpu()
        said = way(Path(folder) / "set")
        return said if said is not None else _cpu() - began


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def encoded(jobs: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Decode, resample where needed, encode as FLAC: with the same libraries, and nothing else."""
    import soundfile
    import soxr

    for key, path in jobs:
        wav, rate = soundfile.read(path, dtype="int16")
        if rate != RATE:
            wav = soxr.resample(wav, rate, RATE, quality="HQ")
        file = io.BytesIO()
        soundfile.write(file, wav, RATE, format="FLAC", subtype="PCM_16")
        yield key, file.getvalue()


def bare(jobs: list[tuple[str, str]]) -> None:
    """The floor: nothing is written."""
    for _ in encoded(jobs):
        pass


def ours(jobs: list[tuple[str, str]], out: Path, **settings: Any) -> None:
    """`pack` in this process: headers, plan, decoding, checks, measures, encoding, shards, index, manifest."""
    from s3prl_stream.packing.pack import pack_set
    from s3prl_stream.packing.settings import PackSettings
    from s3prl_stream.sample import Utterance

    pack_set((Utterance(key, path, speaker=key[-4:]) for key, path in jobs), out, PackSettings(**settings))


def by_webdataset(jobs: list[tuple[str, str]], out: Path) -> None:
    """The same bytes through `webdataset.ShardWriter`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        out.mkdir()
        with webdataset.ShardWriter(f"{out}/set-%06d.tar", maxsize=512e6, verbose=0) as writer:
            for key, flac in encoded(jobs):
                writer.write({"__key__": key, "flac": flac, "json": {"speaker": key[-4:]}})


def by_tar(jobs: list[tuple[str, str]], out: Path) -> None:
    """`tar` of the same list of files, as often as they are listed."""
    listing = out.with_suffix(".txt")
    listing.write_text("\n".join(path for _, path in jobs))
    subprocess.run(["tar", "cPf", f"{out}.tar", "--hard-dereference", "-T", str(listing)], check=True)


def by_lhotse(python: Path, jobs: list[tuple[str, str]], out: Path) -> float:
    """CPU seconds of Lhotse's `SharWriter`, without its imports."""
    out.mkdir()
    command = [str(python), "-W", "ignore", "-c", SHAR, str(out)]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"tools/bench: Lhotse failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def python_with(folder: Path, *packages: str) -> Path:
    """The Python of an environment that has packages on top of those of this one; they are installed once."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {', '.join(packages)} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "this_environment.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", "utf-8")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "installed").touch()
    return python
