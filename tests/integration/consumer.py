"""Training without a network, made to be killed: every rank notes each batch that it was handed, one keeps the cursor.

Ranks go in step as those of a real run do (a barrier after each round stands for the gradients' all-reduce). Noted and
synchronised comes before the cursor, so all that lies before a cursor has been noted.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed
from streams import delivered

import s3prl_stream as ss
from s3prl_stream.stores.store import is_remote


class Settings(NamedTuple):
    """Of one attempt; the next one may have others for all but url and stream."""

    url: str
    out: str
    attempt: int
    world: int
    workers: int
    stream: dict[str, Any]
    cursor_every: int = 2
    """Rounds between cursors."""
    step_seconds: float = 0.02
    """Of pretended work on a batch."""


def chain(url: str | Path, settings: dict[str, Any]) -> Any:
    """With draws of its own for each sample, so that they are in the comparison."""
    return ss.ShardStream(url, **settings).load_audio().add_noise(snr=(3, 20), prob=0.5)


def main(settings: Settings, rank: int) -> None:
    """One rank from the newest cursor to the end."""
    out = Path(settings.out)
    if settings.world > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{out}/rendezvous-{settings.attempt}",
            rank=rank,
            world_size=settings.world,
            timeout=timedelta(seconds=60),
        )
    context = "forkserver" if settings.workers and is_remote(settings.url) else None
    loader = ss.Loader(
        chain(settings.url, settings.stream), num_workers=settings.workers, multiprocessing_context=context
    )
    cursor = out / "cursor.json"
    if cursor.exists():
        loader.load_state_dict(json.loads(cursor.read_text()))
    with (out / f"ledger-{settings.attempt}-{rank}.jsonl").open("a", buffering=1) as ledger:
        for number, batch in enumerate(loader, start=1):
            ledger.write(json.dumps(delivered(batch)) + "\n")
            time.sleep(settings.step_seconds)
            if settings.world > 1:
                torch.distributed.barrier()
            if number % settings.cursor_every == 0 and number // settings.cursor_every % settings.world == rank:
                unfinished = out / f"cursor-{rank}.unfinished"
                unfinished.write_text(json.dumps(loader.state_dict()))
                unfinished.rename(cursor)
    if settings.world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    assert loader.damaged == []
    os.close(os.open(out / f"done-{rank}", os.O_CREAT))
