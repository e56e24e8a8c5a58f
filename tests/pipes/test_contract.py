"""Each stage of the package against the contract, and the declarations of the chained methods."""

from __future__ import annotations

import ast
import atexit
import inspect
import math
import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import soundfile

from s3prl_stream import pipes
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes import NoiseBank, RirBank, chained_methods
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample
from s3prl_stream.shards.npy import encode_features
from tests import contract
from tests.contract import StageCase

RATE = 16_000

BankType = TypeVar("BankType", NoiseBank, RirBank)


def waveforms() -> list[Sample]:
    rng = np.random.default_rng(0)
    seconds = (0.5, 1.25, 1.0)
    return [
        {
            "wav": 0.1 * rng.standard_normal(round(s * RATE), dtype=np.float32),
            "sample_rate": RATE,
            "speaker": f"s{round(s)}",
        }
        for s in seconds
    ]


def files() -> list[Sample]:
    return [{**sample, "wav": (sample["wav"] * 32767).astype(np.int16), "sample_rate": 8_000} for sample in waveforms()]


def extracted() -> list[Sample]:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((frames, 2, 3), dtype=np.float32) for frames in (4, 7)]
    return [{"audio": encode_features(array), "codec": "npy"} for array in arrays]


def texts() -> list[Sample]:
    return [{"text": "ONE TWO"}, {"text": "IT'S"}, {"text": ""}]


def labelled() -> list[Sample]:
    return [
        {"label": label, "labels": labels, "action": labels[0]}
        for label, labels in (("b", ["x", "on"]), ("a", ["y", "off"]), ("b", ["x", "off"]))
    ]


def recordings() -> list[Sample]:
    segments = [{"start": 0.1, "end": 0.3, "label": "ann"}, {"start": 0.2, "end": 0.9, "label": "bob"}]
    return [{**sample, "segments": segments[:number]} for number, sample in enumerate(waveforms())]


def features() -> list[Sample]:
    rng = np.random.default_rng(0)
    return [{"feat": rng.standard_normal((frames, 80), dtype=np.float32)} for frames in (60, 99, 41)]


@cache
def bank(kind: type[BankType]) -> BankType:
    """A bank of three short noises."""
    folder = Path(tempfile.mkdtemp(prefix="s3prl_stream_bank"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(2_000 + number), RATE)
    return kind(folder, cache=folder)


def other_bank() -> NoiseBank:
    return NoiseBank(Path(pipes.__file__).parents[2] / "shards" / "sample", cache=bank(NoiseBank)._path.parent)


STAGES = {
    "load_audio": StageCase(
        pipes.LoadAudio,
        files,
        {
            "sample_rate": 8_000,
            "dtype": "int16",
            "channel": "mean",
            "sox_effects": [["gain", "-3"]],
            "crop_segment": True,
        },
    ),
    "norm_wav": StageCase(pipes.NormWav, waveforms, {"target_db": -20.0}),
    "add_noise": StageCase(
        lambda: pipes.NoiseAugmentation(prob=0.9),
        waveforms,
        {"noise": bank(NoiseBank), "snr": (0.0, 5.0), "prob": 0.5},
        random=True,
        single_valued=frozenset({"voices"}),
    ),
    "add_noise_of_a_bank": StageCase(
        lambda: pipes.NoiseAugmentation(noise=bank(NoiseBank), voices=(1, 3), prob=0.9),
        waveforms,
        {"noise": other_bank(), "snr": (0.0, 5.0), "prob": 0.5, "voices": 2},
        random=True,
    ),
    "random_gain": StageCase(pipes.RandomGain, waveforms, {"gain_db": 3.0, "prob": 0.5}, random=True),
    "perturb_speed": StageCase(pipes.SpeedPerturbation, waveforms, {"factors": (0.8, 1.2), "prob": 0.5}, random=True),
    "spec_augment": StageCase(
        pipes.SpecAugment,
        features,
        {
            "freq_width": (1, 5),
            "freq_masks": 1,
            "time_width": (1, 5),
            "time_masks": 1,
            "max_time_share": 0.2,
            "warp_frames": 0,
            "fill": "mean",
            "prob": 0.5,
        },
        random=True,
    ),
    "reverberate": StageCase(
        lambda: pipes.Reverberation(prob=0.9),
        waveforms,
        {"rooms": bank(RirBank), "rt60": 0.3, "drr_db": 3.0, "max_seconds": 1.0, "prob": 0.5},
        random=True,
    ),
    "reverberate_by_a_bank": StageCase(
        lambda: pipes.Reverberation(rooms=bank(RirBank)),
        waveforms,
        {"rooms": "simulated", "rt60": 0.3, "drr_db": 3.0, "max_seconds": 1.0, "prob": 0.5},
        random=True,
    ),
    "on": StageCase(lambda: pipes.OnDevice(device="cpu"), waveforms, {"device": "cuda"}),
    "record_draws": StageCase(pipes.RecordDraws, waveforms, {}),
    "sox_effects": StageCase(
        lambda: pipes.SoxEffects(effects=[["tempo", (0.8, 1.2)], ["dither"]], prob=0.9),
        waveforms,
        {"effects": [["gain", "-3.0"]], "prob": 0.5},
        random=True,
    ),
    "chunk": StageCase(
        lambda: pipes.UnfoldChunkBySec(min_seconds=0.2, max_seconds=0.4),
        waveforms,
        {
            "min_seconds": 0.3,
            "max_seconds": None,
            "step_seconds": 0.1,
            "tail": "merge",
            "tokens": "refuse",
            "sample_rate": RATE,
        },
        random=True,
    ),
    "chunk_frames": StageCase(
        lambda: pipes.UnfoldChunkByFrame(min_frames=20, max_frames=40),
        waveforms,
        {
            "min_frames": 30,
            "max_frames": None,
            "step_frames": 10,
            "hop_samples": 320,
            "tail": "merge",
            "tokens": "refuse",
            "sample_rate": RATE,
        },
        random=True,
    ),
    "crop": StageCase(
        lambda: pipes.RandomCrop(max_seconds=0.75), waveforms, {"max_seconds": 1.0, "sample_rate": RATE}, random=True
    ),
    "tokenize": StageCase(
        lambda: pipes.EncodeText(tokenizer=pipes.CharacterTokenizer()),
        texts,
        {
            "tokenizer": pipes.CharacterTokenizer("ABC"),
            "train_tokenizer": True,
            "vocab_type": "word",
            "vocab_size": 20,
            "text": "text",
            "eos": False,
            "max_unknown_share": 1.0,
        },
        single_valued=frozenset({"tags"}),  # tried with its tokenizer in test_tokenize.py
    ),
    "phonemize": StageCase(
        lambda: pipes.Phonemize(lexicon=pipes.Lexicon({"ONE": "W AH1 N", "TWO": "T UW1", "IT'S": "IH1 T S"})),
        texts,
        {
            "lexicon": pipes.Lexicon({"ONE": "W"}),
            "tokenizer": pipes.WordTokenizer(["W"]),
            "text": "text",
            "eos": False,
            "unknown": "keep",
        },
    ),
    "encode_category": StageCase(
        pipes.EncodeCategory, labelled, {"label": "action", "categories": ["a", "b", "c"]}, needs_all=True
    ),
    "encode_categories": StageCase(
        pipes.EncodeMultipleCategory,
        labelled,
        {"labels": ("label", "action"), "categories": [["x", "y"], ["on"]]},
        needs_all=True,
    ),
    "encode_multilabel": StageCase(
        pipes.EncodeMultiLabel, labelled, {"labels": "more", "categories": ["x", "y"]}, needs_all=True
    ),
    "tag_frames": StageCase(
        lambda: pipes.BuildMultiClassTagging(num_labels=2),
        recordings,
        {"num_labels": 3, "hop_samples": 320, "like": "feat", "sample_rate": RATE},
        single_valued=frozenset({"columns", "categories"}),  # of one another: test_tag_frames.py
    ),
    "select": StageCase(lambda: pipes.SetOutputKeys(output_keys=["label"]), labelled, {"output_keys": {"x": "label"}}),
    "features": StageCase(
        pipes.ExtractFeat, waveforms, {"kind": "fbank80", "norm": "none", "deltas": 1, "feat_name": "target_feat"}
    ),
    "mask": StageCase(
        lambda: pipes.MaskedReconstruction(noise_prob=0.5),
        features,
        {
            "kind": "mockingjay",
            "legacy": True,
            "time_share": 0.3,
            "span_frames": 3,
            "band_share": 0.5,
            "overlap": False,
            "noise_prob": 0.0,
        },
        random=True,
    ),
    "mask_spans": StageCase(
        pipes.SpanMask,
        waveforms,
        {"kind": "hubert", "prob": 0.1, "span_frames": 3, "min_spans": 1, "like": "feat"},
        random=True,
    ),
    "load_feat": StageCase(pipes.LoadFeat, extracted, {"layer": 1, "dtype": "float16"}),
    "shift": StageCase(pipes.AutoregressivePrediction, features, {"n_future": 3}),
}

PROMISES: list[Callable[[StageCase], None]] = [
    contract.assert_input_is_not_mutated,
    contract.assert_output_follows_identity,
    contract.assert_survives_pickle,
    contract.assert_serves_two_chains,
    contract.assert_is_its_configuration,
    contract.assert_contract_is_true,
    contract.assert_misfits_are_refused,
    contract.assert_prints_itself,
]


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__.removeprefix("assert_"))
def test_stage_keeps_promise(promise: Callable[[StageCase], None], name: str) -> None:
    promise(STAGES[name])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_stages_work_in_a_loader(num_workers: int) -> None:
    contract.assert_all_work_in_loader(STAGES, num_workers)


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_at_home_in_other_loaders(name: str) -> None:
    contract.assert_works_as_a_function(STAGES[name])
    contract.assert_works_in_pipelines_of_others(STAGES[name])


def test_every_public_stage_is_in_the_table() -> None:
    public = {
        value.functional_name
        for value in vars(pipes).values()
        if isinstance(value, type) and issubclass(value, Stage) and value.functional_name
    }
    on_batches = {"mix_utterances"}  # a list has no batches: tests/pipes/test_mix_utterances.py
    assert public == {case.build().functional_name for case in STAGES.values()} | on_batches


def test_every_stage_file_is_imported_and_listed() -> None:
    listed = {f"{name}.py" for name in vars(pipes)} | {"__init__.py"}
    folder = Path(pipes.__file__).parent
    stages = {path.name for path in folder.glob("*.py") if "\n@chained(" in path.read_text("utf-8")}
    assert len(stages) > 5
    assert stages <= listed
    public = {name for name, value in vars(pipes).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert pipes.__all__ == sorted(public - {"annotations"})


def test_promise_fails_on_a_stage_that_breaks_it() -> None:
    class Mutating(pipes.NormWav):
        functional_name = "mutating"

        def emit(self, sample: Sample) -> list[Sample]:
            sample["wav"] *= 2
            return [sample]

    case = StageCase(Mutating, waveforms, {"target_db": -20.0}, random=True)
    with pytest.raises(AssertionError):
        contract.assert_input_is_not_mutated(case)
    with pytest.raises(AssertionError):
        contract.assert_output_follows_identity(case)


def _numeric_settings() -> Iterator[tuple[Stage, str, str]]:
    """(a stage, a parameter of it that is a number or a range of numbers, its annotation)."""
    built = {type(stage): stage for stage in (pipes.MixUtterances(), *(case.build() for case in STAGES.values()))}
    for stage in built.values():
        for name, annotation in _parameters(_constructor(type(stage))).items():
            kind = annotation.split(" = ")[0]
            if re.search(r"\b(int|float)\b", kind) and "Sequence[Sequence" not in kind:
                yield stage, name, kind


def test_a_number_that_is_none_is_told_with_its_stage_and_argument() -> None:
    settings = list(_numeric_settings())
    assert len(settings) > 40
    for stage, name, kind in settings:
        below = [] if name.endswith("_db") or name == "snr" else [-1]
        absent = [] if "None" in kind else [None]
        broken = [] if "float" in kind else [1.5]
        for wrong in ("x", math.nan, math.inf, True, ["x", 1], *below, *absent, *broken):
            with pytest.raises(UsageError, match=rf"^({stage.functional_name}|{type(stage).__name__}): {name}\b.*\W"):
                type(stage)(**{**stage.config(), name: wrong})


def test_numbers_of_numpy_are_those_of_python() -> None:
    for stage, name, _ in _numeric_settings():
        value = stage.config()[name]
        if value is not None and not isinstance(value, str):
            of_numpy = np.asarray(value)[()]  # a scalar, or an array of (lowest, highest)
            assert type(stage)(**{**stage.config(), name: of_numpy}).describe() == stage.describe(), name


# ---- the declarations under TYPE_CHECKING -----------------------------------------------------------


def _declared() -> dict[str, ast.FunctionDef]:
    source = ast.parse(inspect.getsource(chained_methods))
    body = next(node for node in source.body if isinstance(node, ast.ClassDef)).body
    block = next(node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {node.name: node for node in block.body if isinstance(node, ast.FunctionDef)}


def _constructor(cls: type[Stage]) -> ast.FunctionDef:
    function = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(cls.__init__)))).body[0]
    assert isinstance(function, ast.FunctionDef)
    return function


def _parameters(function: ast.FunctionDef) -> dict[str, str]:
    """Name -> "annotation = default", without self and source."""
    arguments = function.args
    positional = dict(
        zip(
            (a.arg for a in arguments.args),
            [*[None] * (len(arguments.args) - len(arguments.defaults)), *arguments.defaults],
            strict=True,
        )
    )
    defaults = {**positional, **{a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}}
    written = {}
    for argument in (*arguments.args, *arguments.kwonlyargs):
        default, annotation = defaults[argument.arg], argument.annotation
        kind = ast.unparse(annotation) if annotation is not None else ""
        written[argument.arg] = f"{kind} = {ast.unparse(default)}" if default is not None else kind
    return {name: text for name, text in written.items() if name not in ("self", "source")}


def test_declared_methods_agree_with_constructors() -> None:
    classes = {type(case.build()).functional_name: type(case.build()) for case in STAGES.values()}
    classes["mix_utterances"] = pipes.MixUtterances
    declared = _declared()
    assert set(declared) == set(classes)
    for name, cls in classes.items():
        assert _parameters(declared[name]) == _parameters(_constructor(cls)), name
        by_position = [a.arg for a in declared[name].args.args if a.arg != "self"]
        assert by_position == ([cls.positional] if cls.positional else []), name


BEGINNING = """
from s3prl_stream.pipes import NormWav
source = NormWav([])
"""
RIGHT = """
chain = source.load_audio(sample_rate=8_000).add_noise(snr=[3, 6], prob=0.5).chunk(min_seconds=2).norm_wav()
chain = chain.features("logmel80", norm="none", deltas=2).mask("tera", noise_prob=0.1).shift(5).mask_spans("hubert")
chain = source.crop(8.0).chunk_frames(min_frames=100, step_frames=50).tag_frames(num_labels=2).encode_category("label")
chain = chain.encode_categories(("a", "b")).encode_multilabel().tokenize(train_tokenizer=True).select({"x": "wav"})
tokenizer = chain.stage("tokenize").tokenizer
"""
WRONG = """
source.load_audio(sample_rate="high")
source.add_noise(signal_to_noise=3)
source.norm_wav(-25.0)
source.chunk(2.5)
source.tokenize("characters")
source.crop("long")
source.tag_frames(2)
source.encode_category(names=["a"])
source.select(3)
source.mask_spans(probability=0.5)
"""


@pytest.mark.slow
def test_type_checker_sees_the_arguments_of_chained_calls(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is a tool of development")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(BEGINNING + RIGHT + WRONG)
    repository = Path(__file__).parents[2]
    # what mypy remembers of a file with these contents has the path of the last time
    options = ["--strict", "--no-incremental", "--config-file", str(repository / "pyproject.toml")]
    report, errors, _ = api.run([*options, str(snippet)])
    assert not errors
    flagged = {
        int(line.split(":")[1]) for line in report.splitlines() if line.startswith(f"{snippet}:") and ": error:" in line
    }
    lines = (BEGINNING + RIGHT + WRONG).splitlines()
    assert [lines[number - 1] for number in sorted(flagged)] == WRONG.strip().splitlines(), report
