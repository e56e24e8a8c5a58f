"""One rank of the demo: `pretrain` as any user calls it, and a ledger of what it was handed and what it read.

torchrun ... rank.py SETTINGS.json

`handed-ATTEMPT-RANK.jsonl` has a line for each batch that went into the network, written before the update that it is a
part of; `read-ATTEMPT-RANK.jsonl` one for each clip that was asked of the store.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import s3prl_stream as ss
from s3prl_stream.sample import Item, Sample
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.trainer.loop import Hook


class Settings(NamedTuple):
    """Of one attempt."""

    url: str
    run: str
    ledgers: str
    attempt: int
    steps: int
    pretrain: dict[str, Any]
    """Arguments that all attempts have in common."""


def note_reads(ledger: TextIO) -> None:
    """From now on, each clip that this process asks of a set is a line: epoch, key, first frame."""
    read = ShardSet.read

    def read_and_note(shards: ShardSet, item: Item) -> Sample:
        ledger.write(json.dumps([item.epoch, item.key, item.first_frame]) + "\n")
        return read(shards, item)

    ShardSet.read = read_and_note  # type: ignore[method-assign]


def note_batches(objective: Any, ledger: TextIO) -> None:
    """From now on, each batch that the network is trained on is a line: number, digest of its numbers, clips."""

    def note(_objective: Any, arguments: tuple[Any, ...]) -> None:
        (batch,) = arguments
        digest = 0
        for name in ("feat", "masked_feat", "loss_mask"):
            digest = zlib.crc32(batch[name].contiguous().numpy().tobytes(), digest)
        clips = list(zip(batch["epoch"].tolist(), batch["key"], batch["first_frame"].tolist(), strict=True))
        ledger.write(json.dumps([batch["batch_index"], digest, clips]) + "\n")

    objective.register_forward_pre_hook(note)


def main(settings: Settings) -> None:
    """Train from the newest checkpoint to the end."""
    rank = os.environ.get("RANK", "0")
    name, folder = f"{settings.attempt}-{rank}.jsonl", Path(settings.ledgers)
    with (folder / f"handed-{name}").open("w", buffering=1) as handed, (folder / f"read-{name}").open("w", 1) as read:
        note_reads(read)

        def make_hook(_recipe: Any, objective: Any) -> Hook:
            note_batches(objective, handed)
            return Hook(settings.steps, lambda _step: {})

        shards = ss.open_shards(settings.url)
        ss.pretrain("tera", shards, steps=settings.steps, out=settings.run, hooks=[make_hook], **settings.pretrain)


if __name__ == "__main__":
    main(Settings(**json.loads(Path(sys.argv[1]).read_text())))
