"""The probe: it finds what is there, finds nothing where nothing is, and never looks at the test part to choose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from damage import Row, flip_audio
from torch.testing._internal.distributed.fake_pg import FakeStore

import s3prl_stream as ss
from s3prl_stream import early_probe as on_the_way
from s3prl_stream import probe as module
from s3prl_stream.cli import main
from s3prl_stream.early_probe import ProbeSettings, early_probe
from s3prl_stream.probe import fit_and_score, probe
from s3prl_stream.probe_question import Fold, held_out
from s3prl_stream.probe_question import fold as fold_of
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.shards.shardset import as_shard_set
from s3prl_stream.upstreams.runs import upstream_of
from s3prl_stream.upstreams.upstream import FeatureUpstream

RATE = 16_000


def tones(labels: list[str], speakers: list[str]) -> ss.MemoryShards:
    """Noise with a tone whose pitch is the label's."""
    rng, names = np.random.default_rng(0), sorted(set(labels))
    samples = {}
    for number, (label, speaker) in enumerate(zip(labels, speakers, strict=True)):
        time = np.arange(int(RATE * rng.uniform(0.2, 0.4))) / RATE
        tone = np.sin(2 * np.pi * (500 + 700 * names.index(label)) * time)
        wav = (3000 * (tone + rng.standard_normal(len(time)))).astype(np.int16)
        samples[f"clip{number:03d}"] = {"wav": wav, "sample_rate": RATE, "label": label, "speaker": speaker}
    return ss.MemoryShards(samples)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of two steps."""
    folder = tmp_path_factory.mktemp("run")
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ffn_size": 16, "max_batch_seconds": 5.0}
    data = tones(["a", "b"] * 10, ["s"] * 20)
    ss.pretrain("tera", data, steps=2, out=folder, crop_seconds=1.0, device="cpu", quiet=True, **sizes)
    return folder


def test_tones_are_found_by_every_kind_of_features(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int | None] = []

    def noted(name: Any, **how: Any) -> Any:
        made.append(how.get("seed"))
        return ss.upstream(name, **how)

    monkeypatch.setattr(module, "upstream", noted)
    result = probe(tones(["a", "b", "c"] * 20, ["x", "y"] * 30), run, label="label", seeds=2)
    assert [(row.features, row.layer) for row in result.rows] == [
        ("logmel80", "-"),
        ("untrained", "last"),
        ("untrained", "best"),
        ("pretrained", "last"),
        ("pretrained", "best"),
    ]
    assert made == [None, 1000, 1001, None]  # each seed has untrained weights of its own
    assert result.rows[0].accuracy > 0.95
    assert (result.classes, result.utterances, result.damaged, result.without_label) == (3, 60, 0, 0)
    assert {layer for row in result.rows if row.layer == "last" for layer in row.chosen_layers} == {2}
    assert all(set(row.chosen_layers) <= {0, 1, 2} for row in result.rows)


def test_upstreams_that_are_no_runs_are_compared_with_log_mel_alone() -> None:
    result = probe(tones(["a", "b"] * 20, ["x", "y"] * 20), "spectrogram", label="label", seeds=1)
    assert [(row.features, row.layer) for row in result.rows] == [
        ("logmel80", "-"),
        ("pretrained", "last"),
        ("pretrained", "best"),
    ]
    assert result.rows[-1].accuracy > 0.95


def test_labels_by_chance_are_not_found() -> None:
    rng = np.random.default_rng(1)
    data = tones(["a"] * 120, ["x" if one else "y" for one in rng.random(120) < 0.5])
    result = probe(data, "logmel80", label="speaker", seeds=3)
    assert [row.features for row in result.rows] == ["logmel80"]
    assert 0.25 < result.rows[0].accuracy < 0.75


def test_held_out_groups_are_the_test_part() -> None:
    data = tones(["a", "b"] * 20, ["p", "q", "r", "s"] * 10)
    named = probe(data, "logmel80", label="label", holdout="speaker=q, r", seeds=1)
    assert (named.train, named.test) == (20, 20)
    turns = probe(data, "logmel80", label="label", holdout="speaker", seeds=1)
    assert (turns.train, turns.test, turns.split) == (30, 10, "each speaker held out in turn")
    where = probe(data, "logmel80", label="label", test_where='speaker == "s"', seeds=1)
    assert (where.train, where.test) == (30, 10)


def test_the_validation_part_is_of_other_groups_and_of_the_training_part() -> None:
    keys = [("set", str(number)) for number in range(60)]
    groups = [f"g{number % 6}" for number in range(60)]
    by_chance = fold_of("random", np.arange(60) % 4 == 0, keys, 0)
    assert not (by_chance.test & by_chance.validation).any()
    for name, test in held_out(groups, "speaker", []):
        fold = fold_of(name, test, keys, 0, groups)
        assert not (fold.test & fold.validation).any()
        of_test, of_validation = (
            {g for g, on in zip(groups, part, strict=True) if on} for part in (fold.test, fold.validation)
        )
        assert len(of_test) == len(of_validation) == 1
        assert of_test != of_validation


def test_the_choice_does_not_depend_on_test_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the test labels shuffled the chosen layers and penalties stay."""
    asked: list[tuple[Any, ...]] = []
    original = fit_and_score

    def spy(features: Any, classes: Any, train: Any, test: Any, *, l2: float, seed: int) -> float:
        asked.append((features.tobytes(), train.tobytes(), test.tobytes(), l2))
        return original(features, classes, train, test, l2=l2, seed=seed)

    monkeypatch.setattr(module, "fit_and_score", spy)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 80, 5)).astype(np.float32)
    classes = rng.integers(0, 2, 80)
    features[1, :, 0] += 3 * classes
    fold = fold_of("x", np.arange(80) % 4 == 0, [("s", str(n)) for n in range(80)], 0)
    first = module._score_fold(features, classes, fold, 0)
    calls, asked[:] = list(asked), []
    shuffled = classes.copy()
    shuffled[fold.test] = 1 - shuffled[fold.test]
    second = module._score_fold(features, shuffled, fold, 0)
    assert calls == asked
    fitted = ~fold.test & ~fold.validation
    parts = {
        (train, test) for _, train, test, _ in calls
    }  # chosen on what was not fitted, then fitted on all of training
    assert parts == {(fitted.tobytes(), fold.validation.tobytes()), ((~fold.test).tobytes(), fold.test.tobytes())}
    assert first["best"][1] == second["best"][1] == 1
    assert first["best"][0] == pytest.approx(1 - second["best"][0])


def test_logistic_regression_is_the_minimum() -> None:
    """Two classes on a line, against a fine grid over the weight difference."""
    values = np.array([-2.0, -1.0, -0.5, 0.3, 1.0, 2.0], dtype=np.float32)[:, None]
    classes = np.array([0, 0, 1, 0, 1, 1])
    every = np.ones(6, dtype=np.bool_)
    assert fit_and_score(values, classes, every, every, l2=1e-4, seed=0) == pytest.approx(4 / 6)
    clear = np.array([0, 0, 0, 1, 1, 1])
    assert fit_and_score(values, clear, every, every, l2=1e-4, seed=0) == 1.0
    uneven = np.array([0, 0, 0, 0, 0, 1])
    assert fit_and_score(values, uneven, every, every, l2=1e3, seed=0) == pytest.approx(5 / 6)  # the bias alone is free


def test_the_test_part_has_no_say_in_the_scale() -> None:
    """Were it scaled by its own outlier, two classes of which one is rare would be one."""
    values = np.array([-1.0] * 6 + [1.0] * 2 + [-1.0, 1.0, 1e4], dtype=np.float32)[:, None]
    classes = np.array([0] * 6 + [1] * 2 + [0, 1, 1])
    train = np.arange(11) < 8
    assert fit_and_score(values, classes, train, ~train, l2=1e-2, seed=0) == 1.0


def test_figures_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = Fold(np.arange(7) >= 2, np.zeros(7, dtype=np.bool_))
    assert module._chance(np.array([0, 0, 0, 1, 1, 1, 1]), fold) == 0.2  # the most frequent in training is 0
    scores = {"last": [0.2, 0.6], "best": [0.5, 0.5]}
    monkeypatch.setattr(
        module,
        "_score_fold",
        lambda features, classes, fold, seed: {name: (by[seed], 1) for name, by in scores.items()},
    )
    rows = module._table({"x": np.zeros((2, 7, 1))}, np.zeros(7), {0: [fold], 1: [fold]})
    assert [(row.layer, row.accuracy, row.spread) for row in rows] == [
        ("last", pytest.approx(0.4), pytest.approx(0.08**0.5)),  # the deviation of a sample of two
        ("best", 0.5, 0.0),
    ]


def test_means_over_frames_do_not_see_the_padding() -> None:
    recipe = find_recipe("tera").having({"hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 8})
    data, network = (
        as_shard_set(tones(["a", "b"] * 6, ["s"] * 12)),
        {"x": upstream_of(recipe, build_objective(recipe)).eval()},
    )
    (keys, alone, _), (same, together, _) = (
        module.extract_pooled(data, network, max_batch_seconds=seconds) for seconds in (0.5, 120.0)
    )
    assert keys == same
    np.testing.assert_allclose(alone["x"], together["x"], atol=1e-4)


def test_on_the_way_the_last_layer_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("logmel80", "-", 0.1), ("pretrained", "last", 0.2), ("pretrained", "best", 0.3)]
    found = SimpleNamespace(rows=[module.ProbeRow(name, layer, accuracy, 0.0, ()) for name, layer, accuracy in rows])
    monkeypatch.setattr(on_the_way, "probe", lambda *_, **__: found)
    recipe = find_recipe("apc").having({"hidden_size": 8})
    hook = early_probe(ProbeSettings(label="label"), tones(["a", "b"] * 10, ["x"] * 20))(
        recipe, build_objective(recipe)
    )
    assert hook.ask(1) == {"probe_accuracy": 0.2, "probe_logmel80": 0.1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "colour"}, "no column 'colour'"),
        ({"label": "label", "holdout": "speaker=zoe"}, "speaker has no value zoe; it has x, y"),
        ({"label": "label", "holdout": "colour"}, "no column 'colour'"),
        ({"label": "label", "test_where": "seconds > 0"}, "leaves only test utterances"),
        ({"label": "label", "test_where": "seconds > 9"}, "leaves no test utterances"),
        ({"label": "label", "where": 'label == "a"'}, "1 value"),
        ({"label": "label", "test_where": 'label == "b"'}, r"'label' that occurs in training.*2 values, 20 utterances"),
        ({"label": "seconds"}, r"label 'seconds' holds measures, such as 0\.\d+, and a probe tells classes apart"),
        ({"label": "label", "where": "seconds == 'x'"}, "where: .* cannot be evaluated: a column is compared with"),
        ({"label": "label", "test_where": "speaker > 1"}, "where: .* cannot be evaluated: a column is compared with"),
        ({"label": "label", "seeds": 0}, "seeds is 0"),
        ({"label": "label", "holdout": "speaker", "test_where": "seconds > 1"}, "not both"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], said: str) -> None:
    data = tones(["a", "b"] * 10, ["x", "y"] * 10)
    with pytest.raises(ss.UsageError, match=said):
        probe(data, "logmel80", **options)


def test_features_that_are_not_finite_are_no_features() -> None:
    class Broken(FeatureUpstream):
        def forward(self, wavs: Any, lengths: Any = None) -> list[torch.Tensor]:
            return [super().forward(wavs, lengths)[0] * float("nan")]

    data = tones(["a", "b"] * 10, ["x"] * 20)
    with pytest.raises(ss.StreamError, match="hidden state 0 of pretrained is not finite for clip000"):
        probe(data, Broken(None, FrontEnd("logmel80"), norm="none"), label="label", seeds=1)


def test_the_network_that_is_being_trained_is_asked_where_it_is() -> None:
    """Its upstream is made before the network is moved to a device; "meta" stands for a GPU."""
    recipe = find_recipe("tera").having({"hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 8})
    objective = build_objective(recipe)
    up = upstream_of(recipe, objective)
    objective.to("meta")
    assert up([torch.zeros(4000)])[-1].device.type == "meta"


def test_a_network_of_ones_own_that_cannot_be_probed_is_refused_at_once() -> None:
    class Own(torch.nn.Module):
        hidden_size = 8

    make = early_probe(ProbeSettings(label="label"), tones(["a", "b"] * 10, ["x"] * 20))
    with pytest.raises(ss.UsageError, match="Own needs an integer attribute `num_layers`"):
        make(find_recipe("tera"), build_objective("tera", encoder=Own()))


def test_one_rank_of_several_is_told_about_all_of_a_set(tmp_path: Path, run: Path) -> None:
    """The probe during a pretraining runs on the first rank alone, and batches are dealt to all."""
    data = tones(["a", "b"] * 10, ["s"] * 20)
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        keys, _, _ = module.extract_pooled(as_shard_set(data), {}, max_batch_seconds=1.0)
        report = ss.extract(data, run, tmp_path / "set", layers=[0], max_batch_seconds=1.0)
    finally:
        torch.distributed.destroy_process_group()
    assert len(keys) == report.samples == 20


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    probe(tones(["a", "b"] * 10, ["x"] * 20), "logmel80", label="label", seeds=1)
    assert torch.get_num_threads() == before


def test_the_command_prints_a_table_or_json(
    sample_set: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["probe", "--upstream", str(run), "--label", "digit", "--seeds", "1", "--device", "cpu"]
    words += ["--where", 'speaker in ("bruno", "hugh", "jonah") and digit is not None', "--data"]
    damaged = shutil.copytree(sample_set, tmp_path / "damaged")
    rows = as_shard_set(sample_set).table().to_pylist()
    used = next(row for row in rows if row["speaker"] == "hugh" and row["digit"] is not None)
    flip_audio(damaged, Row(*(used[name] for name in Row._fields)))
    assert main([*words, str(damaged), "--test-where", 'speaker == "hugh"']) == 1
    shown = capsys.readouterr().out
    assert "digit: 10 classes" in shown
    assert "\n1 utterances could not be read and were left out\n" in shown
    assert shown.count("+-") == 5
    words.append(str(sample_set))
    assert main([*words, "--center", "colour"]) == 2
    assert "no column 'colour'" in capsys.readouterr().err
    assert main([*words, "--upstream", "logmel80", "--holdout", "speaker=hugh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["features"] == "logmel80"


def test_centering_takes_the_offset_of_each_group_away() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 30, 4)).astype(np.float32)
    groups = ["a", "b", "c"] * 10
    offset = np.array([{"a": 5.0, "b": -3.0, "c": 0.5}[group] for group in groups], dtype=np.float32)
    centered = module._centered(features + offset[None, :, None], groups)
    np.testing.assert_allclose(centered, module._centered(features, groups), atol=1e-5)
    for group in "abc":
        np.testing.assert_allclose(centered[:, [one == group for one in groups]].mean(axis=1), 0.0, atol=1e-6)
