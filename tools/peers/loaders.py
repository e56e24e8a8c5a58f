"""The peers, each as its documentation would have it used for clips of speech, by one interface.

`write` makes a loader's own format out of the clips; `batches` gives one epoch. A loader that can be resumed has
`state` (after some batches) and accepts it again; all states are picklable.
"""

from __future__ import annotations

import abc
import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peers import clips
from peers.clips import BUDGET_SECONDS, SAMPLE_RATE, Batch, Clip, clips_per_batch, decode, pad
from peers.remote import remote

SEED = 7
SHARD = 64
"""Clips in a shard: small ones, so that workers and shuffling have several."""
BUFFER = 128
"""Clips in a shuffle buffer, for loaders that have one: about a quarter of a small set."""


class Peer(abc.ABC):
    """One loader on one folder of its own data.

    Args:
        folder: where `write` has put it.
        decoder: "soundfile" or "dr_flac".
        num_workers: processes that load.
    """

    resumes = True
    """Whether it documents how to go on in the middle of an epoch."""

    def __init__(self, folder: Path, decoder: str, num_workers: int) -> None:
        self.folder = folder / "data"
        self.remote = remote()
        """Where the same data lies in a store, if it is to be read from there."""
        self.decoder = decoder
        self.num_workers = num_workers
        about = json.loads((folder / "about.json").read_text())
        self.count = int(about["clips_per_batch"])
        self.num_clips = int(about["num_clips"])

    @classmethod
    def prepare(cls, clips: Sequence[Clip], folder: Path) -> None:
        """Write the clips once; what is there is used again."""
        if (folder / "about.json").exists():
            return
        (folder / "data").mkdir(parents=True)
        cls.write(clips, folder / "data")
        about = {"clips_per_batch": clips_per_batch(clips), "num_clips": len(clips)}
        (folder / "about.json").write_text(json.dumps(about))

    @classmethod
    @abc.abstractmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """Make the loader's own format."""

    @abc.abstractmethod
    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """One epoch, shuffled, or what is left of it after `state`."""

    def shards(self, pattern: str) -> list[str]:
        """Paths of its files, or their addresses in the store."""
        where = self.folder if self.remote is None else self.remote.http
        return [f"{where}/{path.name}" for path in sorted(self.folder.glob(pattern))]

    def state(self) -> Any:
        """Where it stands, after the last batch that was handed over."""
        raise TypeError(f"{type(self).__name__} has no resume")


class Files(Peer):
    """A folder of files, a list of them, and torch's DataLoader: what S3PRL and most recipes do."""

    resumes = False

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """One file a clip."""
        for clip in clips:
            (folder / f"{clip.key}.flac").write_bytes(clip.flac)

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """Random batches of a fixed number of clips."""
        import torch

        loader = torch.utils.data.DataLoader(
            _FileList(sorted(self.folder.glob("*.flac")), self.decoder),
            batch_size=self.count,
            shuffle=True,
            generator=torch.Generator().manual_seed(SEED + epoch),
            num_workers=self.num_workers,
            collate_fn=_pad_pairs,
        )
        yield from loader


class _FileList:
    def __init__(self, paths: list[Path], decoder: str) -> None:
        self.paths = paths
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        return self.paths[index].stem, decode(self.paths[index].read_bytes(), self.decoder)


def _pad_pairs(pairs: Sequence[tuple[str, Any]]) -> Batch:
    return pad([key for key, _ in pairs], [wav for _, wav in pairs])


class WebDataset(Peer):
    """webdataset: shards in random order, a shuffle buffer, batches by number in each worker."""

    resumes = False

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """ShardWriter, small shards, so that every worker has some."""
        import webdataset

        with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=SHARD, verbose=0) as writer:
            for clip in clips:
                writer.write({"__key__": clip.key, "flac": clip.flac, "json": {"speaker": clip.speaker}})

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """The pipeline of its documentation."""
        import webdataset

        random.seed(SEED + epoch)
        dataset = (
            webdataset.WebDataset(self.shards("*.tar"), shardshuffle=1000, seed=SEED + epoch, empty_check=False)
            .shuffle(BUFFER)
            .to_tuple("__key__", "flac")
            .map(_Decode(self.decoder))
            .batched(self.count, collation_fn=_pad_pairs)
        )
        yield from webdataset.WebLoader(dataset, batch_size=None, num_workers=self.num_workers)


class _Decode:
    def __init__(self, decoder: str) -> None:
        self.decoder = decoder

    def __call__(self, pair: tuple[str, bytes]) -> tuple[str, Any]:
        return pair[0], decode(pair[1], self.decoder)


class LhotseShar(Peer):
    """Lhotse Shar with DynamicBucketingSampler: its documented recipe for large data.

    With workers, the recipe gives each the whole data under a seed of its own and is meant to run without epochs; here
    shards are split among workers (`split_for_dataloading=True`), which is what its documentation has for one epoch.
    """

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """SharWriter with the original FLAC bytes, small shards."""
        from lhotse import MonoCut, Recording, SupervisionSegment
        from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
        from lhotse.shar import SharWriter

        cuts = []
        with SharWriter(folder, fields={"recording": "original"}, shard_size=SHARD) as writer:
            for clip in clips:
                recording = Recording.from_bytes(clip.flac, recording_id=clip.key)
                cut = MonoCut(id=clip.key, start=0, duration=recording.duration, channel=0, recording=recording)
                cut.supervisions = [SupervisionSegment(clip.key, clip.key, 0, recording.duration, speaker=clip.speaker)]
                writer.write(cut)
                cuts.append(cut)
        bins = estimate_duration_buckets(cuts, num_buckets=30)
        (folder.parent / "bins.json").write_text(json.dumps(list(map(float, bins))))

    def _loader(self, epoch: int) -> Any:
        import torch
        from lhotse import CutSet
        from lhotse.dataset import DynamicBucketingSampler
        from lhotse.dataset.iterable_dataset import IterableDatasetWrapper

        place: dict[str, Any] = {"in_dir": self.folder}
        if self.remote is not None:
            cuts = [f"pipe:curl -s {url} | gunzip -c -" for url in self.shards("cuts.*.jsonl.gz")]
            recordings = [f"pipe:curl -s {url}" for url in self.shards("recording.*.tar")]
            place = {"fields": {"cuts": cuts, "recording": recordings}}
        cut_set = CutSet.from_shar(
            **place,
            shuffle_shards=True,
            stateful_shuffle=True,
            seed=SEED,
            split_for_dataloading=self.num_workers > 1,
        )
        sampler = DynamicBucketingSampler(
            cut_set,
            max_duration=BUDGET_SECONDS,
            shuffle=True,
            # known beforehand, as for large data: to find them, the sampler would read a small set twice
            duration_bins=json.loads((self.folder.parent / "bins.json").read_text()),
            seed=SEED,
            rank=0,
            world_size=1,
        )
        sampler.set_epoch(epoch)
        if self.num_workers == 0:
            return torch.utils.data.DataLoader(_LhotseBatch(self.decoder), sampler=sampler, batch_size=None), sampler
        dataset = IterableDatasetWrapper(_LhotseBatch(self.decoder), sampler)
        return torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=self.num_workers), sampler

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """One epoch of the sampler."""
        loader, self._sampler = self._loader(epoch)
        if state is not None:
            self._sampler.load_state_dict(state)
        yield from loader

    def state(self) -> Any:
        """The sampler's; with workers it lives in them, and there is none to ask."""
        return self._sampler.state_dict()


class _LhotseBatch:
    def __init__(self, decoder: str) -> None:
        self.decoder = decoder

    def __getitem__(self, cuts: Any) -> Batch:
        from peers import lhotse_audio

        lhotse_audio.use(self.decoder)
        return pad([cut.id for cut in cuts], [cut.load_audio()[0] for cut in cuts])


class LitData(Peer):
    """LitData: its own chunks of 64 MB, StreamingDataset and StreamingDataLoader."""

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """`optimize` with one worker; the clips come from a folder beside it."""
        import litdata

        source = folder / "source"
        source.mkdir()
        for clip in clips:
            (source / f"{clip.key}.flac").write_bytes(clip.flac)
        litdata.optimize(
            fn=_lit_sample,
            inputs=sorted(map(str, source.glob("*.flac"))),
            output_dir=str(folder / "chunks"),
            chunk_bytes="8MB",
            num_workers=1,
            verbose=False,
        )

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """One epoch."""
        import litdata

        place: dict[str, Any] = {"input_dir": str(self.folder / "chunks")}
        if self.remote is not None:
            place = {"input_dir": f"{self.remote.s3}/chunks", "cache_dir": self.remote.cache}
            place["storage_options"] = self.remote.s3_options()
            # its client has no option for http without TLS, which the store on loopback speaks
            litdata.streaming.downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
        dataset = litdata.StreamingDataset(**place, shuffle=True, seed=SEED, drop_last=False)
        self._loader = litdata.StreamingDataLoader(
            dataset, batch_size=self.count, num_workers=self.num_workers, collate_fn=_LitBatch(self.decoder)
        )
        self._loader.current_epoch = epoch
        if state is not None:
            self._loader.load_state_dict(state)
        yield from self._loader

    def state(self) -> Any:
        """The loader's."""
        return self._loader.state_dict()


def _lit_sample(path: str) -> dict[str, Any]:
    return {"key": Path(path).stem, "flac": Path(path).read_bytes()}


class _LitBatch:
    def __init__(self, decoder: str) -> None:
        self.decoder = decoder

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        return pad([row["key"] for row in rows], [decode(row["flac"], self.decoder) for row in rows])


class HuggingFace(Peer):
    """datasets, streaming from Parquet, with a shuffle buffer."""

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """Small Parquet files."""
        import datasets

        for first in range(0, len(clips), SHARD):
            part = clips[first : first + SHARD]
            rows = {"key": [clip.key for clip in part], "flac": [clip.flac for clip in part]}
            datasets.Dataset.from_dict(rows).to_parquet(str(folder / f"{first:06d}.parquet"))

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """One epoch through torchdata's StatefulDataLoader, as its documentation says for resuming."""
        import datasets
        from torchdata.stateful_dataloader import StatefulDataLoader

        # a pause of 7 s once an epoch, at the end of its threads: much of an hour and a half, nothing of a real epoch
        datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
        more: dict[str, Any] = {"cache_dir": None if self.remote is None else self.remote.cache}
        files = self.shards("*.parquet")
        rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True, **more)
        rows = rows.shuffle(seed=SEED, buffer_size=BUFFER)
        rows.set_epoch(epoch)
        self._loader = StatefulDataLoader(
            rows, batch_size=self.count, num_workers=self.num_workers, collate_fn=_LitBatch(self.decoder)
        )
        if state is not None:
            self._loader.load_state_dict(state)
        yield from self._loader

    def state(self) -> Any:
        """The loader's."""
        return self._loader.state_dict()


class Mosaic(Peer):
    """Mosaic Streaming: MDS shards and StreamingDataset with py1e shuffling."""

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """MDSWriter, 8 MB a shard."""
        import streaming

        columns = {"key": "str", "flac": "bytes"}
        with streaming.MDSWriter(columns=columns, out=str(folder / "mds"), size_limit=2**23) as writer:
            for clip in clips:
                writer.write({"key": clip.key, "flac": clip.flac})

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """One epoch."""
        import streaming

        if not hasattr(self, "_loader"):
            streaming.base.util.clean_stale_shared_memory()
            place = {"local": str(self.folder / "mds")}
            if self.remote is not None:
                os.environ["S3_ENDPOINT_URL"] = self.remote.endpoint
                place = {"remote": f"{self.remote.s3}/mds", "local": self.remote.cache}
            dataset = streaming.StreamingDataset(**place, shuffle=True, shuffle_seed=SEED, batch_size=self.count)
            self._loader = streaming.StreamingDataLoader(dataset, batch_size=self.count, num_workers=self.num_workers)
        self._loader.collate_fn = _LitBatch(self.decoder)
        if state is not None:
            self._loader.load_state_dict(state)
        yield from self._loader

    def state(self) -> Any:
        """The loader's."""
        return self._loader.state_dict()


class Energon(Peer):
    """Megatron-Energon on WebDataset tars, its savable loader, batches by number."""

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """The tars of webdataset, prepared in place."""
        import webdataset
        from megatron.energon.flavors import BaseWebdatasetFactory

        with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=SHARD, verbose=0) as writer:
            for clip in clips:
                writer.write({"__key__": clip.key, "flac": clip.flac, "json": {"speaker": clip.speaker}})
        shards = [path.name for path in sorted(folder.glob("*.tar"))]
        BaseWebdatasetFactory.prepare_dataset(folder, shards, split_parts_ratio=[("train", 1.0)], workers=1)
        (folder / ".nv-meta" / "dataset.yaml").write_text(
            "__module__: megatron.energon\n__class__: CrudeWebdataset\nsubflavors: {}\n"
        )

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """One pass over the data (`repeat=False`)."""
        from megatron import energon

        from peers.energon_task import ClipEncoder

        config = energon.WorkerConfig(rank=0, world_size=1, num_workers=self.num_workers, seed_offset=epoch)
        dataset = energon.get_train_dataset(
            self.folder if self.remote is None else self.remote.msc_path(),
            worker_config=config,
            batch_size=self.count,
            shuffle_buffer_size=BUFFER,
            max_samples_per_sequence=100,
            task_encoder=ClipEncoder(self.decoder),
            repeat=False,
        )
        self._loader = energon.get_savable_loader(dataset, checkpoint_every_sec=0, checkpoint_every_min_n_samples=1)
        if state is not None:
            self._loader.restore_state_rank(state)
        for batch in self._loader:
            yield batch.batch

    def state(self) -> Any:
        """Of this rank."""
        return self._loader.save_state_rank()


class Ours(Peer):
    """s3prl_stream, on the packed set itself."""

    dtype = "float32"

    @classmethod
    def write(cls, clips: Sequence[Clip], folder: Path) -> None:
        """Nothing: the clips come from the packed set."""

    def batches(self, epoch: int, state: Any = None) -> Iterator[Batch]:
        """One epoch."""
        if not self.decoder.startswith("dr_flac"):
            raise ValueError("s3prl_stream decodes whole FLAC files with dr_flac")
        if not hasattr(self, "_loader"):
            import s3prl_stream as ss
            from s3prl_stream.audio import decode as decoding

            if clips.decoded is not None:
                decoding.decode = _noted(decoding.decode)
            place = os.environ["BENCH_SET"] if self.remote is None else self.remote.s3
            # an endless stream would read the next epoch's first batches ahead, which the store would count
            epochs = None if self.remote is None else 1
            stream = ss.ShardStream(place, seed=SEED, epochs=epochs, max_batch_seconds=BUDGET_SECONDS)
            self._loader = ss.Loader(stream.load_audio(dtype=self.dtype), num_workers=self.num_workers)
            if state is not None:
                self._loader.load_state_dict(state)
            self._running = iter(self._loader)
            self._ends = [0]
        if self.remote is not None:
            for batch in self._running:
                yield Batch(batch["key"], (batch["wav_len"] / SAMPLE_RATE).tolist(), batch["wav"])
            return
        while len(self._ends) < epoch + 2:
            self._ends.append(self._ends[-1] + self._loader.batches_in_epoch(len(self._ends) - 1))
        while self._loader.state_dict()["next_batch"] < self._ends[epoch + 1]:
            batch = next(self._running)
            yield Batch(batch["key"], (batch["wav_len"] / SAMPLE_RATE).tolist(), batch["wav"])

    def state(self) -> Any:
        """The cursor."""
        return self._loader.state_dict()


def _noted(original: Any) -> Any:
    def decode_and_note(data: Any, codec: str, **settings: Any) -> Any:
        clips.note(data)
        return original(data, codec, **settings)

    return decode_and_note


class OursInt16(Ours):
    """The same, with int16 waveforms."""

    dtype = "int16"


PEERS: dict[str, type[Peer]] = {
    "s3prl_stream": Ours,
    "s3prl_stream, int16": OursInt16,
    "files + DataLoader": Files,
    "webdataset": WebDataset,
    "Lhotse Shar": LhotseShar,
    "LitData": LitData,
    "HF datasets": HuggingFace,
    "Energon": Energon,
    "Mosaic Streaming": Mosaic,
}
"""In the order of the table."""
