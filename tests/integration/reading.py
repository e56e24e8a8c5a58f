"""Sets put into a store and read out of it, in a process of its own (see `chaos.obstore_client.obstore_process`).

with obstore_process() as child:
    child(upload, environment, folder, "s3://test/set")
    found = child(read_epoch, environment, "s3://test/set", workers=2)
    assert found.batches == local_epoch(folder).batches
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock  # to count only: what is called is the real thing

from streams import delivered

import s3prl_stream as ss
from s3prl_stream.plan.planner import EpochPlanner, Position, Step
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stores import object_clients
from s3prl_stream.stores.object_store import ObjectStore
from s3prl_stream.stores.store import open_store

BATCH_SECONDS = 12.0
BLOCK_SAMPLES = 128


class Reading(NamedTuple):
    """What an epoch gave."""

    batches: list[Any]
    """Of each batch its number, and of each row key, epoch, first frame and a hash of the waveform."""
    damaged: list[dict[str, Any]]
    error: str | None
    """Kind and text of the error that ended it."""
    counters: dict[str, int]
    """Of the store, in the main process."""

    @property
    def rows(self) -> set[tuple[Any, ...]]:
        """All that was delivered, whatever its batch."""
        return {row for _, rows in self.batches for row in rows}


def upload(environment: dict[str, str], folder: Path, url: str) -> None:
    """Every file of a folder, the manifest last."""
    os.environ.update(environment)
    store = open_store(url)
    for path in sorted(folder.rglob("*"), key=lambda path: path.name == "manifest.json"):
        if path.is_file():
            store.upload(path, path.relative_to(folder).as_posix())


def read_epoch(
    environment: dict[str, str],
    url: str | Path,
    *,
    workers: int = 0,
    read_timeout: str = "1s",
    ledger: Path | None = None,
    **settings: Any,
) -> Reading:
    """Read one epoch of a set.

    Args:
        environment: variables of the store, for this process and its workers.
        url: of the set.
        workers: processes.
        read_timeout: the longest silence of a server that this process bears; workers keep the usual one.
        ledger: a file that gets a line for every batch as it is handed over.
        settings: of the stream.
    """
    os.environ.update(environment)
    object_clients.CLIENT_OPTIONS["read_timeout"] = read_timeout
    batches: list[Any] = []
    damaged: list[dict[str, Any]] = []
    counters: dict[str, int] = {}
    try:
        shards = ss.open_shards(url)
        counters = shards.members[0].store.counters
        stream = ss.ShardStream(
            shards,
            **{"epochs": 1, "max_batch_seconds": BATCH_SECONDS, "block_samples": BLOCK_SAMPLES, "run": 4, **settings},
        )
        context = "forkserver" if workers else None
        loader = ss.Loader(stream.load_audio(dtype="int16"), num_workers=workers, multiprocessing_context=context)
        damaged = loader.damaged
        for batch in loader:
            batches.append(delivered(batch))
            if ledger is not None:
                with ledger.open("a") as file:
                    file.write(f"{batch['batch_index']}\n")
    except ss.StreamError as error:
        return Reading(batches, damaged, f"{type(error).__name__}: {error}", counters)
    return Reading(batches, damaged, None, counters)


class Start(NamedTuple):
    """What a loader did before it handed over its first batch, and all batches from there on."""

    seconds: float
    index_rows: int
    """Of the blocks that it took batches from."""
    index_bytes: int
    """Of a remote set: manifest and rows, those of the block included that is planned meanwhile."""
    requests: int
    """Of this process, to a remote set."""
    clips: int
    """Read and decoded by this process."""
    batches: list[Any]


def start_at(
    environment: dict[str, str], url: str | Path, state: dict[str, Any] | None, *, workers: int = 0, **settings: Any
) -> Start:
    """Open a set, go on from a state (None: from the beginning), and read the rest of the epoch."""
    os.environ.update(environment)
    counted = Counter[str]()

    def counting(function: Any, name: str, amount: Any) -> Any:
        def counted_function(*arguments: Any, **more: Any) -> Any:
            result = function(*arguments, **more)
            counted[name] += amount(result)
            return result

        return counted_function

    def counting_walk(planner: EpochPlanner, *arguments: Any, **more: Any) -> Iterator[tuple[Position, Step]]:
        for position, step in walk(planner, *arguments, **more):
            counted["rows"] += sum(len(shard.rows.frames) for shard in step.plan.shards)
            yield position, step

    walk = EpochPlanner.walk
    with (
        mock.patch.object(EpochPlanner, "walk", counting_walk),
        mock.patch.object(ShardSet, "read", counting(ShardSet.read, "clips", lambda sample: 1)),
        mock.patch.object(ObjectStore, "read_whole", counting(ObjectStore.read_whole, "bytes", len)),
    ):
        began = time.perf_counter()
        shards = ss.open_shards(url)
        stream = ss.ShardStream(shards, **{"epochs": 1, "run": 4, **settings}).load_audio(dtype="int16")
        context = "forkserver" if workers and shards.members[0].is_remote else None
        loader = ss.Loader(stream, num_workers=workers, multiprocessing_context=context)
        if state is not None:
            loader.load_state_dict(state)
        batches = iter(loader)
        first = next(batches)
        seconds, at_first = time.perf_counter() - began, Counter(counted)
        requests = shards.members[0].store.counters.get("requests", 0)
        rest = [delivered(batch) for batch in (first, *batches)]
    return Start(seconds, at_first["rows"], at_first["bytes"], requests, at_first["clips"], rest)
