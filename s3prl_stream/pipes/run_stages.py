"""The one way in which a chain is run: sample after sample, each through all stages that look at one sample."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile

from s3prl_stream.errors import ChainError, SampleError, StreamError, UsageError
from s3prl_stream.pipes.key_names import emit_under_names
from s3prl_stream.pipes.kinds import holds, how_to_get, told
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample
from s3prl_stream.timing import StageClock

_HAND_ON = "it must hand on what it does not change: `yield {**sample, ...}`."

DamageHandler = Callable[[Sample, SampleError], None]


def run_batch(
    stages: Sequence[Stage], samples: Iterable[Sample], on_damage: DamageHandler, clock: StageClock | None = None
) -> list[Sample]:
    """Run the samples of one planned batch through bound stages; a damaged sample costs itself alone.

    Args:
        stages: root first.
        samples: may raise nothing; reading is a stage's work.
        on_damage: called with the sample as it came in and the SampleError.
        clock: told when each stage begins and ends.
    """
    clock = StageClock() if clock is None else clock
    done = list(samples)
    position = 0
    while position < len(stages):
        if stages[position].scope == "batch":
            clock.on_sample(-1)
            clock.enter(stages[position].stage_id)
            done = list(stages[position].emit_batch(done))
            clock.leave()
            position += 1
            continue
        group = list(takewhile(lambda stage: stage.scope == "sample", stages[position:]))
        position += len(group)
        survivors: list[Sample] = []
        for sample in done:
            clock.on_sample(sample.get("slot", -1))
            try:
                survivors.extend(through(group, sample, clock))
            except SampleError as error:
                on_damage(sample, error)
        done = survivors
    return done


def through(stages: Sequence[Stage], sample: Sample, clock: StageClock) -> list[Sample]:
    """What a sample becomes in bound stages, root first, of which none may look at a whole batch."""
    samples = [sample]
    for stage in stages:
        if stage.scope == "batch":
            raise ChainError(f"{type(stage).__name__} looks at whole batches: it needs a ShardStream as its root")
        clock.enter(stage.stage_id)
        try:
            samples = [out for one in samples for out in _emitted(stage, one)]
        except Exception as error:  # a mistake in a stage: its traceback knows the line, but not the clip
            if sys.version_info >= (3, 11) and not isinstance(error, StreamError):
                error.add_note(f"in stage {stage.stage_id!r}, from sample {sample.get('key')!r}")
            raise
        clock.leave()
    return samples


def _emitted(stage: Stage, sample: Sample) -> Sequence[Sample]:
    """What one stage makes of a sample.

    Of a list, a generator or a function nobody knows the kinds of values when the chain is built, or of the first
    sample only: so they are looked at here, where a wrong one would give wrong numbers.

    Raises:
        UsageError: the sample lacks what the stage takes, or has it as something else.
    """
    for key, wanted in stage.takes.items():
        if key in sample and not holds(sample[key], wanted):
            raise UsageError(
                f"{type(stage).__name__} takes {key!r} as {wanted}, but sample {sample.get('key')!r} has it as "
                f"{told(sample[key])}.{how_to_get(wanted)}"
            )
    try:
        emitted = emit_under_names(stage.emit, sample, stage.names) if stage.names else stage.emit(sample)
        if emitted is None or isinstance(emitted, Mapping):
            raise ChainError(
                f"{type(stage).__name__}.emit() returned {told(emitted)}; it must yield samples: `yield sample`."
            )
        samples = list(emitted)
    except KeyError as error:
        key = stage.names.get(error.args[0], error.args[0])
        takes = {**stage.takes, "identity": "for its draws"}
        if key not in takes or key in sample:
            raise
        hint = f" Of a stage before it: {_HAND_ON}" if key == "identity" else ""
        raise UsageError(
            f"{type(stage).__name__} takes {key!r} ({takes[key]}), which sample {sample.get('key')!r} does not have. "
            f"It has: {', '.join(map(str, sample))}.{hint}"
        ) from error
    for out in samples:
        if not isinstance(out, Mapping) or "key" not in out:
            raise ChainError(f"{type(stage).__name__}.emit() gave {told(out)} without the sample's 'key'; {_HAND_ON}")
    return samples
