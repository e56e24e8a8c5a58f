"""Training downstream: each task learns a handful of clips by heart; runs resume exactly; mistakes are told."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from downstream.synthetic import classes, conversations, texts, tone
from torch import Tensor, nn

import s3prl_stream as ss
from s3prl_stream.downstream.build import build_task
from s3prl_stream.downstream.evaluate import load_run
from s3prl_stream.downstream.judge import answers_to
from s3prl_stream.downstream.recipe import RECIPES, TaskRecipe, find_task
from s3prl_stream.downstream.search import search_queries
from s3prl_stream.downstream.streams import judged_stream, train_stream
from s3prl_stream.downstream.texts import TextSource, marked
from s3prl_stream.downstream.train import LAYER_WEIGHTS
from s3prl_stream.metrics import max_twv
from s3prl_stream.pipes.noise_bank import NoiseBank
from s3prl_stream.probe import probe
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.shards.shardset import as_shard_set
from s3prl_stream.tasks import SpeakerVerification
from s3prl_stream.tasks.query_by_example import costs_in, scores_of
from s3prl_stream.tasks.segments import active_frames, turns_of
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.vocabulary import PHONEMES
from s3prl_stream.trainer.checkpoint import load_weights, newest_checkpoint
from s3prl_stream.upstreams import FeatureUpstream

QUIET: dict[str, Any] = {"device": "cpu", "quiet": True, "upstream": "logmel80"}
RNN = {
    "head": "rnn", "head.project_size": 32, "head.hidden_size": 32, "head.num_layers": 1, "head.dropout": 0.0,
    "head.bidirectional": True, "head.spec_augment": False,
}  # fmt: skip
ONE = {"update_batches": 1, "max_batch_size": 12}

LEXICON = Lexicon({"abc": "AH0 B K", "dab": "D AH0 B", "cd": "K D", "bad": "B AH0 D", "ad": "AH0 D"})

LEARNT: dict[str, tuple[Any, dict[str, Any], dict[str, float]]] = {
    "ks": (classes, {"steps": 20}, {"accuracy": 1.0}),
    "sid": (classes, {"steps": 20, "crop_seconds": 0.2, **ONE}, {"accuracy": 1.0}),
    "er": (
        classes,
        {"steps": 60, "head": "transformer", "head.hidden_size": 16, "head.num_layers": 1, "lr": 3e-3, **ONE},
        {"accuracy": 1.0},
    ),
    "ic": (classes, {"steps": 40, "label": ["label", "loud"]}, {"accuracy": 1.0}),
    "tag": (classes, {"steps": 40, "label": "tags"}, {"mean_average_precision": 1.0, "f1": 1.0}),
    "asv": (
        classes,
        {"steps": 60, "min_seconds": 0.0, "head.project_size": 32, "head.hidden_size": 32, "head.last_size": 64,
         "task.embedding_size": 32, "clip_norm": 1e3, **ONE},
        {"equal_error_rate": 0.0, "min_dcf": 0.0},
    ),
    "asr": (texts, {"steps": 100, "lr": 2e-2, **RNN}, {"wer": 0.0, "cer": 0.0}),
    "pr": (texts, {"steps": 100, "lr": 2e-2, "lexicon": LEXICON, **RNN, **ONE}, {"per": 0.0}),
    "sf": (texts, {"steps": 100, "lr": 2e-2, **RNN}, {"slot_type_f1": 1.0, "slot_value_cer": 0.0}),
    "sd": (conversations, {"steps": 60, **ONE, **RNN, "task.median_frames": 1}, {"diarization_error_rate": 0.0}),
    "frames": (conversations, {"steps": 40}, {"accuracy": 1.0}),
}  # fmt: skip
"""Task -> data, settings, and the figures that it ends at."""


@pytest.mark.parametrize("task", LEARNT)
def test_a_handful_is_learnt_by_heart(task: str, tmp_path: Path) -> None:
    data, settings, figures = LEARNT[task]
    wanted = {"lr": 1e-2, "clip_norm": 5.0, "normalize": True, **QUIET, **settings}
    result = ss.train(task, data(), out=tmp_path / "run", **wanted)
    assert result.last_step == settings["steps"]
    found = ss.evaluate(tmp_path / "run", data(), device="cpu")
    assert found.utterances == len(data())
    assert {name: found.figures[name] for name in figures} == pytest.approx(figures, abs=1e-9)


def test_a_query_is_found_by_example() -> None:
    """Each word of tones is in one of the documents: nothing is trained, and all of them are found."""
    documents = texts(("dd abc dd", "cc dab cc", "dd cc", "bb aa", "cb ad"))
    spoken = search_queries(texts(("abc", "dab")), documents, upstream="logmel80", device="cpu")
    assert (spoken.max_twv, spoken.queries, spoken.documents, spoken.damaged) == (1.0, 2, 5, 0)
    assert spoken.max_twv_of_layers == {0: 1.0}
    asked = texts(("abc", "dab"))
    asked.name = "asked"  # a clip's noise follows from its set and key
    noise: dict[str, Any] = {"noise": "gaussian", "snr": (-60.0, -60.0)}
    drowned = search_queries(asked, documents, upstream="logmel80", device="cpu", **noise)
    assert drowned.max_twv < 1.0
    wrong = texts(("abc", "dab"))
    for sample, said in zip(wrong._samples, ("dab", "abc"), strict=True):
        sample["text"] = said
    nothing = search_queries(wrong, documents, upstream="logmel80", device="cpu")
    assert (nothing.max_twv, nothing.threshold) == (
        0.0,
        None,
    )  # best is to find nothing, at no score that JSON could say
    said = [{**{name: value for name, value in sample.items() if name != "text"}, "said": sample["text"]}
            for sample in documents._samples]  # fmt: skip
    said[2]["said"] = "dabs  xabc"  # no word that is asked for
    said.append({**said[0], "key": "left out", "said": "dab"})
    asked._samples[0]["text"] = " abc"
    found = search_queries(
        asked, ss.MemoryShards(said), upstream="logmel80", device="cpu", document_label="said", where="text != 'dab'",
        document_where="said != 'dab'",
    )  # fmt: skip
    assert (found.max_twv, found.queries, found.documents) == (1.0, 1, 5)
    with pytest.raises(ss.UsageError, match="layer 1: this upstream has hidden states 0 to 0"):
        search_queries(texts(), texts(), upstream="fbank80", layer=1)
    with pytest.raises(ss.UsageError, match="no column 'word'"):
        search_queries(texts(), texts(), upstream="fbank80", label="word")


class Watched(FeatureUpstream):
    """Two layers, the first of which tells nothing; it is counted how many clips' states are held at the same time."""

    def __init__(self) -> None:
        super().__init__(None, FrontEnd("logmel80"))
        self.num_layers = 1
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most_alive = 0
        self.lengths: list[int] = []
        self.peaks: list[float] = []

    def forward(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        self.lengths.append(wavs.shape[1])
        self.peaks.append(float(wavs.abs().max()))
        (feat,) = super().forward(wavs, lengths)
        states = [torch.ones_like(feat), nn.functional.pad(feat, (0, 0, 0, 3), value=9.0)]  # beyond its valid frames
        self.alive.update(state.untyped_storage() for state in states)
        self.most_alive = max(self.most_alive, len(self.alive))
        return states


class Skewed(FeatureUpstream):
    """Log-mel whose bins are loud in different ways, and of which one never says anything."""

    def __init__(self) -> None:
        super().__init__(None, FrontEnd("logmel80"))

    def forward(self, wavs: Any, lengths: Any = None) -> list[Tensor]:
        (feat,) = super().forward(wavs, lengths)
        bins = torch.arange(80.0)
        return [torch.where(bins == 7, 3.0, feat * (1 + bins) + 100 * bins)]


def test_each_dimension_counts_by_its_deviation_over_queries_and_documents() -> None:
    """As in SUPERB: what all frames have in common, and how loud a dimension is, says nothing."""
    asked, documents = texts(("abc", "dab")), texts(("dd abc dd", "cc dab cc", "dd cc", "bb aa", "cb ad"))
    up = Skewed()
    found = search_queries(asked, documents, upstream=up, device="cpu")
    states = [
        [up(torch.from_numpy(sample["wav"])[None] / 32768)[0][0] for sample in samples._samples]
        for samples in (asked, documents)
    ]
    frames = torch.cat([*states[0], *states[1]])
    mean, deviation = frames.mean(dim=0), frames.std(dim=0).clamp(min=1e-9)
    spoken, heard = ([((one - mean) / deviation).numpy() for one in some] for some in states)
    costs = np.array([costs_in(document, spoken) for document in heard])
    is_in = np.array([[said["text"] in there["text"] for there in documents._samples] for said in asked._samples])
    expected = max_twv(scores_of(costs.T), is_in)
    assert (found.max_twv, found.threshold) == (expected.value, pytest.approx(expected.threshold, abs=1e-4))
    assert found.max_twv == 1.0


def test_a_search_holds_the_hidden_states_of_one_document_at_a_time() -> None:
    """All layers of all documents were held: of an hour of speech and HuBERT's 13 layers 7 GB."""
    documents = texts(tuple(f"{first}{second}" for first in "abcd" for second in "abcd"))
    up = Watched().train()
    found = search_queries(texts(("ab", "cd")), documents, upstream=up, device="cpu")
    assert not up.training
    assert (found.documents, list(found.max_twv_of_layers)) == (16, [0, 1])
    assert up.most_alive <= (2 + 2) * 2  # of two queries, the document before and the next
    assert (found.layer, found.max_twv_of_layers[0], found.max_twv) == (1, 0.0, found.max_twv_of_layers[1])
    assert found.max_twv > 0.1
    asked = search_queries(texts(("ab", "cd")), documents, upstream=up, device="cpu", layer=1)
    assert (asked.layer, asked.max_twv_of_layers) == (1, {1: found.max_twv})


def test_each_clip_of_a_search_is_taken_alone(tmp_path: Path) -> None:
    """Without the padding of its batch, with the noise that is asked for, and a damaged one costs itself."""
    (tmp_path / "no.wav").write_text("no sound")
    broken = {"key": "broken", "wav_path": str(tmp_path / "no.wav"), "text": "abc"}
    clips = [ss.MemoryShards([*texts(words)._samples, broken]) for words in (("abc", "d"), ("abc", "d dabcad", "bb"))]
    up = Watched()
    of_queries, of_documents = ([len(one["wav"]) for one in some._samples if "wav" in one] for some in clips)
    found = search_queries(*clips, upstream=up, device="cpu")
    assert (found.queries, found.documents, found.damaged) == (2, 3, 2)
    assert sorted(up.lengths) == sorted(of_queries + 2 * of_documents)  # documents are heard twice
    assert max(up.peaks) < 0.2
    up.peaks.clear()
    search_queries(*clips, upstream=up, device="cpu", noise="gaussian", snr=(-60.0, -60.0))
    assert min(up.peaks) > 10.0


# ---- runs -------------------------------------------------------------------------------------------


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]


def rows_of(samples: ss.MemoryShards) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = as_shard_set(samples).table().to_pylist()
    return rows


def test_a_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """With dropout, SpecAugment, noise, crops and two batches an update: all that draws."""
    settings: dict[str, Any] = {
        **QUIET, **RNN, "head.dropout": 0.3, "head.spec_augment": True, "lr": 1e-3, "max_batch_size": 3,
        "update_batches": 2, "noise": "gaussian", "snr": (5, 20), "checkpoint_every": 4, "valid_where": "text == 'bad'",
        "evaluate_every": 3,
    }  # fmt: skip
    ss.train("asr", texts(), out=tmp_path / "one", steps=8, **settings)
    ss.train("asr", texts(), out=tmp_path / "two", steps=4, **settings)
    again = ss.train("asr", texts(), out=tmp_path / "two", steps=8, **settings)
    assert (again.first_step, again.last_step) == (4, 8)
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    assert len(set(losses(tmp_path / "one"))) == 8
    left = tmp_path / "two" / LAYER_WEIGHTS
    shutil.copytree(newest_checkpoint(tmp_path / "two"), tmp_path / "two/checkpoints/step-00000000")  # of a kill too
    left.unlink()  # as a kill after the last checkpoint leaves it
    ss.train("asr", texts(), out=tmp_path / "two", steps=8, **settings)
    assert left.read_bytes() == (tmp_path / "one" / LAYER_WEIGHTS).read_bytes()
    one, two = (load_weights(newest_checkpoint(tmp_path / name)) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(ss.StateError, match=r"lr was 0\.001, is 0\.01"):
        ss.train("asr", texts(), out=tmp_path / "two", steps=9, **{**settings, "lr": 0.01})
    with pytest.raises(ss.StateError, match="upstream was"):
        ss.train("asr", texts(), out=tmp_path / "two", steps=9, **{**settings, "upstream": "fbank"})


def test_parts_are_those_of_the_run(tmp_path: Path) -> None:
    """What `train` begins with, for those who train otherwise; a frozen upstream goes where the model goes."""
    settings: dict[str, Any] = {"device": "cpu", "upstream": "logmel80", "lr": 1e-2, "steps": 1, "normalize": True}
    parts = ss.training_parts("ks", classes(), valid_where="part == 'test'", **settings)
    ss.train("ks", classes(), valid_where="part == 'test'", out=tmp_path / "run", quiet=True, **settings)
    batch = next(iter(ss.Loader(parts.stream)))
    assert parts.model(batch).mean.item() == pytest.approx(losses(tmp_path / "run")[0], rel=1e-6)
    assert parts.judged is not None
    tested = [key for judged in ss.Loader(parts.judged) for key in judged["key"]]
    assert set(tested).isdisjoint(batch["key"])
    assert len(tested) == 3
    assert (parts.settings.num_steps, parts.settings.lr, parts.settings.best_by) == (1, 1e-2, "valid_accuracy")
    parts.model.to("meta")
    assert {one.device.type for one in parts.model.upstream.buffers()} == {"meta"}
    with pytest.raises(ss.UsageError, match="no setting 'learning_rate'"):
        ss.training_parts("ks", classes(), **{**settings, "learning_rate": 1})


def test_classes_of_the_validation_part_that_are_not_trained_on_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"where": "label != 'a'", "device": "cpu", "upstream": "logmel80", "evaluate_every": 1}
    result = ss.train("ks", classes(), valid_where="key in ('clip00', 'clip01', 'clip04')", out=tmp_path, steps=2,
                      **settings)  # fmt: skip
    assert result.unknown == {"a": 2}
    said = "valid: 2 clips count as missed, of classes not trained on (a ...)\n"
    assert capsys.readouterr().err.count(said) == 1


def test_settings_of_training_are_passed_on() -> None:
    asked: dict[str, Any] = {
        "lr": 3e-3, "clip_norm": 7.0, "optimizer": "adamw", "update_batches": 3, "precision": "bf16", "seed": 9,
        "checkpoint_every": 5, "keep_checkpoints": 4, "tensorboard": True,
    }  # fmt: skip
    parts = ss.training_parts("ks", classes(), device="cpu", upstream="logmel80", noise="gaussian", snr=5, **asked)
    assert str(parts.noise) == "gaussian at 5 to 5 dB"
    assert {name: getattr(parts.settings, name) for name in asked} == asked


def test_judging_is_without_chance_and_leaves_the_model_in_its_mode() -> None:
    both = [classes(4), ss.MemoryShards(classes(4)._samples, "again")]
    settings: dict[str, Any] = {**LEARNT["asv"][1], "device": "cpu", "upstream": "logmel80", "head.spec_augment": True}
    model = ss.training_parts("asv", both, **settings).model
    found = []
    for training in (True, False):
        model.train(training)
        loader = ss.Loader(judged_stream(as_shard_set(both)), rank=0, world_size=1)
        found.append(answers_to(model, loader, torch.device("cpu"), with_references=False))
        assert model.training == training
    assert [(one.set, one.key) for one in found[0]] == [
        (name, f"clip{number:02d}") for name in ("again", "memory") for number in range(4)
    ]
    assert all(np.array_equal(one.answer, other.answer) for one, other in zip(*found, strict=True))


def test_the_validation_part_is_not_trained_on_and_chooses(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**QUIET, "lr": 1e-2, "steps": 30, "evaluate_every": 10, "balance": False}
    result = ss.train("ks", classes(), out=tmp_path / "run", valid_where="part == 'test'", **settings)
    assert result.metrics == {"valid_accuracy": 1.0}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]
    best = next(line["step"] for line in lines if line["valid_accuracy"] == 1.0)
    shutil.copytree(tmp_path / f"run/best/step-{best:08d}", tmp_path / "run/best/step-00000001")  # as a kill leaves it
    assert ss.evaluate(tmp_path / "run", classes(), device="cpu").checkpoint == f"step-{best:08d}"
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "run/losses.jsonl").read_text().splitlines()]
    trained = sum(row["seconds"] for row in rows_of(classes()) if row["part"] == "train")
    assert seconds[0] == pytest.approx(trained)  # one batch is the whole part
    settings["steps"] = 1
    ss.train("ks", classes(), out=tmp_path / "other", valid=classes(4), where="part == 'train'", **settings)
    assert json.loads((tmp_path / "other/run.json").read_text())["valid"].endswith(as_shard_set(classes(4)).fingerprint)


def test_a_validation_part_that_cannot_be_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the first look at it, thousands of steps later."""
    settings: dict[str, Any] = {**QUIET, "steps": 1, "out": tmp_path / "run"}
    shards = as_shard_set(classes())
    monkeypatch.setattr("s3prl_stream.tasks.verification.MOST_PAIRS", 2)
    with pytest.raises(ss.UsageError, match="valid: 3 utterances are 3 pairs; at most 2"):
        ss.train("asv", shards, valid_where="part == 'test'", min_seconds=0.0, **settings)
    for where, valid_where in ((None, None), (None, "part == 'test'"), ("part == 'train'", "label == 'a'")):
        with pytest.raises(ss.UsageError, match="trained on too"):
            ss.train("ks", shards, valid=shards, where=where, valid_where=valid_where, **settings)
    with pytest.raises(ss.UsageError, match=r"valid: memory has no column 'label'"):
        ss.train("ks", shards, valid=texts(), **settings)
    silent = [{name: one[name] for name in ("key", "wav", "label")} for one in classes(8)._samples]
    with pytest.raises(ss.UsageError, match=r"valid: memory has no column 'loud'"):
        ss.train("ic", shards, label=["label", "loud"], valid=ss.MemoryShards(silent), **settings)
    with pytest.raises(ss.UsageError, match=r"valid: where=.*part == 'x'.*selects none"):
        ss.train("ks", shards, valid_where="part == 'x'", **settings)
    assert not (tmp_path / "run").exists()
    ss.train("ks", shards, valid=shards, where="part == 'train'", valid_where="part == 'test'", **settings)


def test_a_subset_and_noise_are_one_argument_each(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**QUIET, "steps": 1, "balance": False, "max_batch_size": 40}
    ss.train("ks", classes(40), out=tmp_path / "all", **settings)
    ss.train("ks", classes(40), out=tmp_path / "part", subset="30%", **settings)
    ss.train("ks", classes(40), out=tmp_path / "noisy", noise="gaussian", snr=(0, 5), **settings)
    seen = {name: (tmp_path / name / "losses.jsonl").read_text().splitlines()[0] for name in ("all", "part")}
    seconds = {name: json.loads(line)["seconds"] for name, line in seen.items()}
    assert losses(tmp_path / "noisy") != losses(tmp_path / "all")
    assert seconds["part"] == pytest.approx(0.3 * sum(row["seconds"] for row in rows_of(classes(40))), rel=0.1)
    clean = ss.evaluate(tmp_path / "all", classes(), device="cpu")
    assert clean == ss.evaluate(tmp_path / "all", classes(), device="cpu")
    noisy = ss.evaluate(tmp_path / "noisy", classes(), noise="gaussian", snr=(-20, -20), device="cpu")
    assert noisy.figures != ss.evaluate(tmp_path / "noisy", classes(), device="cpu").figures


def test_classes_that_are_numbers(tmp_path: Path) -> None:
    """The index holds them as float64, a batch as float32, or as integers where a small batch has no others."""
    for values in ((1, 1.5, 2), (0.1, 0.2, 0.3), (False, True)):
        samples = [{**one, "rate": values[row % len(values)]} for row, one in enumerate(classes()._samples)]
        run, settings = tmp_path / str(values), {**QUIET, "label": "rate", "steps": 3, "balance": False}
        ss.train("ks", ss.MemoryShards(samples), out=run, max_batch_size=1, **settings)
        assert json.loads((run / "run.json").read_text())["task_config"]["categories"] == list(map(str, values))


def test_classes_are_drawn_equally_often(tmp_path: Path) -> None:
    """SUPERB's keyword spotting: of 9 clips of one word and 3 of another, half of the draws each."""
    recipe = find_task("ks")
    assert recipe.balance
    shards = as_shard_set(classes(12))
    where = "label == 'a' or speaker == 'b' and part == 'train'"
    task = build_task(recipe, shards, where=where, frame_seconds=0.01)
    stream = train_stream(recipe, task, shards, seed=0, where=where, frame_seconds=0.01)
    drawn: dict[str, int] = {}
    for _, batch in zip(range(100), ss.Loader(stream), strict=False):
        for label in batch["label"]:
            drawn[label] = drawn.get(label, 0) + 1
    assert set(drawn) == {"a", "b"}
    assert drawn["a"] == pytest.approx(drawn["b"], rel=0.15)


def test_conversations_are_trained_on_in_pieces(tmp_path: Path) -> None:
    """SUPERB's chunks: every frame once, none longer than asked, each with the labels that it has in the whole."""
    recipe, shards = find_task("sd").having({"chunk_frames": 30}), as_shard_set(conversations())
    task = build_task(recipe, shards, where=None, frame_seconds=0.01)
    stream = train_stream(recipe, task, shards, seed=0, frame_seconds=0.01)
    whole = next(iter(ss.Loader(judged_stream(shards))))
    turns_of_clip = dict(zip(whole["key"], turns_of(whole), strict=True))
    seen: dict[str, list[int]] = {}
    loader = iter(ss.Loader(stream))
    while sum(map(len, seen.values())) < 16:
        batch = next(loader)
        for row, (key, first, length) in enumerate(
            zip(batch["key"], batch["first_frame"], batch["wav_len"].tolist(), strict=True)
        ):
            assert length == 4_000  # a second in four pieces of at most 0.3 s
            seen.setdefault(key, []).append(first := int(first))
            turns = turns_of_clip[key]
            speakers = sorted({turn.speaker for turn in turns})
            there = active_frames(turns, speakers, 100, 0.01)[first // 160 : first // 160 + 25]
            assert np.array_equal(active_frames(turns_of(batch)[row], speakers, 25, 0.01), there)
    assert seen.keys() == turns_of_clip.keys()
    assert all(sorted(firsts) == [0, 4_000, 8_000, 12_000] for firsts in seen.values())
    ss.train("sd", conversations(), out=tmp_path / "run", steps=1, chunk_frames=30, update_batches=1, **QUIET)
    assert json.loads((tmp_path / "run/losses.jsonl").read_text())["seconds"] == pytest.approx(2.0)  # 8 pieces
    assert RECIPES["sd"].chunk_frames == 2_000


# ---- upstreams and heads ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretraining run."""
    run = tmp_path_factory.mktemp("tera")
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ffn_size": 16, "max_batch_seconds": 5.0}
    ss.pretrain("tera", classes(), steps=1, out=run, crop_seconds=1.0, device="cpu", quiet=True, **sizes)
    return run


def test_upstreams_are_frozen_unless_they_are_to_be_trained(tera: Path, tmp_path: Path) -> None:
    settings = {"device": "cpu", "quiet": True, "steps": 3, "lr": 1e-2}
    upstream = ss.upstream(tera)
    before = {name: tensor.clone() for name, tensor in upstream.state_dict().items()}
    ss.train("ks", classes(), upstream=upstream, out=tmp_path / "frozen", **settings)
    weights = load_weights(newest_checkpoint(tmp_path / "frozen"))
    assert not any("upstream" in name for name in weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in upstream.state_dict().items())
    found = ss.evaluate(tmp_path / "frozen", classes(), upstream=ss.upstream(tera), device="cpu")
    assert sum(found.layer_weights) == pytest.approx(1.0)
    assert len(set(found.layer_weights)) == 3  # no longer equal
    ss.train("ks", classes(), upstream=upstream, out=tmp_path / "frozen", **settings)  # complete: nothing to do
    assert json.loads((tmp_path / "frozen/layer_weights.json").read_text()) == pytest.approx(found.layer_weights)

    ss.train("ks", classes(), upstream=tera, out=tmp_path / "tuned", finetune=True, **settings)
    tuned = load_weights(newest_checkpoint(tmp_path / "tuned"))
    name = "trained_upstream.encoder.layers.0.ffn_in.weight"
    assert not torch.equal(tuned[name], before[name.removeprefix("trained_upstream.")])
    found = ss.evaluate(tmp_path / "tuned", classes(), device="cpu")
    other = ss.upstream(tera, trained=False, seed=5)  # what it has learnt is in the run
    assert found == ss.evaluate(tmp_path / "tuned", classes(), upstream=other, device="cpu")
    assert found.utterances == 12


def test_another_upstream_is_refused_at_evaluation(tera: Path, tmp_path: Path) -> None:
    ss.train("ks", classes(), upstream=tera, out=tmp_path / "run", device="cpu", quiet=True, steps=1)
    assert ss.evaluate(tmp_path / "run", classes(), device="cpu").task == "ks"
    shutil.copytree(tera, tmp_path / "moved")  # the same network by another name
    again = ss.train(
        "ks", classes(), upstream=tmp_path / "moved", out=tmp_path / "run", device="cpu", quiet=True, steps=2
    )
    assert again.first_step == 1
    assert json.loads((tmp_path / "run/run.json").read_text())["upstream"] == str(tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(ss.UsageError, match=r"moved.*the same `train` command with --upstream where it lies now"):
        ss.evaluate(tmp_path / "run", classes(), device="cpu")
    with pytest.raises(ss.StateError, match="trained on another upstream"):
        ss.evaluate(tmp_path / "run", classes(), upstream=ss.upstream(tera, trained=False, seed=5), device="cpu")


class Maxima(nn.Module):
    """A head of one's own: the largest value of each dimension over the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(80, 4)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.arange(hidden_BFH.shape[1]) >= len_B[:, None]
        return self.output(hidden_BFH.masked_fill(padded[..., None], -torch.inf).amax(dim=1)), len_B


class OnlyOutputs(nn.Linear):
    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(hidden_BFH.mean(dim=1))


class Louder(FeatureUpstream):
    """An upstream of one's own."""

    def __init__(self) -> None:
        super().__init__(None, ss.upstream("logmel80").front_end)


def test_an_upstream_of_ones_own(tmp_path: Path) -> None:
    for name, value, said in (
        ("num_layers", 1, r"gave a list of \[1, \d+, 80\]; expected a list of 2 \(num_layers \+ 1\) tensors"),
        ("hidden_size", 8, r"or more \(num_frames\), 8 \(hidden_size\)"),
        ("num_frames", lambda lengths: torch.as_tensor(lengths), r"\[1, \d{4} or more"),
        ("forward", lambda wavs, lengths=None: torch.zeros(1, 9, 80), r"gave a Tensor of \[1, 9, 80\]"),
    ):
        wrong = Louder()
        setattr(wrong, name, value)
        with pytest.raises(ss.UsageError, match=said):
            ss.train("ks", classes(), out=tmp_path / "run", steps=1, **{**QUIET, "upstream": wrong})
        several = said.replace(r"\[1, ", r"\[\d+, ")  # clips are computed together here, and one by one above
        with pytest.raises(ss.UsageError, match=several):
            ss.extract(classes(), wrong, tmp_path / name)
        with pytest.raises(ss.UsageError, match=several):
            probe(classes(40), wrong, label="label")
        with pytest.raises(ss.UsageError, match=said):
            search_queries(classes(), classes(), upstream=wrong, label="label", device="cpu")
    ss.train("ks", classes(), out=tmp_path / "run", steps=1, **{**QUIET, "upstream": Louder()})
    with pytest.raises(ss.UsageError, match="upstream of your own; pass upstream="):
        ss.evaluate(tmp_path / "run", classes(), device="cpu")
    assert ss.evaluate(tmp_path / "run", classes(), upstream=Louder(), device="cpu").utterances == 12


def test_a_head_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(ss.UsageError, match=r"head OnlyOutputs gave a Tensor, expected two tensors: .*lengths"):
        ss.train("ks", classes(), head=OnlyOutputs(80, 4), out=tmp_path / "run", steps=40, **QUIET)
    # which came to no step, so that there is nothing to be kept: the folder is free for other settings
    ss.train("ks", classes(), head=Maxima(), out=tmp_path / "run", steps=40, lr=1e-2, **QUIET)
    with pytest.raises(ss.UsageError, match="head of your own; pass head="):
        ss.evaluate(tmp_path / "run", classes(), device="cpu")
    assert ss.evaluate(tmp_path / "run", classes(), head=Maxima(), device="cpu").figures["accuracy"] == 1.0


# ---- predictions ------------------------------------------------------------------------------------


def test_predictions_for_files_and_sets_are_the_same(tmp_path: Path) -> None:
    ss.train("ks", classes(), out=tmp_path / "run", steps=5, **QUIET)
    sample = next(iter(ss.ShardStream(classes(), epochs=1).load_audio(dtype="int16")))
    key = sample["key"]
    soundfile.write(tmp_path / "x.wav", np.asarray(sample["wav"]), 16_000)
    of_file = ss.predict(tmp_path / "run", [tmp_path / "x.wav"], device="cpu")
    of_set = {one.key: one.answer for one in ss.predict(tmp_path / "run", classes(), device="cpu")}
    assert [one.answer for one in of_file] == [of_set[key]]
    assert of_file[0].key == str(tmp_path / "x.wav")
    model = load_run(tmp_path / "run", upstream=ss.upstream("logmel80").train(), device="cpu")
    assert (model.training, model.upstream.training) == (False, False)  # nothing is dropped out


# ---- recipes ----------------------------------------------------------------------------------------


def test_recipes_are_superbs() -> None:
    """Batch times accumulation, rate, updates, and what else is particular (S3PRL's configurations)."""
    table = {
        name: (one.max_batch_size, one.update_batches, one.lr, one.steps, one.evaluate_every)
        for name, one in RECIPES.items()
    }
    assert table["pr"] == (16, 2, 1e-2, 100_000, 1_000)
    assert table["asr"] == table["sf"] == (32, 1, 1e-4, 200_000, 2_000)
    assert table["ks"] == table["ic"] == (32, 1, 1e-4, 200_000, 5_000)
    assert table["sid"] == (8, 4, 1e-4, 200_000, 5_000)
    assert table["er"] == (4, 8, 1e-4, 30_000, 1_000)
    assert table["asv"] == (10, 5, 1e-4, 200_000, 10_000)
    assert table["sd"] == (8, 4, 1e-4, 30_000, 500)
    assert [one.name for one in RECIPES.values() if one.balance] == ["ks"]
    assert (RECIPES["asv"].optimizer, RECIPES["asv"].min_seconds) == ("adamw", 2.0)
    assert {one.optimizer for one in RECIPES.values() if one.name != "asv"} == {"adam"}
    assert {name: one.clip_norm for name, one in RECIPES.items() if one.clip_norm != 1.0} == {"asv": 1e3}
    crops = {name: one.crop_seconds for name, one in RECIPES.items() if one.crop_seconds is not None}
    assert crops == {"sid": 8.0, "asv": 8.0}
    assert [(name, one.chunk_frames) for name, one in RECIPES.items() if one.chunk_frames] == [("sd", 2_000)]
    heads = {name: one.head for name, one in RECIPES.items() if one.head != "linear"}
    assert heads == {"asr": "rnn", "sf": "rnn", "asv": "xvector", "sd": "rnn"}
    assert [name for name, one in RECIPES.items() if one.head_settings.get("spec_augment")] == ["asr", "sf"]
    metrics = {name: one.task_settings["metrics"] for name, one in RECIPES.items() if one.kind == "ctc"}
    assert metrics == {"pr": ("per",), "asr": ("wer", "cer"), "sf": ("slot_type_f1", "slot_value_cer")}
    verification = SpeakerVerification(label="speaker", categories=["a", "b"])
    assert (verification.margin, verification.scale, verification.output_size) == (0.4, 30.0, 512)


def test_slots_may_be_columns_and_phonemes_the_text(tmp_path: Path) -> None:
    """What the references are: values of slots one after the other; the text itself, of symbols with spaces between."""
    settings: dict[str, Any] = {**QUIET, **RNN, "steps": 1}
    ss.train("sf", texts(), label=["kind", "size"], out=tmp_path / "sf", **settings)
    loader = ss.Loader(judged_stream(as_shard_set(texts()), texts=TextSource.of_run(tmp_path / "sf")))
    found = {text for batch in loader for text in batch["marked_text"]}
    assert found == {"B-kind a E-kind B-size abc E-size", "B-kind d E-kind B-size abc E-size", "B-kind c E-kind",
                     "B-kind b E-kind B-size abc E-size"}  # fmt: skip
    ss.train("pr", texts(("a b", "d c")), out=tmp_path / "pr", **settings)
    assert TextSource.of_run(tmp_path / "pr").tokenizer.vocab_size == 3 + 4
    ss.train("pr", texts(), lexicon=LEXICON, out=tmp_path / "lexicon", **settings)
    assert TextSource.of_run(tmp_path / "lexicon").tokenizer.vocab_size == 3 + len(PHONEMES)
    with pytest.raises(ss.UsageError, match="a lexicon is for phonemes"):
        ss.train("asr", texts(), lexicon=LEXICON, out=tmp_path / "asr", **settings)
    with pytest.raises(ss.UsageError, match="no use for a tokenizer or a lexicon"):
        ss.train("ks", classes(), lexicon=LEXICON, out=tmp_path / "ks", steps=1, **QUIET)


def test_a_batch_in_which_nobody_has_a_slot(tmp_path: Path) -> None:
    """Packed clips say nothing of a slot they lack, so a small batch may not have its column at all."""
    clips = []
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * tone(400 + 900 * number, 0.2), 16_000)
        slots = {"word": "ab"[number % 2], **({"loud": "yes"} if number == 3 else {})}
        clips.append(ss.Utterance(key=f"clip{number}", audio=tmp_path / f"{number}.wav", **slots))
    shards = ss.pack(clips, tmp_path / "set", num_workers=0)
    settings: dict[str, Any] = {"label": ["word", "loud"], "max_batch_size": 1, "steps": 40, "lr": 1e-2}
    settings |= {"normalize": True, **QUIET}
    ss.train("ic", shards, out=tmp_path / "run", **settings)
    found = ss.evaluate(tmp_path / "run", shards, device="cpu")
    assert found.utterances == 4
    assert found.figures["accuracy_loud"] >= 0.75  # three of the four have none, which is a class
    with pytest.raises(ss.UsageError, match="no column 'word'"):
        ss.evaluate(tmp_path / "run", classes(), device="cpu")


def test_words_that_the_lexicon_lacks_cost_their_utterances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are counted, told and left out, also when judging."""
    lexicon = Lexicon({"abc": "AH0 B K", "dab": "D AH0 B", "cd": "K D"})
    settings: dict[str, Any] = {**QUIET, **RNN, "steps": 2}
    both = [texts(), ss.MemoryShards(texts()._samples, "again")]
    assert ss.train("pr", both, lexicon=lexicon, out=tmp_path / "both", **settings).left_out == 2
    assert capsys.readouterr().err == ""
    settings["quiet"] = False
    assert ss.train("pr", texts(), lexicon=lexicon, out=tmp_path / "run", **settings).left_out == 1
    assert "clips that could not be used (unknown_word), such as: clip03: " in capsys.readouterr().err
    short = ss.train("pr", texts(), lexicon=lexicon, out=tmp_path / "short", max_batch_seconds=0.4, **settings)
    assert short.left_out == 3  # and the three longer ones are not even read
    found = ss.evaluate(tmp_path / "run", texts(), device="cpu")
    assert (found.utterances, found.damaged, found.reasons) == (3, 1, {"unknown_word": 1})


def test_words_with_their_slots_marked() -> None:
    words, tags = ["play", "the", "b", "sides", "of", "x"], ["O", "O", "album", "album", "O", "artist"]
    assert marked(words, tags) == "play the B-album b sides E-album of B-artist x E-artist"
    assert marked([], []) == ""


def test_noise_of_a_set(tmp_path: Path) -> None:
    """--noise names a folder or a set of recordings; the same bank is the same run, another is refused."""
    for name in ("hum", "hiss"):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(len(name))
        soundfile.write(tmp_path / name / "one.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    banks = {name: NoiseBank(tmp_path / name, cache=tmp_path / "cache") for name in ("hum", "hiss")}
    settings: dict[str, Any] = {**QUIET, "snr": (0, 10)}
    ss.train("ks", classes(), noise=banks["hum"], out=tmp_path / "run", steps=1, **settings)
    assert json.loads((tmp_path / "run/run.json").read_text())["noise"].startswith("bank ")
    again = NoiseBank(tmp_path / "hum", cache=tmp_path / "cache")
    assert ss.train("ks", classes(), noise=again, out=tmp_path / "run", steps=2, **settings).last_step == 2
    with pytest.raises(ss.StateError, match="noise was"):
        ss.train("ks", classes(), noise=banks["hiss"], out=tmp_path / "run", steps=3, **settings)
    noisy = ss.evaluate(tmp_path / "run", classes(), noise=banks["hum"], snr=(-30, -30), device="cpu")
    assert noisy.utterances == 12


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": 1}, "no setting 'learning_rate'"),
        ({"optimiser": "adam"}, "did you mean optimizer"),
        ({"heads.x": 1}, "should be head.X or task.X"),
        ({"head.width": 1}, "no setting width; there are hidden_size"),
        ({"task.margin": 1}, "margin"),
        ({"head": "linaer"}, "head 'linaer' is unknown"),
        ({"label": "colour"}, "no column 'colour'"),
        ({"label": ["label", "speaker"]}, "takes one column"),
        ({"where": "label == 'a' and part == 'x'"}, "none of the clips of memory that may be trained on has label"),
        ({"cache": "c", "noise": "gaussian"}, "cache: features with noise"),
        ({"cache": __file__}, "is a file; give a folder"),
        ({"steps": 0}, "num_steps is 0"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"evaluate_every": "often"}, "task ks: evaluate_every: 'often' is not a whole number"),
        ({"balance": "yes"}, "task ks: balance: 'yes' is not true or false"),
        ({"normalize": "no"}, "train: normalize: 'no' is not true or false"),
        ({"label": 3}, "task ks: labels: 3 is not"),
        ({"label": []}, "task ks: no label is named"),
        ({"noise": "gaussian", "snr": "loud"}, "train: snr: 'loud' is not"),
        ({"noise": "gaussian", "snr": (20, 3)}, r"noise: snr=\(20, 3\) is neither a number nor"),
        ({"head.hidden_size": "wide"}, "head 'linear': hidden_size: 'wide' is not a whole number"),
        ({"head.hidden_size": -1}, "head 'linear': hidden_size is -1"),
        ({"head": "hidden", "head.hidden_sizes": 64}, "hidden_sizes: 64 is not"),
        ({"head": "rnn", "head.num_layers": 0}, "num_layers is 0"),
        ({"upstream": "no/such/run"}, "no/such/run"),
        ({"head": nn.Linear}, r"head: .* is neither a name nor a module"),
        ({"min_seconds": "a"}, "min_seconds: 'a' is not a number"),
        ({"seed": None}, "seed: None is not a whole number"),
        ({"cache": 3}, "train: cache: 3 is not text or a path or none"),
        ({"snr": (0.0, 5.0)}, "without noise= there is no ratio"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_behind(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ss.UsageError, match=said):
        ss.train("ks", classes(), out=tmp_path / "run", **{"steps": 1, **QUIET, **settings})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "shards", "settings", "said"),
    [
        ("sd", classes, {}, "^task sd: clip00 of memory has no segments"),
        ("sd", conversations, {"valid": classes()}, "^valid: clip00 of memory has no segments"),
        ("sd", conversations, {"task.median_frames": 2}, "^diarization: median_frames is 2; it must be odd"),
        ("tag", classes, {"label": "tags", "task.separator": ""}, "^the separator of labels is empty"),
        ("sd", conversations, {"label": "speaker"}, "^task sd: learns from segments, not from 'speaker'"),
        ("frames", conversations, {"label": "speaker"}, "^task frames: learns from segments"),
    ],
)
def test_what_a_task_cannot_do_is_told_before_anything_is_written(
    task: str, shards: Any, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ss.UsageError, match=said):
        ss.train(task, shards(), out=tmp_path / "run", steps=1, **QUIET, **settings)
    assert not (tmp_path / "run").exists()


def test_clips_of_which_no_answer_can_be_right_are_told(tmp_path: Path) -> None:
    others = [{**sample, "label": sample["label"].upper()} for sample in classes(4)._samples]
    strangers = ss.MemoryShards(others, "strangers")
    said = r"'label' of strangers is 'A', 'B', 'C', 'D' ..., none of the 4 classes that are trained on \('a', "
    with pytest.raises(ss.UsageError, match=f"^valid: {said}"):
        ss.train("ks", classes(), valid=strangers, out=tmp_path / "run", steps=1, **QUIET)
    assert not (tmp_path / "run").exists()
    ss.train("ks", classes(), out=tmp_path / "run", steps=1, **QUIET)
    with pytest.raises(ss.UsageError, match=f"^evaluate: {said}"):
        ss.evaluate(tmp_path / "run", strangers, device="cpu")
    others[0]["label"] = "a"  # the others are missed
    assert ss.evaluate(tmp_path / "run", ss.MemoryShards(others), device="cpu").figures["accuracy"] <= 0.25


def test_texts_are_of_whole_clips_and_slots_have_tags(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**QUIET, **RNN, "steps": 1, "out": tmp_path / "run"}
    with pytest.raises(ss.UsageError, match=r"task asr: crop_seconds is 1\.0, and a text is of a whole clip"):
        ss.train("asr", texts(), crop_seconds=1.0, **settings)
    untagged = ss.MemoryShards([{name: sample[name] for name in ("key", "wav", "text")} for sample in texts()._samples])
    with pytest.raises(ss.UsageError, match="no column 'iob' beside 'text'"):
        ss.train("sf", untagged, **settings)
    assert not (tmp_path / "run").exists()


def test_unknown_tasks_are_told() -> None:
    with pytest.raises(ss.UsageError, match="there are pr, asr, sf"):
        ss.train("kws", classes(), out="x", **QUIET)
    with pytest.raises(ss.UsageError, match="kind 'words' is unknown"):
        TaskRecipe("mine", "words", ("text",))
    with pytest.raises(ss.UsageError, match=r"no run\.json"):
        ss.evaluate("no/such/run", classes())
    with pytest.raises(ss.UsageError, match="None is no path"):
        ss.evaluate(None, classes())  # type: ignore[arg-type]
    with pytest.raises(ss.UsageError, match="tokenizer: 'x' is no Tokenizer"):
        ss.train("asr", texts(), out="x", tokenizer="x", steps=1, **QUIET)  # type: ignore[arg-type]
