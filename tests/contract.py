"""What every stage promises, as assertions. A stage of your own passes them with one `StageCase`."""

from __future__ import annotations

import copy
import functools
import inspect
import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import ChainDataset, DataLoader

from s3prl_stream.errors import ChainError
from s3prl_stream.pipes.function import SampleFunction
from s3prl_stream.pipes.outline import outline_of
from s3prl_stream.pipes.plain_source import PlainSource
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample

TAGS = {"key", "epoch", "set", "identity"}


class StageCase(NamedTuple):
    """One stage with what is needed to try it."""

    build: Callable[[], Stage]
    samples: Callable[[], list[Sample]]
    """At least two samples that it accepts, without keys."""
    other_settings: Mapping[str, Any]
    """For each parameter of the constructor, another value than the built stage has."""
    random: bool = False
    needs_all: bool = False
    """It learns something from all samples when it is bound, so that a generator or a function will not do."""
    single_valued: frozenset[str] = frozenset()
    """Parameters that have only one valid value so far."""


# ---- the promises ----------------------------------------------------------------------------------


def assert_input_is_not_mutated(case: StageCase) -> None:
    """A stage returns new dicts and leaves arrays alone."""
    samples = case.samples()
    before = copy.deepcopy(samples)
    list(case.build()(samples))
    assert_same_samples(samples, before)


def assert_output_follows_identity(case: StageCase) -> None:
    """Equal (epoch, key) gives equal output whatever came before; only random stages care for epoch and key."""
    samples = [{"key": f"clip{position}", **sample} for position, sample in enumerate(case.samples())]
    forward = outputs(case.build()(samples))
    assert_same_samples(outputs(case.build()(samples)), forward)
    assert_same_samples(outputs(case.build()(samples[::-1])), forward)

    other_epoch = outputs(case.build()(samples), epoch=7)
    other_keys = outputs(case.build()([{**sample, "key": f"x{sample['key']}"} for sample in samples]))
    for changed, what in ((other_epoch, "epoch"), (other_keys, "keys")):
        is_same = _same(_without_tags(changed), _without_tags(forward))
        assert is_same is not case.random, (
            f"with another {what} nothing is drawn anew: build the stage so that it draws for each sample, by self.rng"
            if is_same
            else f"another {what} changes what comes out: is random=True missing?"
        )


def forkserver() -> BaseContext:
    """Begins worker processes in which most of what they need is imported already, once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["s3prl_stream.loader", "hypothesis", "pytest"])
    return context


def assert_all_work_in_loader(cases: Mapping[str, StageCase], num_workers: int) -> None:
    """A torch DataLoader gives the samples that each chain gives alone, also from (forkserver) worker processes.

    All chains run behind each other in one loader, as starting workers takes seconds.
    """
    chains, alone = [], []
    for name, case in cases.items():
        samples = [{"key": f"{name} {position}", **sample} for position, sample in enumerate(case.samples())]
        alone += outputs(case.build()(samples), epoch=1)
        chains.append(case.build()(samples))
        chains[-1].set_epoch(1)
    loader = DataLoader(
        ChainDataset(chains),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        multiprocessing_context=forkserver() if num_workers else None,
    )
    assert_same_samples(sorted(loader, key=_place), sorted(alone, key=_place))


def assert_works_as_a_function(case: StageCase) -> None:
    """A `SampleFunction` gives the samples that the stage gives alone, and comes out of pickle as it went in."""
    samples = [{"key": f"clip{position}", **sample} for position, sample in enumerate(case.samples())]
    stage = case.build()
    if case.needs_all:
        return
    if not stage.keeps_count:
        with pytest.raises(ChainError, match=f"{type(stage).__name__} does not make one sample of one"):
            SampleFunction(stage)
        return
    function = SampleFunction(stage, epoch=3)
    expected = outputs(stage(samples), epoch=3)
    assert_same_samples([function(sample) for sample in samples], expected)
    again = pickle.loads(pickle.dumps(function))
    assert_same_samples([again(sample) for sample in samples[::-1]][::-1], expected)


def assert_works_in_pipelines_of_others(case: StageCase) -> None:
    """torchdata's nodes and StatefulDataLoader (with a resume), and webdataset, give what the stage gives alone."""
    import torchdata.nodes
    import webdataset
    from torchdata.stateful_dataloader import StatefulDataLoader

    samples = [{"key": f"clip{position}", **sample} for position, sample in enumerate(case.samples())]
    chain = case.build()(samples)
    chain.set_epoch(0)
    expected = list(chain)
    assert_same_samples(torchdata.nodes.Loader(torchdata.nodes.IterableWrapper(chain)), expected)
    if not case.needs_all:
        assert_same_samples(webdataset.DataPipeline(functools.partial(iter, samples), case.build()), expected)

    loader = StatefulDataLoader(chain, batch_size=None, collate_fn=_as_it_is)
    assert_same_samples([next(iter(loader))], expected[:1])
    again = StatefulDataLoader(chain, batch_size=None, collate_fn=_as_it_is)
    again.load_state_dict(loader.state_dict())
    assert_same_samples(again, expected[1:])


def assert_survives_pickle(case: StageCase) -> None:
    """Bound or not, a stage comes out of pickle with its settings and its draws."""
    chain = case.build()(case.samples())
    again: Stage = pickle.loads(pickle.dumps(chain))
    assert again.describe() == chain.describe()
    assert_same_samples(outputs(again), outputs(chain))
    assert pickle.loads(pickle.dumps(case.build())).describe() == case.build().describe()


def assert_serves_two_chains(case: StageCase) -> None:
    """One stage object, two sources read in turns: each chain is what it would be by itself."""
    stage, samples = case.build(), case.samples()
    first, second = stage(samples[:1]), stage(samples[1:])
    first.set_epoch(0)
    second.set_epoch(0)
    taken_in_turns: tuple[list[Sample], list[Sample]] = ([], [])
    running = [(iter(first), taken_in_turns[0]), (iter(second), taken_in_turns[1])]
    while running:
        iterator, taken = running.pop(0)
        for sample in iterator:
            taken.append(sample)
            running.append((iterator, taken))
            break
    assert stage.source is None
    assert_same_samples(taken_in_turns[0], outputs(case.build()(samples[:1])))
    assert_same_samples(taken_in_turns[1], outputs(case.build()(samples[1:])))


def assert_is_its_configuration(case: StageCase) -> None:
    """Settings are given by name, come back from config(), and each one shows in the description."""
    stage = case.build()
    parameters = list(inspect.signature(type(stage)).parameters.values())
    assert parameters[0].name == "source"
    assert {parameter.kind for parameter in parameters[1:]} <= {inspect.Parameter.KEYWORD_ONLY}
    with pytest.raises(ChainError, match="settings are given by name"):
        type(stage)(3, **stage.config())  # type: ignore[arg-type]

    assert type(stage)(**stage.config()).describe() == stage.describe()
    assert set(case.other_settings) | case.single_valued == set(stage.config()), (
        "other_settings must name each parameter"
    )
    for name, value in case.other_settings.items():
        assert type(stage)(**{**stage.config(), name: value}).describe() != stage.describe(), name


def assert_contract_is_true(case: StageCase) -> None:
    """`takes` is needed, `provides` is delivered in dtype and rank, `keeps_count`, `keeps_length`, len() are right."""
    samples, stage = case.samples(), case.build()
    chain = stage(samples)
    chain.set_epoch(0)
    made = list(chain)
    known = chain.known_keys()
    assert known is not None
    for sample in made:
        for key, kind in stage.provides.items():
            assert _is_of_kind(sample[key], kind), f"{key} is no {kind}: {sample[key]!r}"
        assert set(known) <= set(sample), "known_keys() names a key that is missing"
    if stage.keeps_count:
        assert len(chain) == len(made) == len(samples)
    if "wav" in samples[0]:
        before = [outline_of({"identity": sample["identity"], **sample}) for sample in PlainSource(samples)]
        try:
            outlines = [after for outline in before for after in stage.outline(outline)]
        except TypeError as error:
            assert type(stage).__name__ in str(error)  # noqa: PT017  # either is right; a wrong length is not
            assert not (stage.keeps_count and stage.keeps_length)
        else:
            assert [outline.num_frames for outline in outlines] == [len(sample["wav"]) for sample in made]
            assert len(chain) == len(made)


def assert_misfits_are_refused(case: StageCase) -> None:
    """A missing key and a wrong dtype or rank are errors at construction which name both sides."""
    stage = case.build()
    for key, wanted in stage.takes.items():
        lacking = [{name: value for name, value in sample.items() if name != key} for sample in case.samples()]
        with pytest.raises(ChainError, match=f"{type(stage).__name__} takes '{key}'.*PlainSource"):
            stage([{"unrelated": 1, **sample} for sample in lacking])
        if wanted in ("any", "nested"):
            continue
        rank = wanted.count(",") + 1
        for wrong in (np.zeros((2,) * rank, np.float64), np.zeros((2,) * (rank + 1), np.float32)):
            with pytest.raises(ChainError, match=f"{type(stage).__name__} takes '{key}'.*PlainSource"):
                stage([{**sample, key: wrong} for sample in case.samples()])


def assert_prints_itself(case: StageCase) -> None:
    """print(chain) shows each stage with its settings."""
    chain = case.build()(case.samples())
    first, keys_of_root, *lines = str(chain).splitlines()
    assert first == "list of samples"
    assert all(key in keys_of_root for key in case.samples()[0])
    assert lines == [f"  .{chain.describe()}", *([f"      {chain.keys_line()}"] if chain.keys_line() else [])]
    assert all(f"{name}=" in lines[0] for name in chain.config())
    assert all(key in lines[-1] for key in [*chain.takes, *chain.provides, *chain.removes])


# ---- comparing -------------------------------------------------------------------------------------


def outputs(chain: Stage, *, epoch: int = 0) -> list[Sample]:
    """All samples of one epoch, in the order of their places (key, then chunk)."""
    chain.set_epoch(epoch)
    return sorted(chain, key=_place)


def assert_same_samples(found: Iterable[Sample], expected: Iterable[Sample]) -> None:
    """Equal keys, and equal values to the last bit, dtypes included."""
    found, expected = list(found), list(expected)
    assert [list(sample) for sample in found] == [list(sample) for sample in expected]
    for a, b in zip(found, expected, strict=True):
        for key in a:
            assert _same(a[key], b[key]), f"{key}: {a[key]!r} is not {b[key]!r}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor | np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _without_tags(samples: list[Sample]) -> list[Sample]:
    return [{key: value for key, value in sample.items() if key not in TAGS} for sample in samples]


def _place(sample: Sample) -> tuple[str, int]:
    return sample["key"], sample.get("chunk_index", 0)


def _is_of_kind(value: Any, kind: str) -> bool:
    """Whether a value is what `provides` says: "float32 [T]", "int", "float", "any"."""
    if kind == "any":
        return True
    dtype, _, dims = kind.partition(" ")
    if not dims:
        return type(value).__name__ == dtype
    return (
        isinstance(value, torch.Tensor) and str(value.dtype) == f"torch.{dtype}" and value.ndim == dims.count(",") + 1
    )


def _as_it_is(sample: Sample) -> Sample:
    return sample
