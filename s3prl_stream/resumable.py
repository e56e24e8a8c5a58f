"""`assert_resumable`: do the batches of a chain follow from their numbers alone? For the tests of one's own stages."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch

from s3prl_stream.errors import UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.pipes.stage import Source, Stage, root_of, stages_of
from s3prl_stream.receipt import Topology
from s3prl_stream.sample import Batch, Sample

TOPOLOGIES = ((1, 0), (1, 2), (2, 0))
"""Ranks and workers. Each ride begins with another one and takes all of them, with a resume between."""

_PLACE_IN_MEMORY = re.compile(r"<[^<>]*(<[^<>]*>[^<>]*)* at 0x[0-9a-f]+>")
"""What Python calls an object that has no other name, such as a lambda."""

Digests: TypeAlias = dict[tuple[str, str], str]
"""(clip, or "" for the whole batch; key of its value) -> hash of the value."""


def assert_resumable(
    stream: Source, *, batches: int = 12, seed: int = 0, multiprocessing_context: str | None = None
) -> None:
    """Check that ranks, workers and resuming change no bit of a chain's batches; for a test with pytest or without.

    The first batches are read by 1 rank without workers. Then they are read three times more, by 1 rank, by 1 rank with
    2 workers and by 2 ranks in turn, with a new loader that resumes from the state of the one before at random points.

    Args:
        stream: a chain on a ShardStream; short clips and small batches make it quick.
        batches: how many of the first global batches are compared.
        seed: of the points at which it is resumed.
        multiprocessing_context: see `Loader`.

    Raises:
        AssertionError: a batch differs. It names the stage that brings the difference into the chain, the batch, the
            clip and the key of the value. Or a stage would be another one in each process, as one with a lambda is.
        UsageError: the stream has fewer than three batches.
    """
    for one in stages_of(stream):
        if (placed := _PLACE_IN_MEMORY.search(one.describe())) is not None:
            raise AssertionError(
                f"stage {one.stage_id!r} has {placed[0]} among its settings, which has no name that holds in another "
                "process: there, states of this chain are refused. Give a function of a module, or an object with a "
                "`fingerprint`."
            )
    expected = dict(itertools.islice(_read(stream, (1, 0), None, multiprocessing_context), batches))
    if len(expected) < 3:
        raise UsageError(
            f"assert_resumable: the stream has {len(expected)} batches, and at least 3 are needed to resume between "
            "them. Lower max_batch_seconds, or raise batches=."
        )
    rides = _rides(len(expected), seed)
    found = _difference(stream, rides, multiprocessing_context, expected)
    if found is None:
        return
    sources: list[Source] = [root_of(stream), *stages_of(stream)]
    fine, differs = -1, len(sources) - 1  # halved until they are neighbours: then it is the second one's doing
    told: _Difference | None = None
    while differs - fine > 1 or told is None:
        middle = (fine + differs) // 2 if differs - fine > 1 else differs
        again = _difference(_Digest()(sources[middle]), rides, multiprocessing_context)
        if again is not None:
            differs, told = middle, again
        elif middle == differs:
            raise AssertionError(_message("the chain (none of its stages when it is tried again)", found))
        else:
            fine = middle
    stage = sources[differs]
    name = f"stage {stage.stage_id!r} ({differs} of {len(sources) - 1})" if isinstance(stage, Stage) else "reading"
    raise AssertionError(_message(name, told))


class _Leg(NamedTuple):
    """A stretch of a ride that one set of loaders reads."""

    topology: tuple[int, int]
    stop: int  # the global batch before which it ends; with several ranks at the end of their round


class _Difference(NamedTuple):
    batch: int
    clip: str
    name: str
    ride: str


def _rides(num_batches: int, seed: int) -> list[list[_Leg]]:
    dice = random.Random(seed)
    rides = []
    for first in range(len(TOPOLOGIES)):
        order = TOPOLOGIES[first:] + TOPOLOGIES[:first]
        stops = [*sorted(dice.sample(range(1, num_batches), len(order) - 1)), num_batches]
        rides.append([_Leg(topology, stop) for topology, stop in zip(order, stops, strict=True)])
    return rides


def _difference(
    chain: Source, rides: list[list[_Leg]], context: str | None, expected: Mapping[int, Digests] | None = None
) -> _Difference | None:
    """The first batch of a ride that differs from that of 1 rank without workers."""
    if expected is None:
        expected = dict(itertools.islice(_read(chain, (1, 0), None, context), rides[0][-1].stop))
    for ride in rides:
        state: dict[str, Any] | None = None
        told = "from the beginning"
        at = 0
        for topology, stop in ride:
            rounds = -(-(stop - at) // topology[0])
            if rounds <= 0:
                continue
            text = f"{Topology(*topology, prefetch=0)} {told}"
            states: list[dict[str, Any]] = []
            for number, digests in _read(chain, topology, state, context, rounds, states):
                if number in expected and (where := _first_of(expected[number], digests)) is not None:
                    return _Difference(number, *where, text)
            state = states[-1]
            at += rounds * topology[0]
            told = f"resumed at batch {at}"
    return None


def _read(
    chain: Source,
    topology: tuple[int, int],
    state: dict[str, Any] | None,
    context: str | None,
    rounds: int | None = None,
    states: list[dict[str, Any]] | None = None,
) -> Iterator[tuple[int, Digests]]:
    """(number, digests) of each batch of all ranks, one rank after the other; in `states` that of each at its end."""
    ranks, workers = topology
    for rank in range(ranks):
        loader = Loader(chain, num_workers=workers, rank=rank, world_size=ranks, multiprocessing_context=context)
        if state is not None:
            loader.load_state_dict(state)
        for batch in itertools.islice(loader, rounds):
            yield batch["batch_index"], _digests(batch)
        if states is not None:
            states.append(json.loads(json.dumps(loader.state_dict())))


class _Digest(Stage):
    """In place of each value of a sample, its hash: what is compared behind any stage, batch or no batch."""

    functional_name: ClassVar[str] = "digest_for_assert_resumable"

    def emit(self, sample: Sample) -> Iterator[Sample]:
        """One sample of its names and the hashes."""
        names = {name: sample[name] for name in ("key", "set", "epoch", "batch_index", "slot", "first_frame")}
        values = {name: value for name, value in sample.items() if name != "decode_into"}
        yield {**names, "digests": {name: _digest(value) for name, value in values.items()}}


def _digests(batch: Batch) -> Digests:
    if "digests" not in batch:
        return {("", name): _digest(value) for name, value in batch.items()}
    found: Digests = {("", "key"): _digest(batch["key"])}
    for row, (clip, digests) in enumerate(zip(batch["key"], batch["digests"], strict=True)):
        found |= {(f"clip {clip!r} (row {row})", name): digest for name, digest in digests.items()}
    return found


def _first_of(expected: Digests, found: Digests) -> tuple[str, str] | None:
    """(clip, name) of the first value that differs, is missing or too much."""
    return next((at for at in {**expected, **found} if expected.get(at) != found.get(at)), None)


def _digest(value: Any) -> str:
    """A hash of every bit of a value, the same in every process."""
    state = hashlib.blake2b(digest_size=8)
    _feed(state, value)
    return state.hexdigest()


def _feed(state: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        state.update(f"{value.dtype} {tuple(value.shape)} ".encode())
        state.update(array.tobytes())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        state.update(f"{value.dtype} {value.shape} ".encode())
        state.update(value.tobytes())
    elif isinstance(value, Mapping):
        state.update(b"{")
        for name in sorted(value, key=str):
            _feed(state, name)
            _feed(state, value[name])
    elif isinstance(value, list | tuple | np.ndarray):
        state.update(f"[{len(value)}".encode())
        for one in value:
            _feed(state, one)
    elif isinstance(value, bytes | memoryview):  # of a clip: a view, where the shard lies on a disk
        state.update(f"bytes {len(value)} ".encode())
        state.update(value)
    elif isinstance(value, str | int | float | bool | np.generic | None):
        state.update(f"{type(value).__name__} {value!r} ".encode())
    else:
        state.update(pickle.dumps(value))


def _message(who: str, found: _Difference) -> str:
    where = f"for {found.clip} of batch {found.batch}" if found.clip else f"for batch {found.batch}"
    return (
        f"{who} gives another {found.name!r} {where} to {found.ride} than to 1 rank x 0 workers. A stage may "
        "depend on its settings, the sample and self.rng(sample): not on a global generator, the clock, a counter, "
        "or what came before."
    )
