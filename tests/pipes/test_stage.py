"""The machinery of chains itself; what each stage promises is in test_contract.py."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch.utils.data import ChainDataset, DataLoader, IterableDataset

from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.plain_source import PlainSource
from s3prl_stream.pipes.run_stages import run_batch
from s3prl_stream.pipes.stage import Samples, Stage, chain_fingerprint, stages_of
from s3prl_stream.sample import Sample


@chained("test_draw", aliases={"old_size": "size"})
class Draw(Stage):
    """Adds one random number; fails where it is told to."""

    provides: Mapping[str, str] = {"draw": "float"}

    def __init__(self, source: Samples | None = None, *, size: float = 1.0) -> None:
        self.size = size
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        if sample.get("broken"):
            raise SampleError(f"{sample['key']}: broken", reason="broken")
        yield {**sample, "draw": self.size * self.rng(sample).random()}


class Forget(Stage):
    removes = frozenset({"draw"})
    functional_name = "forget"

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {key: value for key, value in sample.items() if key != "draw"}


class Mix(Stage):
    """Looks at the whole batch."""

    scope = "batch"
    functional_name = "mix"

    def emit_batch(self, samples: Sequence[Sample]) -> list[Sample]:
        return [{**sample, "of": len(samples)} for sample in samples]


class Divided(IterableDataset):
    """Divides itself among workers, as torch asks of such a dataset."""

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        return iter(
            [
                {"key": f"divided k{i}"}
                for i in range(worker.id if worker else 0, 6, worker.num_workers if worker else 1)
            ]
        )


class Undivided:
    """Yields all of it in every process."""

    def __iter__(self) -> Iterator[Sample]:
        return iter([{"key": "a"}])


def draws(chain: Stage) -> list[float]:
    return [sample["draw"] for sample in chain]


def test_epoch_is_the_number_of_the_iteration_unless_it_is_set() -> None:
    chain = Draw()([{}, {}])
    first, second = draws(chain), draws(chain)
    assert first != second
    chain.set_epoch(0)
    assert draws(chain) == draws(chain) == first
    chain.set_epoch(1)
    assert draws(chain) == second


def test_two_of_a_kind_draw_differently_and_are_told_apart() -> None:
    chain = Draw()(Draw()([{}]))
    assert [stage.stage_id for stage in stages_of(chain)] == ["test_draw", "test_draw#1"]
    assert draws(chain) != draws(Draw()([{}]))


def test_dict_of_samples_has_its_keys() -> None:
    keyed, listed = Draw()({"b": {}, "a": {}}), Draw()([{"key": "b"}, {"key": "a"}])
    assert [sample["key"] for sample in keyed] == ["b", "a"]
    keyed.set_epoch(0)
    assert draws(keyed) == draws(listed)
    assert len(keyed) == 2


def test_arrays_become_tensors_of_the_same_memory() -> None:
    wav, read_only, backwards = np.zeros(3, np.float32), np.zeros(3), np.arange(3)[::-1]
    read_only.flags.writeable = False
    (sample,) = PlainSource([{"wav": wav, "read_only": read_only, "backwards": backwards, "words": np.array(["a"])}])
    assert sample["wav"].data_ptr() == wav.ctypes.data
    assert sample["read_only"].dtype == torch.float64
    assert sample["backwards"].tolist() == [2, 1, 0]
    assert isinstance(sample["words"], np.ndarray)


def test_other_names_of_parameters() -> None:
    assert Draw(old_size=3).config() == Draw(size=3).config() == {"size": 3}  # type: ignore[call-arg]
    chain = Draw()([{}]).test_draw(old_size=3)
    assert chain.config() == {"size": 3}
    with pytest.raises(UsageError, match="old_size is another name of size"):
        Draw(size=1, old_size=2)  # type: ignore[call-arg]


@chained("test_double", key_names={"wav_name": "wav", "double_name": "double"})
class Double(Stage):
    """`double` is twice `wav`."""

    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"double": "float32 [T]"}

    def __init__(self, source: Samples | None = None, *, by: float = 2.0) -> None:
        self.by = by
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, "double": sample["wav"] * self.by}


def test_keys_may_have_other_names() -> None:
    data = [{"speech": np.ones(3, np.float32), "double": "mine"}]
    with pytest.raises(ChainError, match="Double takes 'wav'"):
        Double()(data)
    chain = Double(wav_name="speech", double_name="two")(data)  # type: ignore[call-arg]
    (sample,) = chain
    assert sample["two"].tolist() == [2.0, 2.0, 2.0]
    assert (sample["speech"].tolist(), sample["double"]) == ([1.0, 1.0, 1.0], "mine")
    assert set(chain.known_keys() or ()) == set(sample)
    assert "wav_name='speech'" in str(chain)
    assert Double(**chain.config()).describe() == chain.describe()
    assert Double().describe() == Double(wav_name="wav").describe()  # type: ignore[call-arg]
    twice = chain.test_double(wav_name="two", double_name="four", by=2)
    assert next(iter(twice))["four"].tolist() == [4.0, 4.0, 4.0]


def test_misspelt_parameter_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Draw has no parameter 'sise'; did you mean 'size'. It has: size"):
        Draw(sise=1)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"Double has no parameter 'wave_name'; did you mean 'wav_name'"):
        Draw()([{"wav": np.ones(3, np.float32)}]).test_double(wave_name="x")


def test_settings_of_a_wrong_type_or_missing_name_the_stage() -> None:
    from s3prl_stream.pipes import Phonemize, UnfoldChunkBySec

    with pytest.raises(UsageError, match="UnfoldChunkBySec: '>' not supported between instances of 'str'"):
        UnfoldChunkBySec(min_seconds="2")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Phonemize: missing 1 required keyword-only argument: 'lexicon'"):
        Phonemize()  # type: ignore[call-arg]


def test_who_took_a_key_away_is_named() -> None:
    with pytest.raises(ChainError, match=r"Stop takes 'draw' .any., which Forget has removed\. Forget gives"):
        Stop()(Forget()(Draw()([{}])))


class Stop(Stage):
    takes: Mapping[str, str] = {"draw": "any"}


def test_a_missing_key_tells_which_stage_gives_it() -> None:
    from s3prl_stream.pipes import MaskedReconstruction, UnfoldChunkByFrame

    with pytest.raises(ChainError, match=r"UnfoldChunkByFrame takes 'wav' .*wav_path\. Put \.load_audio\(\) before it"):
        UnfoldChunkByFrame()([{"wav_path": "a.wav", "sample_rate": 16_000}])
    with pytest.raises(ChainError, match=r"Put \.features\(\) before it"):
        MaskedReconstruction()([{"wav": np.ones(3, np.float32)}])


def test_a_stage_is_found_by_its_name() -> None:
    chain = Draw(size=3)(Draw(size=2)([{}]))
    assert (chain.stage("test_draw").size, chain.stage("test_draw#1").size) == (2, 3)
    with pytest.raises(UsageError, match="no stage 'draw'; it has test_draw, test_draw#1"):
        chain.stage("draw")


def test_positional_argument_must_be_a_source() -> None:
    for value in (3, "a/path", None.__class__):
        with pytest.raises(ChainError, match="settings are given by name"):
            Draw(value)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\.test_draw\(\): settings are given by name"):
        Draw()([{}]).test_draw(3)


def test_name_taken_by_torch_is_refused() -> None:
    for name in ("batch", "shuffle", "map"):
        with pytest.raises(ChainError, match=f"'{name}' is already taken"):
            chained(name)(Forget)


def test_removed_keys_are_not_known() -> None:
    chain = Forget()(Draw()([{"speaker": "x"}]))
    assert chain.known_keys() is not None
    assert set(chain.known_keys() or ()) == {"speaker", "key", "epoch", "set", "identity"} == set(next(iter(chain)))


def test_unbound_stage_cannot_run() -> None:
    with pytest.raises(ChainError, match="not bound"):
        list(Draw())
    with pytest.raises(ChainError, match="not bound"):
        list(Draw()(Draw()))


def test_item_that_is_no_sample_is_named() -> None:
    with pytest.raises(UsageError, match="item 1 of the source is a int"):
        list(Draw()(item for item in ({}, 3)))  # type: ignore[misc]


def test_fingerprint_follows_the_settings() -> None:
    def fingerprint(size: float) -> str:
        return chain_fingerprint(stages_of(Draw(size=size)([{}])))

    assert fingerprint(1.0) == fingerprint(1.0) != fingerprint(2.0)


def test_damaged_sample_costs_itself_alone() -> None:
    chain = Mix()(Draw()([{}]))
    samples = [{"key": str(i), "identity": str(i), "broken": i == 1} for i in range(3)]
    damaged: list[tuple[str, str]] = []
    done = run_batch(stages_of(chain), samples, lambda sample, error: damaged.append((sample["key"], error.reason)))
    assert [(sample["key"], sample["of"]) for sample in done] == [("0", 2), ("2", 2)]
    assert damaged == [("1", "broken")]
    with pytest.raises(ChainError, match="Mix looks at whole batches"):
        list(chain)


def test_workers_divide_a_list_and_never_yield_a_sample_twice() -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])

    def keys(*sources: Samples) -> list[str]:
        chains = ChainDataset([Draw()(source) for source in sources])
        loader = DataLoader(chains, batch_size=None, num_workers=2, multiprocessing_context=context)
        return [sample["key"] for sample in loader]

    names = [f"k{i}" for i in range(6)]
    listed = [{"key": f"list {name}"} for name in names]
    expected = [f"{kind} {name}" for kind in ("dict", "divided", "list") for name in names]
    found = keys(listed, {f"dict {name}": {} for name in names}, Divided())
    assert sorted(found) == expected
    assert found[:6] == [f"list {name}" for name in names]
    with pytest.raises(UsageError, match="cannot be divided among 2 DataLoader workers"):
        keys(listed, Undivided())  # the list lets both workers start before one fails
