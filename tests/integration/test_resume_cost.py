"""What a resume costs, in counters and not in seconds: as much as a fresh start, anywhere in an epoch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.obstore_client import obstore_process
from chaos.ranged_server import serving
from damage import Row, rows_of
from integration.reading import Start, start_at, upload
from integration.servers import Rgw
from integration.test_chaos_store import put_files
from tars import noise_files

import s3prl_stream as ss
from s3prl_stream.chaos import ChaosProxy
from s3prl_stream.stores.coalesce import MAX_GAP_BYTES

NUM_CLIPS, SHARDS_IN_BLOCK, CLIPS_IN_SHARD = 120, 3, 8
ONE_BLOCK = SHARDS_IN_BLOCK * CLIPS_IN_SHARD
STREAM = {"max_batch_seconds": 20.0, "block_samples": ONE_BLOCK, "seed": 1}
MOMENTS = [0.1, 0.5, 0.9]


@pytest.fixture(scope="module")
def large_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 shards of 8 clips, each clip larger than the gap that one request may bridge."""
    folder = noise_files(tmp_path_factory.mktemp("resume"), NUM_CLIPS, 140_000, suffix="wav")
    ss.pack(ss.corpora.folder(folder), folder / "set", name="set", shard_mb=2.3, codec="wav")
    rows = rows_of(folder / "set")
    assert min(row.size for row in rows) > MAX_GAP_BYTES
    assert len({row.shard for row in rows}) == NUM_CLIPS / CLIPS_IN_SHARD
    return folder / "set"


@pytest.fixture(scope="module")
def fresh(large_clips: Path) -> Start:
    return start_at({}, large_clips, None, **STREAM)


@pytest.fixture(scope="module")
def states(large_clips: Path) -> dict[float, dict[str, Any]]:
    """Cursors at shares of the epoch."""
    loader = ss.Loader(ss.ShardStream(large_clips, epochs=1, run=4, **STREAM).load_audio(dtype="int16"))
    total = len(loader)
    found = {}
    for number, _ in enumerate(loader, start=1):
        found |= {share: loader.state_dict() for share in MOMENTS if number == round(share * total)}
    return found


def assert_costs_as_much(resumed: Start, fresh: Start, bytes_of_a_row: float = 0) -> None:
    """Each counter is that of the fresh start, or a block more or less: the cursor may stand at the end of its block.

    Of what is fetched for the index, more or less of another block is planned meanwhile.
    """
    assert abs(resumed.index_rows - fresh.index_rows) <= ONE_BLOCK
    assert abs(resumed.index_bytes - fresh.index_bytes) <= 2 * ONE_BLOCK * bytes_of_a_row
    assert abs(resumed.clips - fresh.clips) <= ONE_BLOCK
    assert abs(resumed.requests - fresh.requests) <= 2 * SHARDS_IN_BLOCK + ONE_BLOCK


@pytest.mark.parametrize("share", MOMENTS)
def test_a_resume_on_a_disk_reads_no_more_than_a_start(
    large_clips: Path, fresh: Start, states: dict[float, dict[str, Any]], share: float
) -> None:
    done = states[share]["next_batch"]
    resumed = start_at({}, large_clips, states[share], **STREAM)
    assert 0 < done == round(share * len(fresh.batches))
    assert resumed.batches == fresh.batches[done:]
    assert_costs_as_much(resumed, fresh)


def fetched(proxy: ChaosProxy, rows: list[Row]) -> list[str]:
    """Keys of the clips that an answer was asked for, once for each time."""
    keys = []
    for request in proxy.requests:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.range or "")
        if request.path.endswith(".tar") and match:
            first, last = int(match[1]), int(match[2])
            name = request.path.rpartition("/")[2]
            keys += [r.key for r in rows if r.shard == name and first <= r.offset and r.offset + r.size - 1 <= last]
    return keys


def keys_of(batches: list[Any]) -> list[str]:
    return [row[0] for _, rows in batches for row in rows]


def assert_nothing_is_fetched_again(
    child: Callable[..., Any],
    proxy: ChaosProxy,
    environment: dict[str, str],
    url: str,
    folder: Path,
    state: dict[str, Any],
    fresh: Start,
    workers: int,
) -> None:
    rows = rows_of(folder)
    bytes_of_a_row = max(path.stat().st_size for path in folder.glob("*.tar.parquet")) / CLIPS_IN_SHARD
    start = child(start_at, environment, url, None, workers=workers, **STREAM)
    assert start.batches == fresh.batches
    assert sorted(fetched(proxy, rows)) == sorted(row.key for row in rows)
    before = len(proxy.requests)
    resumed = child(start_at, environment, url, state, workers=workers, **STREAM)
    assert resumed.batches == fresh.batches[state["next_batch"] :]
    assert sorted(fetched(proxy, rows)[len(rows) :]) == sorted(keys_of(resumed.batches))
    assert_costs_as_much(resumed, start, bytes_of_a_row)
    print(
        f"{workers} workers, batch {state['next_batch']} of {len(fresh.batches)}: fresh {start[:5]}, "
        f"resumed {resumed[:5]}, {len(proxy.requests) - before} requests until the end"
    )


@pytest.mark.parametrize("share", MOMENTS)
def test_a_resume_in_a_store_fetches_no_consumed_clip(
    large_clips: Path,
    fresh: Start,
    states: dict[float, dict[str, Any]],
    obstore_child: Callable[..., Any],
    share: float,
) -> None:
    with serving() as server, ChaosProxy(server.url) as proxy:
        url = proxy.url + put_files(server, large_clips)
        assert_nothing_is_fetched_again(obstore_child, proxy, {}, url, large_clips, states[share], fresh, workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("share", MOMENTS)
def test_a_resume_in_the_gateway_fetches_no_consumed_clip(
    rgw: Rgw, large_clips: Path, fresh: Start, states: dict[float, dict[str, Any]], share: float, workers: int
) -> None:
    with obstore_process() as child, ChaosProxy(rgw.endpoint) as proxy:
        child(upload, rgw.environment(), large_clips, "s3://test/resume/set")
    with obstore_process() as child, ChaosProxy(rgw.endpoint) as proxy:
        environment = rgw.environment(endpoint=proxy.url)
        url = "s3://test/resume/set"
        assert_nothing_is_fetched_again(child, proxy, environment, url, large_clips, states[share], fresh, workers)
