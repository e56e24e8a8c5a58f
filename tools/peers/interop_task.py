"""The peers' side of `interop.py`: one task a process, in their environment; the last line is what was found."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import soundfile

from peers.clips import read_clips

SHARD = 64


def main() -> None:
    """Run the task that the command line names."""
    tasks = {
        "energon-opens": energon_opens,
        "energon-writes": energon_writes,
        "lhotse-batches": lhotse_batches,
        "lhotse-opens": lhotse_opens,
        "lhotse-writes": lhotse_writes,
    }
    print(json.dumps(tasks[sys.argv[1]](*sys.argv[2:])))


def energon_opens(packed: str, folder: str) -> dict[str, Any]:
    """A copy of a packed set, with Energon's metadata, read by our `.tar.idx`, which `prepare` would replace."""
    copied = Path(folder)
    copied.mkdir(parents=True)
    for tar in sorted(Path(packed).glob("*.tar")):
        shutil.copy(tar, copied)
    _prepare(copied)
    for index in sorted(Path(packed).glob("*.tar.idx")):
        theirs = copied / index.name
        ours = index.read_bytes()
        assert theirs.read_bytes()[:-8] == ours[:-8], f"{index.name}: other offsets than Energon's own"
        theirs.write_bytes(ours)
    return _energon_reads(copied)


def energon_writes(packed: str, folder: str) -> dict[str, Any]:
    """Tars by webdataset's writer, prepared by Energon, with a split, read by Energon."""
    import webdataset

    made = Path(folder)
    made.mkdir(parents=True)
    with webdataset.ShardWriter(str(made / "part-%04d.tar"), maxcount=SHARD, verbose=0) as writer:
        for clip in read_clips(Path(packed)):
            about = {"speaker": clip.speaker, "text": f"text of {clip.key}"}
            writer.write({"__key__": clip.key, "flac": clip.flac, "json": about})
    _prepare(made)
    return _energon_reads(made)


def _prepare(folder: Path) -> None:
    command = [str(Path(sys.executable).parent / "energon"), "prepare", "--non-interactive", "--split-ratio", "1,0,0"]
    command += ["--sample-type", "CrudeWebdataset", "--num-workers", "1", "--no-progress", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _energon_reads(folder: Path) -> dict[str, Any]:
    """By its loader, as training would, in its shuffled order: it seeks by the offsets."""
    from megatron import energon

    from peers.interop_energon import RawEncoder

    config = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = energon.get_train_dataset(
        folder,
        worker_config=config,
        batch_size=1,
        shuffle_buffer_size=None,
        max_samples_per_sequence=10,
        task_encoder=RawEncoder(),
        repeat=False,
    )
    found: dict[str, Any] = {}
    for batch in energon.get_loader(dataset):
        for key, flac, about in batch.clips:
            assert key not in found, f"{key} came twice"
            found[key] = {"sound": _sound(flac), "bytes": _digest(flac)}
            found[key] |= {name: str(about[name]) for name in ("text", "speaker") if name in about}
    return found


def lhotse_opens(fields: str) -> dict[str, Any]:
    """A packed set where it lies: the place of each recording comes from our `.tar.idx` alone."""
    from lhotse import CutSet
    from lhotse.shar.readers.indexed import LazyIndexedSharIterator

    named = json.loads(Path(fields).read_text())
    before = {tar: Path(f"{tar}.idx").read_bytes() for tar in named["recording"]}
    found = _lhotse_reads(CutSet(LazyIndexedSharIterator(fields=named, lazy=True)))
    assert all(Path(f"{tar}.idx").read_bytes() == index for tar, index in before.items()), "an index was written anew"
    return found


def lhotse_batches(fields: str, keys: str) -> dict[str, Any]:
    """What Lhotse's own data set makes of the clips of some batches."""
    from lhotse import CutSet
    from lhotse.dataset import K2SpeechRecognitionDataset
    from lhotse.dataset.input_strategies import AudioSamples
    from lhotse.shar.readers.indexed import LazyIndexedSharIterator

    from peers.interop import described

    cuts = {cut.id: cut for cut in LazyIndexedSharIterator(fields=json.loads(Path(fields).read_text()), lazy=True)}
    dataset = K2SpeechRecognitionDataset(input_strategy=AudioSamples())
    found = {}
    for number, batch in enumerate(json.loads(Path(keys).read_text())):
        one = dataset[CutSet.from_cuts(cuts[key] for key in batch)]
        told = {"inputs": one["inputs"], **one["supervisions"]}
        found[str(number)] = {name: described(value) for name, value in told.items()}
    return found


def lhotse_writes(packed: str, folder: str, codec: str) -> dict[str, Any]:
    """A Shar by Lhotse's own writer; the cuts' names have dots, as Lhotse allows."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
    from lhotse.shar import SharWriter

    Path(folder).mkdir(parents=True)
    with SharWriter(folder, fields={"recording": codec}, shard_size=SHARD) as writer:
        for clip in read_clips(Path(packed)):
            recording = Recording.from_bytes(clip.flac, recording_id=clip.key)
            name = f"{clip.key}.{len(clip.flac)}"
            cut = MonoCut(id=name, start=0, duration=recording.duration, channel=0, recording=recording)
            about = {"text": f"text of {clip.key}", "speaker": clip.speaker}
            cut.supervisions = [SupervisionSegment(name, clip.key, 0, recording.duration, **about)]
            writer.write(cut)
    found = _lhotse_reads(CutSet.from_shar(in_dir=folder))
    return {name.replace(".", "%2E"): told for name, told in found.items()}  # as keys are escaped here


def _lhotse_reads(cuts: Any) -> dict[str, Any]:
    found = {}
    for cut in cuts:
        wav = cut.load_audio()[0]
        (supervision,) = cut.supervisions
        found[cut.id] = {"sound": _digest((wav * 32768.0).round().astype("int16").tobytes())}
        found[cut.id] |= {
            name: str(value)
            for name, value in (("text", supervision.text), ("speaker", supervision.speaker))
            if value is not None
        }
    return found


def _sound(flac: bytes) -> str:
    return _digest(soundfile.read(io.BytesIO(flac), dtype="int16")[0].tobytes())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


if __name__ == "__main__":
    main()
