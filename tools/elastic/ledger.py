"""The receipt: what the ledgers of a run in several attempts say, held against those of an undisturbed run.

A batch counts for the attempt after whose last checkpoint no other attempt did it again: what was trained on after the
checkpoint that the next attempt went on from died with the process, and has to be done again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LARGEST_DIFFERENCE = 1e-4
"""Of a loss, relative: other ranks sum the same gradients in another order."""


class Clip(NamedTuple):
    """One delivery of a clip."""

    epoch: int
    key: str
    first_frame: int


class Handed(NamedTuple):
    """A batch that went into the network."""

    batch: int
    digest: int
    """Of features, masked features and mask."""
    clips: tuple[Clip, ...]


class Attempt(NamedTuple):
    """What a number of ranks did until they ended or were killed."""

    ranks: int
    begins_at: int
    """First batch: that of the checkpoint it went on from."""
    killed_after: int | None
    """Steps in the log when it was killed; None: it came to the end."""
    processes_killed: int
    losses: list[tuple[int, float]]
    """(step, loss) of the log at its end, what was before it included."""


class Run(NamedTuple):
    """A run in one attempt or several."""

    attempts: list[Attempt]
    end: int
    """Number of batches in all."""
    handed: list[list[Handed]]
    """Of each attempt."""
    read: list[list[Clip]]
    """Of each attempt, all ranks."""

    def kept(self) -> list[Handed]:
        """What the final weights were trained on."""
        ends = [*(attempt.begins_at for attempt in self.attempts[1:]), self.end]
        spans = zip(self.attempts, ends, self.handed, strict=True)
        return [one for attempt, end, handed in spans for one in handed if attempt.begins_at <= one.batch < end]

    def read_again(self) -> list[Clip]:
        """Reads of what a checkpoint says is done, after that checkpoint."""
        kept, found = self.kept(), []
        for attempt, read in zip(self.attempts, self.read, strict=True):
            done = {clip for one in kept if one.batch < attempt.begins_at for clip in one.clips}
            found += [clip for clip in read if clip in done]
        return found

    def done_again(self) -> int:
        """Clips of batches that were trained on after the last checkpoint before a kill."""
        return sum(len(one.clips) for handed in self.handed for one in handed) - len(_clips(self.kept()))


def read_run(folder: Path) -> Run:
    """From `attempts.json` and the ledgers of all ranks; a last line that was cut by a kill is left out."""
    about = json.loads((folder / "attempts.json").read_text("utf-8"))
    attempts = [Attempt(**{**one, "losses": [tuple(pair) for pair in one["losses"]]}) for one in about["attempts"]]
    handed, read = [], []
    for number in range(len(attempts)):
        lines = _lines(folder.glob(f"handed-{number}-*.jsonl"))
        handed.append(sorted(Handed(at, digest, tuple(Clip(*clip) for clip in clips)) for at, digest, clips in lines))
        read.append([Clip(*line) for line in _lines(folder.glob(f"read-{number}-*.jsonl"))])
    return Run(attempts, about["end"], handed, read)


def judge(whole: Run, elastic: Run, keys: Iterable[str]) -> dict[str, Any]:
    """The figures of the receipt, and under "failures" every promise that did not hold.

    Args:
        whole: the undisturbed run.
        elastic: the one that was killed.
        keys: of all clips of the set: each is due once in every whole epoch.
    """
    kept, wanted = elastic.kept(), whole.kept()
    due, came = Counter(_clips(wanted)), Counter(_clips(kept))
    epochs = max(clip.epoch for clip in due)  # the last one may not be whole
    there = {(clip.key, clip.epoch) for clip in due}
    due.update(Clip(at, key, 0) for key in keys for at in range(epochs) if (key, at) not in there)
    lost, twice = list((due - came).elements()), list((came - due).elements())
    again = elastic.read_again()
    digests = {one.batch: one.digest for one in wanted}
    other = [one.batch for one in kept if digests.get(one.batch) != one.digest]
    losses = dict(elastic.attempts[-1].losses)
    pairs = [(step, loss, losses.get(step)) for step, loss in whole.attempts[-1].losses]
    missing = [step for step, _, mine in pairs if mine is None]
    differences = [(abs(mine - loss) / abs(loss), step) for step, loss, mine in pairs if mine is not None]
    largest, at_step = max(differences, default=(0.0, 0))
    failures = [
        *_told("clips were lost", lost),
        *_told("clips came twice, or ones that were not due", twice),
        *_told("consumed clips were read again", again),
        *_told("batches held other numbers (features, masks) than the undisturbed run's", other),
        *_told("steps have no loss", missing),
    ]
    if not largest <= LARGEST_DIFFERENCE:
        failures.append(f"the loss of step {at_step} differs by {largest:.1e} of it; at most {LARGEST_DIFFERENCE:g}")
    return {
        "batches": len(kept),
        "clips": sum(came.values()),
        "whole_epochs": epochs,
        "lost": len(lost),
        "twice": len(twice),
        "consumed_clips_read_again": len(again),
        "clips_done_again_after_a_checkpoint": elastic.done_again(),
        "clips_read": sum(len(read) for read in elastic.read),
        "batches_with_other_numbers": len(other),
        "losses": len(pairs) - len(missing),
        "largest_difference_of_a_loss": largest,
        "failures": failures,
    }


def _clips(batches: Iterable[Handed]) -> list[Clip]:
    return [clip for one in batches for clip in one.clips]


def _told(what: str, found: Sequence[Any]) -> list[str]:
    if not found:
        return []
    names = [f"{one.key} of epoch {one.epoch}" if isinstance(one, Clip) else str(one) for one in found[:5]]
    return [f"{len(found)} {what}: {', '.join(names)}{' ...' if len(found) > 5 else ''}"]


def _lines(files: Iterable[Path]) -> list[Any]:
    lines = (line for file in sorted(files) for line in file.read_text("utf-8").splitlines(keepends=True))
    return [json.loads(line) for line in lines if line.endswith("\n")]
