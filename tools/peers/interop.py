"""Whether sets go both ways: `tools/bench interop SET --work DIR`.

There: Energon and Lhotse open the packed set by its `.tar.idx`. Back: sets that each of them wrote are indexed where
they lie, and streamed. Compared is each clip's sound, sample for sample, its bytes where both hand them out, and its
text and speaker. NeMo is too heavy for this environment; what stands for it is in tests/shards/test_your_shards.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers.compare import HERE, make_environment

LHOTSE = "2.0.0a7"
"""The first Lhotse with `.tar.idx`; the peers' environment has the released one, which has none."""

Clips = dict[str, dict[str, str]]
"""Key -> hash of its int16 samples ("sound"), of its encoded bytes ("bytes"), text, speaker; what there is of them."""


def interop(packed: Path, work: Path) -> dict[str, Any]:
    """Both ways, for both; a difference is an error that names the clip.

    Args:
        packed: a packed set of FLAC clips.
        work: folder for copies and for the peers' sets; made anew.
    """
    python = make_environment()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    lhotse2 = work / "lhotse2"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(lhotse2)]
    subprocess.run([*install, f"lhotse=={LHOTSE}"], check=True, stdout=sys.stderr)
    ours = streamed(packed, with_bytes=True)
    found: dict[str, Any] = {"clips": len(ours)}
    fields = write_lhotse_fields(packed, work / "cuts")
    there = {
        "Energon opens a packed set": child(python, "energon-opens", packed, work / "energon"),
        "Lhotse opens a packed set": child(python, "lhotse-opens", fields, path=lhotse2),
    }
    for name, clips in there.items():
        found[name] = agree(name, ours, clips)
    found["a batch is as Lhotse's K2SpeechRecognitionDataset gives it"] = same_batches(packed, python, fields, lhotse2)
    wrote = {
        "Energon": child(python, "energon-writes", packed, work / "energon-set"),
        "Lhotse Shar, flac": child(python, "lhotse-writes", packed, work / "shar-flac", "flac"),
        "Lhotse Shar, original": child(python, "lhotse-writes", packed, work / "shar-original", "original"),
        "Lhotse 2 Shar, wav": child(python, "lhotse-writes", packed, work / "shar-2", "wav", path=lhotse2),
    }
    folders = ("energon-set", "shar-flac", "shar-original", "shar-2")
    for (name, clips), folder in zip(wrote.items(), folders, strict=True):
        found[f"a set by {name} is streamed"] = agree(name, clips, indexed(work / folder))
    found["versions"] = {**versions(python), "lhotse with .tar.idx": LHOTSE}
    return found


def same_batches(packed: Path, python: Path, fields: Path, lhotse2: Path) -> dict[str, Any]:
    """`lhotse_batch` of waveforms beside Lhotse's own data set on the same clips: names, types, shapes, values."""
    import s3prl_stream as ss
    from s3prl_stream.batch_shapes import lhotse_batch

    if "text" not in ss.open_shards(packed).columns():
        return {"not compared": "the set has no texts"}
    stream = ss.ShardStream(packed, epochs=1, where="text is not None").load_audio()
    batches = [lhotse_batch(one, inputs="wav") for one in ss.Loader(stream)]
    keys = fields.with_name("batches.json")
    keys.write_text(json.dumps([one["supervisions"].pop("key") for one in batches]))
    theirs = child(python, "lhotse-batches", fields, keys, path=lhotse2)
    for number, one in enumerate(batches):
        mine = {
            name: described(value) for name, value in {**one, **one["supervisions"]}.items() if name != "supervisions"
        }
        if mine != theirs[str(number)]:
            raise AssertionError(f"batch {number}: {mine} here, {theirs[str(number)]} by Lhotse")
    return {"equal": len(batches)}


def described(value: Any) -> Any:
    """A tensor as its type, shape and bytes; all else as it is."""
    if isinstance(value, list):
        return value
    return [str(value.dtype), list(value.shape), digest(value.contiguous().numpy().tobytes())]


def agree(name: str, one: Clips, other: Clips) -> dict[str, Any]:
    """How many clips are equal, and in what; raises at the first that is not."""
    missing = sorted(one.keys() ^ other.keys())
    if missing:
        raise AssertionError(f"{name}: {len(missing)} clips are on one side only, such as {missing[0]}")
    compared: dict[str, int] = {}
    for key, told in one.items():
        for what in told.keys() & other[key].keys():
            if told[what] != other[key][what]:
                raise AssertionError(f"{name}: {key}: {what} is {told[what]!r} and {other[key][what]!r}")
            compared[what] = compared.get(what, 0) + 1
    if compared.get("sound") != len(one):
        raise AssertionError(f"{name}: the sound of {compared.get('sound', 0)} of {len(one)} clips was compared")
    return {"equal": compared}


def streamed(shards: Any, with_bytes: bool = False) -> Clips:
    """What a stream of one epoch delivers."""
    import s3prl_stream as ss

    stream = ss.ShardStream(shards, epochs=1)
    clips: Clips = {}
    if with_bytes:
        clips = {sample["key"]: {"bytes": digest(sample["audio"])} for sample in stream}
    for batch in ss.Loader(stream.load_audio(dtype="int16")):
        for row, key in enumerate(batch["key"]):
            told = clips.setdefault(key, {})
            assert "sound" not in told, f"{key} came twice"
            told["sound"] = digest(batch["wav"][row, : batch["wav_len"][row]].numpy().tobytes())
            told |= {name: str(batch[name][row]) for name in ("text", "speaker") if name in batch}
    return clips


def indexed(folder: Path) -> Clips:
    """A set of others, indexed in place as a user would, and streamed with two ranks whose clips are put together."""
    import s3prl_stream as ss

    shards = ss.index_shards(folder)
    clips = streamed(shards)
    seen = [
        key
        for rank in range(2)
        for batch in ss.Loader(ss.ShardStream(shards, epochs=1), rank=rank, world_size=2)
        for key in batch["key"]
    ]
    assert sorted(seen) == sorted(clips), "two ranks do not deliver what one does"
    return clips


def digest(data: Any) -> str:
    """Of bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def write_lhotse_fields(packed: Path, folder: Path) -> Path:
    """The cuts of a packed set, and a file that says where they and the tars are."""
    from s3prl_stream.shards.lhotse_cuts import write_lhotse_cuts

    path = folder / "fields.json"
    fields = write_lhotse_cuts(packed, folder)
    path.write_text(json.dumps(fields))
    return path


def child(python: Path, *words: Any, path: Path | None = None) -> Clips:
    """One task in the environment of the peers."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, HERE.parent))))}
    command = [str(python), "-m", "peers.interop_task", *map(str, words)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def versions(python: Path) -> dict[str, str]:
    """Of those that take part."""
    names = ["lhotse", "megatron-energon", "webdataset", "soundfile"]
    ask = f"import json; from importlib.metadata import version as v; print(json.dumps({{n: v(n) for n in {names!r}}}))"
    return dict(json.loads(subprocess.run([str(python), "-c", ask], check=True, capture_output=True).stdout))
