"""Loaders leave nothing behind when they end, are abandoned or fail; and a long run does not grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.obstore_client import obstore_process
from chaos.ranged_server import serving
from integration.leaking import (
    WAYS,
    Held,
    held_after_each,
    lasting_slope,
    lowest,
    more_than,
    python_bytes_per_batch,
    resident_bytes_per_batch,
)
from integration.reading import upload
from integration.servers import Rgw
from integration.test_chaos_store import put_files

from s3prl_stream import stream
from s3prl_stream.collate import collate
from s3prl_stream.stores.object_fetches import IO_THREADS

MB = 1e6
BYTES_PER_BATCH = 1 * MB / 10_000
GATEWAY_STEP_MB = 3


def assert_nothing_is_left(found: list[Held], *, is_store: bool = False) -> None:
    """The first loaders may open what stays for the next ones: the fork server, the I/O threads, connections."""
    before, after = lowest(found[:2]), found[2:]
    if is_store:
        before = before._replace(threads=1 + IO_THREADS, sockets=before.sockets + IO_THREADS)
    assert len(after) >= 2
    assert [more_than(one, before) for one in after] == [{}] * len(after)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_loaders_on_a_disk(whole: Path, way: str, workers: int) -> None:
    assert_nothing_is_left(held_after_each({}, whole, workers, way))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_loaders_in_a_store(whole: Path, obstore_child: Callable[..., Any], way: str) -> None:
    with serving() as server:
        found = obstore_child(held_after_each, {}, server.url + put_files(server, whole), 0, way)
    assert_nothing_is_left(found, is_store=True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_loaders_in_the_gateway(rgw: Rgw, whole: Path, way: str, workers: int) -> None:
    with obstore_process() as child:
        child(upload, rgw.environment(), whole, "s3://test/leaks/set")
    with obstore_process() as child:
        found = child(held_after_each, rgw.environment(), "s3://test/leaks/set", workers, way, times=8)
    assert_nothing_is_left(found, is_store=True)


def test_a_leak_would_be_seen(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def leaking_collate(*arguments: Any) -> Any:
        kept.append(bytes(int(BYTES_PER_BATCH)))
        return collate(*arguments)

    monkeypatch.setattr(stream, "collate", leaking_collate)
    assert python_bytes_per_batch(whole, warm_up=100, batches=500, max_batch_seconds=1.0) > BYTES_PER_BATCH


def test_a_leak_lasts_and_a_step_does_not() -> None:
    leak = [(number, 2 * BYTES_PER_BATCH * number) for number in range(0, 10_000, 500)]
    step = [(number, 2 * MB * (number > 3_000)) for number in range(0, 10_000, 500)]
    assert lasting_slope(leak) > BYTES_PER_BATCH > abs(lasting_slope(step))


def test_python_holds_no_more_after_many_batches(whole: Path) -> None:
    assert python_bytes_per_batch(whole, warm_up=200, batches=800, max_batch_seconds=1.0) < BYTES_PER_BATCH


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_stays_over_a_hundred_thousand_batches(whole: Path, workers: int) -> None:
    with obstore_process(seconds=1700) as child:
        growth, samples = child(
            resident_bytes_per_batch,
            {},
            whole,
            workers=workers,
            warm_up=10_000,
            batches=100_000,
            max_batch_seconds=1.0,
        )
    first, last = samples[0][1] / MB, samples[-1][1] / MB
    print(
        f"{workers} workers: {growth * 10_000 / MB:.3f} MB per 10 000 batches, {first:.1f} MB at first, {last:.1f} MB"
    )
    assert growth < BYTES_PER_BATCH


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_stays_over_ten_thousand_batches_of_the_gateway(rgw: Rgw, whole: Path) -> None:
    """In most runs it grows by 2 MB once, at another moment in each."""
    with obstore_process(seconds=1700) as child:
        child(upload, rgw.environment(), whole, "s3://test/leaks/set")
        _, samples = child(
            resident_bytes_per_batch,
            rgw.environment(),
            "s3://test/leaks/set",
            workers=0,
            warm_up=4_000,
            batches=10_000,
            max_batch_seconds=1.0,
        )
    growth = lasting_slope(samples)
    first, last = samples[0][1] / MB, samples[-1][1] / MB
    print(f"store: {growth * 10_000 / MB:.3f} MB per 10 000 batches, {first:.1f} MB at first, {last:.1f} MB")
    assert growth < BYTES_PER_BATCH
    assert last - first < 1 + GATEWAY_STEP_MB
