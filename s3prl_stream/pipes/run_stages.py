"""The one way in which a chain is run: sample after sample, each through all stages that look at one sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from s3prl_stream.errors import ChainError, SampleError
from s3prl_stream.pipes.key_names import emit_under_names
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample
from s3prl_stream.timing import StageClock

DamageHandler = Callable[[Sample, SampleError], None]


def run_batch(
    stages: Sequence[Stage],
    samples: Iterable[Sample],
    on_damage: DamageHandler,
    clock: StageClock | None = None,
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
        group = stages[position : _end_of_sample_scope(stages, position)]
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


def _end_of_sample_scope(stages: Sequence[Stage], start: int) -> int:
    return next((i for i in range(start, len(stages)) if stages[i].scope == "batch"), len(stages))


def through(stages: Sequence[Stage], sample: Sample, clock: StageClock) -> list[Sample]:
    """What a sample becomes in bound stages, root first, of which none may look at a whole batch."""
    samples = [sample]
    for stage in stages:
        if stage.scope == "batch":
            raise ChainError(f"{type(stage).__name__} looks at whole batches: it needs a ShardStream as its root")
        clock.enter(stage.stage_id)
        if stage.names:
            samples = [out for one in samples for out in emit_under_names(stage.emit, one, stage.names)]
        else:
            samples = [out for one in samples for out in stage.emit(one)]
        clock.leave()
    return samples
