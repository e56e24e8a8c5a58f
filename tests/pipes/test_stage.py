"""The machinery of chains itself; what each stage promises is in test_contract.py."""

from __future__ import annotations

import copy
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract import forkserver
from torch.utils.data import ChainDataset, DataLoader, IterableDataset

from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.add_noise import NoiseAugmentation
from s3prl_stream.pipes.categories import Categories
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.described import described
from s3prl_stream.pipes.function import SampleFunction
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


class Mark(Stage):
    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, "marked": True}


def test_chains_that_share_a_stage_draw_the_same_in_it() -> None:
    clean = Draw()([{}, {}])
    marked = Mark()(clean)
    alone = Draw()([{}, {}])
    for _ in range(2):
        pairs = [(a["draw"], b["draw"]) for a, b in zip(clean, marked, strict=True)]
        assert pairs == [(x, x) for x in draws(alone)]
    assert draws(Mark()(marked)) == draws(Draw()([{}, {}])), "a longer chain begins to count anew"


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
    with pytest.raises(UsageError, match="Double: two of its keys would be called 'x'"):
        Double(wav_name="x", double_name="x")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="Double: 5 is no name of a key"):
        Double(wav_name=5)  # type: ignore[call-arg]
    twice = chain.test_double(wav_name="two", double_name="four", by=2)
    assert next(iter(twice))["four"].tolist() == [4.0, 4.0, 4.0]


def test_misspelt_stage_is_told_with_the_nearest() -> None:
    chain = Draw()([{"wav": np.ones(3, np.float32)}])
    with pytest.raises(AttributeError, match=r"^a Draw has no 'test_duoble'; did you mean 'test_double'\?$"):
        chain.test_duoble()
    with pytest.raises(AttributeError, match=r"^a Draw has no 'xyzzy'$"):
        chain.xyzzy()


def test_misspelt_parameter_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Draw has no parameter 'sise'; did you mean 'size'. It has: size"):
        Draw(sise=1)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"Double has no parameter 'wave_name'; did you mean 'wav_name'"):
        Draw()([{"wav": np.ones(3, np.float32)}]).test_double(wave_name="x")


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
    with pytest.raises(UsageError, match=r"\.features\(\): kind is given twice, by its place and by its name"):
        Draw()([{"wav": np.ones(3, np.float32)}]).features("logmel80", kind="linear201")


def test_name_taken_by_torch_is_refused() -> None:
    for name in ("batch", "shuffle", "map"):
        with pytest.raises(ChainError, match=f"'{name}' is already taken"):
            chained(name)(Forget)
    for name in ("describe", "takes", "collate"):
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


@pytest.mark.parametrize(
    ("wav", "found"),
    [
        (np.ones(3), "float64 [3]"),
        (np.ones(3, np.int16), "int16 [3]"),
        (np.ones((1, 3), np.float32), "float32 [1, 3]"),
        ([1.0, 2.0], "a list"),
        (None, "a NoneType"),
    ],
)
def test_values_of_another_kind_are_refused_whatever_the_samples_come_from(wav: object, found: str) -> None:
    good = {"key": "good", "wav": np.ones(3, np.float32)}
    bad = {"key": "bad", "speech": np.ones(3, np.float32), "wav": wav}
    says = re.escape(f"Double takes 'wav' as float32 [T], but sample 'bad' has it as {found}.")
    if hasattr(wav, "ndim") and wav.ndim:  # known when the chain is built
        with pytest.raises(ChainError, match=r"provides it as .* LoadAudio\(\) before it makes it so"):
            Double()([bad])
    for source in ([good, bad], iter([bad])):
        with pytest.raises(UsageError, match=says):
            list(Double()(source))
    with pytest.raises(UsageError, match=says):
        SampleFunction(Double())(bad)
    chain = Double(wav_name="speech")(iter([bad]))  # type: ignore[call-arg]
    assert [sample["double"].tolist() for sample in chain] == [[2.0, 2.0, 2.0]]
    with pytest.raises(UsageError, match=says.replace("'wav'", "'half'")):
        list(Double(wav_name="half")(iter([{"key": "bad", "half": wav}])))  # type: ignore[call-arg]


def test_a_generator_that_was_read_gives_no_empty_second_epoch() -> None:
    for chain in (Draw()({"key": str(n)} for n in range(3)), Draw()(iter([{"key": "a"}, {"key": "b"}, {"key": "c"}]))):
        running = iter(chain)
        next(running)
        assert len(list(chain)) == 2, "the rest of it is no mistake"
        with pytest.raises(UsageError, match=r"has been read to its end and gives nothing a second time. Give a list"):
            list(chain)
    nothing = Draw()(iter(()))
    assert list(nothing) == []


def test_a_key_that_a_sample_lacks_is_named() -> None:
    says = (
        r"Double takes '{}' \(float32 \[T\]\), which sample 'a' does not have. It has: key, epoch, set, identity, x\."
    )
    with pytest.raises(UsageError, match=says.format("wav")):
        list(Double()(iter([{"key": "a", "x": 1}])))
    with pytest.raises(UsageError, match=says.format("speech")):
        SampleFunction(Double(wav_name="speech"))({"key": "a", "x": 1})  # type: ignore[call-arg]

    class Wrong(Double):
        def emit(self, sample: Sample) -> Iterator[Sample]:
            yield {**sample, "double": {}["mine"]}

    with pytest.raises(KeyError, match="mine"):  # an error of the stage itself stays what it is
        list(Wrong()([{"wav": np.ones(3, np.float32)}]))


class Drawing(Stage):
    """Has no functional name."""

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, type(self).__name__: self.rng(sample).random()}


class AlsoDrawing(Drawing):
    pass


class DrawMore(Draw):
    """Inherits a functional name, and hands settings on."""

    def __init__(self, source: Samples | None = None, *, more: int = 1, **settings: float) -> None:
        self.more = more
        super().__init__(source, **settings)


def test_stages_without_a_name_of_their_own_are_told_apart() -> None:
    chain = AlsoDrawing()(Drawing()(Drawing()([{}])))
    assert [stage.stage_id for stage in stages_of(chain)] == ["Drawing", "Drawing#1", "AlsoDrawing"]
    (sample,) = chain
    assert sample["Drawing"] != sample["AlsoDrawing"]
    inherited = DrawMore(more=2, size=3)(Draw()([{}]))
    assert [stage.stage_id for stage in stages_of(inherited)] == ["test_draw", "test_draw#1"]
    assert inherited.config() == {"more": 2, "size": 3}


def test_a_setting_that_a_stage_does_not_keep_is_told() -> None:
    class Forgetful(Stage):
        def __init__(self, source: Samples | None = None, *, size: int = 1) -> None:
            self.length = size
            super().__init__(source)

    with pytest.raises(ChainError, match=r"Forgetful does not keep its parameter 'size'.*self\.size = size"):
        Forgetful().describe()


def test_names_of_keys_reach_the_parent_of_a_chained_stage() -> None:
    @chained("test_triple", key_names={"wav_name": "wav"})
    class Triple(Double):
        def __init__(self, source: Samples | None = None) -> None:
            super().__init__(source, by=3.0)

    (sample,) = Triple(wav_name="speech")([{"speech": np.ones(1, np.float32)}])  # type: ignore[call-arg]
    assert sample["double"].tolist() == [3.0]


def test_a_constructor_that_forgets_its_parents_is_not_bound() -> None:
    class Orphan(Stage):
        def __init__(self, source: Samples | None = None) -> None:
            pass

    with pytest.raises(ChainError, match="not bound"):
        list(Orphan([{}]))


def test_an_emit_that_does_not_yield_is_told() -> None:
    class Returns(Stage):
        def emit(self, sample: Sample) -> Sample:  # type: ignore[override]
            return sample

    class GivesTheArrayAlone(Stage):
        def emit(self, sample: Sample) -> Iterator[Any]:
            yield sample["wav"]

    class Forgets(Stage):
        def __init__(self, source: Samples | None = None, *, kept: tuple[str, ...] = ()) -> None:
            self.kept = kept
            super().__init__(source)

        def emit(self, sample: Sample) -> Iterator[Sample]:
            yield {name: sample[name] for name in self.kept}

    source = [{"key": "a", "wav": np.ones(3, np.float32)}]
    with pytest.raises(ChainError, match=r"GivesTheArrayAlone\.emit\(\) gave float32 \[3\] without .*: `yield"):
        list(GivesTheArrayAlone(source))
    with pytest.raises(ChainError, match=r"Forgets\.emit\(\) gave a dict without the sample's 'key'.*: `yield"):
        list(Forgets(source, kept=("wav",)))
    with pytest.raises(UsageError, match=r"takes 'identity' .*'a' does not have. It has: key, wav. .*: `yield"):
        list(NoiseAugmentation()(Forgets(source, kept=("key", "wav"))))
    with pytest.raises(ChainError, match=r"Returns\.emit\(\) returned a dict; it must yield samples"):
        list(Returns()([{}]))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions take notes from Python 3.11 on")
def test_a_mistake_in_a_stage_is_told_with_the_clip() -> None:
    class Mistaken(Stage):
        functional_name = "mistaken"

        def emit(self, sample: Sample) -> Iterator[Sample]:
            yield {**sample, "half": sample["count"] / sample["of"]}

    with pytest.raises(ZeroDivisionError) as caught:
        list(Mistaken()([{"key": "a", "count": 1, "of": 2}, {"key": "b", "count": 1, "of": 0}]))
    assert caught.value.__notes__ == ["in stage 'mistaken', from sample 'b'"]


def test_what_is_one_sample_or_none_is_no_source() -> None:
    with pytest.raises(ChainError, match=r"give \[sample\], or call SampleFunction\(stage\)\(sample\)"):
        Draw()({"wav": np.ones(3, np.float32), "key": "a"})  # type: ignore[dict-item]
    with pytest.raises(ChainError, match=r"a list that begins with a int .* settings are given by name"):
        Draw([3, 6])  # type: ignore[list-item]
    with pytest.raises(ChainError, match=r'a list that begins with a PosixPath .* a file is \{"key": NAME, "wav_path"'):
        Draw([Path("a.wav")])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="item 'b' of the source is a int"):
        list(Draw()({"a": {}, "b": 3}))  # type: ignore[dict-item]
    with pytest.raises(ChainError, match=r"map-style dataset .* call SampleFunction\(stage\) in its __getitem__"):
        Draw()(torch.utils.data.Dataset())  # type: ignore[arg-type]


def test_an_identity_of_the_data_is_not_taken_for_the_chains() -> None:
    with pytest.raises(UsageError, match=r"sample 'a' has 'identity': 'speaker 7'\..* call yours otherwise"):
        list(Draw()([{"key": "a", "identity": "speaker 7"}]))
    (sample,) = Draw()([{"key": "a"}])
    assert [one["draw"] for one in Draw()([sample])] == [sample["draw"]]  # that of another chain is


def test_samples_of_another_chain_draw_anew_in_each_epoch() -> None:
    """What was decoded once and is kept in a list must not get the same noise for ever."""
    kept = list(Mark()([{"key": "a"}, {"key": "b"}]))
    chain, alone = Draw()(kept), Draw()([{"key": "a"}, {"key": "b"}])
    epochs = [draws(chain) for _ in range(4)]
    assert len({number for epoch in epochs for number in epoch}) == 8
    assert epochs[0] == draws(alone)
    (of_third,) = [list(alone) for _ in range(3)][2:]
    again = Draw()([{**sample, "draw": 0.0} for sample in of_third])
    assert len({tuple(draws(again)) for _ in range(5)}) == 5

    function = SampleFunction(Draw())
    functions = [function(kept[0])["draw"]]
    for function.epoch in (1, 2):
        functions.append(function(kept[0])["draw"])
    functions.append(SampleFunction(Draw(), seed=1)(kept[0])["draw"])
    assert len(set(functions)) == 4


def test_an_error_about_a_sample_says_which_it_is(tmp_path: Path) -> None:
    from s3prl_stream.pipes import ExtractFeat, LoadAudio, UnfoldChunkBySec

    file = tmp_path / "empty.wav"
    file.write_bytes(b"")
    load, says = LoadAudio(), rf"^0 \({re.escape(str(file))}\): wav of 0 bytes"
    with pytest.raises(SampleError, match=says) as caught:
        list(load([{"wav_path": file}]))
    assert caught.value.reason == "decode"
    with pytest.raises(SampleError, match=rf"^0 \({re.escape(str(file))}\): "):
        len(UnfoldChunkBySec()(load([{"wav_path": file}])))
    short = {"key": "a", "wav": np.ones(3, np.float32)}
    for use in (lambda: list(ExtractFeat()([short])), lambda: SampleFunction(ExtractFeat())(short)):
        with pytest.raises(SampleError, match=r"^a: features: 3 samples") as caught:
            use()
    with pytest.raises(SampleError, match=r"^a: broken$"):
        list(Draw()([{"key": "a", "broken": True}]))
    assert repr(SampleFunction(Draw(size=2), epoch=3)) == "SampleFunction(test_draw(size=2), seed=0, epoch=3)"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([{"key": "a"}], "a list is no sample, which is a dict"),
        ({"key": ["a", "b"], "wav": [[0.0], [0.0]]}, r"these are several samples.*map\(batched=True\)"),
        ({"key": np.array(["a", "b"])}, "these are several samples"),
    ],
)
def test_a_function_of_several_samples_says_so(samples: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SampleFunction(Draw())(samples)


def test_a_function_learns_nothing_and_makes_one_of_one() -> None:
    from s3prl_stream.pipes import EncodeCategory, EncodeText

    for stage, say in ((EncodeCategory(), "categories="), (EncodeText(train_tokenizer=True), "tokenizer=")):
        with pytest.raises(UsageError, match=f"not known before they are read.*{say}"):
            SampleFunction(stage)

    class Two(Stage):
        def emit(self, sample: Sample) -> Iterator[Sample]:
            yield from (sample, sample)

    with pytest.raises(ChainError, match=r"Two made 2 samples of 'a'.*keeps_count = False"):
        SampleFunction(Two())({"key": "a"})


def test_fingerprint_follows_the_settings() -> None:
    def fingerprint(size: float) -> str:
        return chain_fingerprint(stages_of(Draw(size=size)([{}])))

    assert fingerprint(1.0) == fingerprint(1.0) != fingerprint(2.0)


@pytest.mark.parametrize(
    "large", [np.arange(5000.0), torch.arange(5000.0), [np.arange(5000)], {"a": (np.arange(5000),)}]
)
def test_fingerprint_follows_all_of_a_large_array(large: Any) -> None:
    def text(value: Any) -> str:
        return Draw(size=value).describe()

    changed = copy.deepcopy(large)
    array = (
        changed
        if not isinstance(changed, list | dict)
        else changed[0]
        if isinstance(changed, list)
        else changed["a"][0]
    )
    array[2500] = -1
    assert text(copy.deepcopy(large)) == text(large) != text(changed)


def test_settings_are_described_without_addresses() -> None:
    plain: list[Any] = [1, 2.5, "a", None, True, (1,), (), [], {"a": [1, (2, "b")]}, Path("x"), [Categories(["a"])]]
    assert [described(value) for value in plain] == [repr(value) for value in plain]
    assert described(draws) == "<function tests.pipes.test_stage.draws>"


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
    def keys(*sources: Samples) -> list[str]:
        chains = ChainDataset([Draw()(source) for source in sources])
        loader = DataLoader(chains, batch_size=None, num_workers=2, multiprocessing_context=forkserver())
        try:
            return [sample["key"] for sample in loader]
        except UsageError as error:
            # Or torch's iterator goes with a cycle of garbage. Then its queues are closed before it can tell its
            # workers to end, and it waits 5 s for each, whatever the dataset is.
            traceback.clear_frames(error.__traceback__)
            raise

    names = [f"k{i}" for i in range(6)]
    listed = [{"key": f"list {name}"} for name in names]
    expected = [f"{kind} {name}" for kind in ("dict", "divided", "list") for name in names]
    found = keys(listed, {f"dict {name}": {} for name in names}, Divided())
    assert sorted(found) == expected
    assert found[:6] == [f"list {name}" for name in names]
    with pytest.raises(UsageError, match="cannot be divided among 2 DataLoader workers"):
        keys(listed, Undivided())  # the list lets both workers start before one fails
