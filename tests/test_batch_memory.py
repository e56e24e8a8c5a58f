"""Memory of batches: rows begin unwritten and end in zeros, and nothing is used again while anybody holds it."""

from __future__ import annotations

import gc
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from streams import RATE, memory, row_hashes

from s3prl_stream.batch_memory import MOST_KEPT, BatchMemory, Row
from s3prl_stream.loader import Loader
from s3prl_stream.pipes.stage import root_of
from s3prl_stream.stream import ShardStream


def address(rows: list[Row]) -> int:
    return rows[0].tensor.untyped_storage().data_ptr()


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=8), min_size=1, max_size=12), st.data())
def test_rows_end_in_zeros_and_held_ones_stay_as_written(batches: list[list[int]], data: st.DataObject) -> None:
    pool = BatchMemory()
    held: list[tuple[torch.Tensor, int]] = []
    for number, lengths in enumerate(batches, start=1):
        rows = pool.rows(lengths, data.draw(st.sampled_from(["int16", "float32"])))
        assert len(rows) == len(lengths)
        whole = rows[0].tensor.as_strided((len(lengths), max(lengths)), (max(lengths), 1), 0)
        for place, row, length in zip(whole, rows, lengths, strict=True):
            assert len(row.tensor) == len(row.array) == length
            assert not place[length:].any()
            row.array[:] = number
            assert bool((place[:length] == number).all())
            assert row.tensor.data_ptr() == place.data_ptr()
        if data.draw(st.booleans()):
            held.append((torch.as_tensor(rows[0][data.draw(st.integers(0, 1))]), number))  # a part is enough to keep it
        del rows, row, place, whole
        assert all(bool((kept == written).all()) for kept, written in held)


@pytest.mark.parametrize("hold", ["tensor", "numpy view"])
def test_memory_is_used_again_only_when_it_is_free(hold: str) -> None:
    pool = BatchMemory()
    rows = pool.rows([1000, 900], "int16")
    first = address(rows)
    kept = rows[1].tensor[3:5] if hold == "tensor" else rows[1].array[3:5]
    del rows
    gc.collect()
    other = pool.rows([1000, 900], "int16")
    assert address(other) != first
    del kept
    gc.collect()
    assert address(pool.rows([900, 1000], "int16")) == first


def test_it_knows_its_own() -> None:
    pool, other = BatchMemory(), BatchMemory()
    rows = pool.rows([4, 3], "int16")
    kept = rows[1].tensor[1:]
    assert pool.owns(rows[0].tensor)
    assert pool.owns(kept)
    assert not other.owns(kept)
    assert not pool.owns(torch.zeros(4))
    del rows, kept
    gc.collect()
    assert not pool._in_use


def test_it_keeps_a_bounded_number_and_pickles_empty() -> None:
    pool = BatchMemory()
    many = [pool.rows([100], "int16") for _ in range(3 * MOST_KEPT)]
    del many
    gc.collect()
    assert len(pool._free) == MOST_KEPT
    assert not pickle.loads(pickle.dumps(pool))._free


def test_batches_that_are_kept_do_not_change() -> None:
    """A consumer that keeps every batch, and one that lets go of each, are handed the same."""
    stream = ShardStream(memory(np.linspace(0.3, 3.0, 60)), max_batch_seconds=12.0).load_audio(sample_rate=RATE)
    kept = list(itertools.islice(Loader(stream), 60))
    root = root_of(stream)
    assert isinstance(root, ShardStream)
    assert all(root.memory.owns(batch["wav"]) for batch in kept), "decoded in place"
    let_go = [row_hashes(batch) for batch in itertools.islice(Loader(stream), 60)]
    assert [row_hashes(batch) for batch in kept] == let_go
