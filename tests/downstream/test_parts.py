"""What a run is made of: texts and vocabularies, classes, streams, weights, and what is looked at on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from downstream.synthetic import classes, clip, conversations, texts, tone

import s3prl_stream as ss
from s3prl_stream.downstream.build import build_task
from s3prl_stream.downstream.columns import counts_without
from s3prl_stream.downstream.feature_cache import FeatureCache
from s3prl_stream.downstream.judge import answers_to
from s3prl_stream.downstream.recipe import find_task
from s3prl_stream.downstream.streams import judged_stream, seconds_by_set, train_stream
from s3prl_stream.downstream.texts import MarkSlots, find_texts, text_columns
from s3prl_stream.errors import SampleError
from s3prl_stream.pipes.stage import root_of
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.tasks import Task
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.vocabulary import PHONEMES, CharacterTokenizer, WordTokenizer
from s3prl_stream.upstreams.upstream import fingerprint_of

LOGMEL: dict[str, Any] = {"upstream": "logmel80", "device": "cpu"}


def said(*rows: dict[str, Any]) -> ShardSet:
    """Silent clips with these columns."""
    silence = np.zeros(1600, np.int16)
    return as_shard_set(ss.MemoryShards({f"clip{number}": {"wav": silence, **row} for number, row in enumerate(rows)}))


# ---- texts ------------------------------------------------------------------------------------------


def test_a_vocabulary_is_of_the_rows_that_are_trained_on() -> None:
    shards = said({"text": "ab", "iob": "X", "part": "train"}, {"text": "cd", "iob": "Y", "part": "test"})
    where = "part == 'train'"
    letters = find_texts("characters", ["text"], shards, where=where).tokenizer
    assert [letters.decode(letters.encode(text, eos=False)) for text in ("ab", "ac")] == ["ab", "a<unk>"]
    assert find_texts("words", ["text"], shards, where=where).tokenizer.words == ("ab",)
    slots = find_texts("slots", ["text"], shards, where=where)
    assert (slots.columns, slots.tokenizer.slots) == (("text", "iob"), ("X",))


def test_words_and_phonemes() -> None:
    """Those of English have their own vocabulary; a word that no one can pronounce adds nothing to it."""
    english, others = said({"text": "K D"}, {"text": "AH0"}), said({"text": "X Y"}, {"text": "K"})
    assert find_texts("phonemes", ["text"], english, where=None).tokenizer.words == PHONEMES
    assert find_texts("words", ["text"], english, where=None).tokenizer.words == ("AH0", "D", "K")
    assert find_texts("phonemes", ["text"], others, where=None).tokenizer.words == ("K", "X", "Y")
    spoken = said({"text": "ab cd"}, {"text": "cd xy"})
    for pronounced, words in (({"ab": "K", "cd": "D"}, PHONEMES), ({"ab": "x y", "cd": "z"}, ("x", "y", "z"))):
        found = find_texts("phonemes", ["text"], spoken, where=None, lexicon=Lexicon(pronounced))
        assert (found.tokenizer.words, found.reference) == (words, "phonemes")


def test_tags_are_slots_but_for_none_and_words_stand_apart() -> None:
    shards = said({"text": "ab", "iob": "X"}, {"text": "cd", "iob": "O"})
    source = find_texts("slots", ["text"], shards, where=None)
    assert source.tokenizer.slots == ("X",)
    assert source.tokenizer.words.vocab_size == 3 + len("abcd ")  # letters of tags are none of the text
    (marked,) = source.stage()([{"key": "k", "text": "ab cd", "iob": "X O"}])  # no text of the set has a space
    assert source.tokenizer.decode(marked["tokens"].tolist()) == marked["marked_text"] == "B-X ab E-X cd"
    for wrong, reason in (
        ({"text": "ab"}, "no_text"),
        ({"iob": "X"}, "no_text"),
        ({"text": "ab cd", "iob": "X"}, "slots"),
    ):
        with pytest.raises(SampleError) as caught:
            list(source.stage()([{"key": "k", **wrong}]))
        assert caught.value.reason == reason
    with pytest.raises(ss.UsageError, match="slots need a SlotTokenizer"):
        MarkSlots(tokenizer=CharacterTokenizer(["a"]), columns=["text", "iob"])


def test_columns_that_hold_no_text_are_refused() -> None:
    assert text_columns(["text", "x"], {"transcription"}) == ("transcription", "x")
    assert text_columns(["text"], {"text", "transcription"}) == ("text",)
    for value, kind in ((True, "bool"), (1, "int64"), (0.5, "double")):
        with pytest.raises(ss.UsageError, match=f"'text' of memory holds {kind}, expected text"):
            find_texts("characters", ["text"], said({"text": value}), where=None)
    with pytest.raises(ss.UsageError, match="vocabulary 'words' is of one column, not text, iob"):
        find_texts("words", ["text", "iob"], as_shard_set(texts()), where=None)
    with pytest.raises(ss.UsageError, match="no column 'kinds'"):
        find_texts("slots", ["kind", "kinds"], as_shard_set(texts()), where=None)
    with pytest.raises(ss.UsageError, match="task ks: writes no text"):
        ss.training_parts("ks", classes(), tokenizer=CharacterTokenizer(["a"]), **LOGMEL)


def test_a_given_tokenizer_is_used() -> None:
    given = CharacterTokenizer(["d", "c", "b", "a"])
    texts_of_run = ss.training_parts("asr", texts(), tokenizer=given, **LOGMEL).texts
    assert texts_of_run is not None
    assert texts_of_run.tokenizer is given


# ---- classes ----------------------------------------------------------------------------------------


def task_of(name: str, shards: Any, where: Any = None, frame_seconds: float = 0.02, **settings: Any) -> Task:
    recipe = find_task(name).having(settings)
    return build_task(recipe, as_shard_set(shards), where=where, frame_seconds=frame_seconds)


def test_classes_are_of_the_rows_that_are_trained_on() -> None:
    """A slot that a row of any part lacks has the class of none."""
    b_only = "label == 'b'"
    assert task_of("ic", classes(), b_only, labels=("label", "loud")).config()["categories"] == {
        "label": ["b"],
        "loud": ["", "yes"],
    }
    assert task_of("ic", classes(), "loud is not None", labels=("loud",)).config()["categories"] == {
        "loud": ["", "yes"]
    }
    assert task_of("ks", classes(), "label != 'b'").config()["categories"] == ["a", "c", "d"]
    assert task_of("tag", classes(), b_only, labels=("tags",)).config()["categories"] == ["b", "loud"]
    spaced = said({"labels": "x;y"}, {"labels": "y;z,"})
    assert task_of("tag", spaced, **{"task.separator": ";"}).config()["categories"] == ["x", "y", "z,"]
    talks = ss.MemoryShards([{**row, "part": row["key"]} for row in conversations()._samples])
    frames = task_of("frames", talks, "part == 'clip03'").config()
    assert (frames["categories"], frames["frame_seconds"]) == (["a"], 0.02)
    assert task_of("sd", talks).config()["frame_seconds"] == 0.02
    with pytest.raises(ss.UsageError, match=r"task ks: all clips of memory .* have one label, 'b'"):
        task_of("ks", classes(), b_only)


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    before = torch.random.get_rng_state()
    found = []
    for seed, drawn in ((0, 0), (0, 3), (1, 0)):
        torch.rand(drawn)
        model = ss.training_parts("asv", classes(), seed=seed, **{"head.hidden_size": 8, "head.last_size": 8, **LOGMEL},
                                  min_seconds=0.0, lr=1e-3).model  # fmt: skip
        found.append({name: weight.clone() for name, weight in model.named_parameters() if weight.dim() > 1})
    zero, again, one = found
    assert all(torch.equal(zero[name], again[name]) for name in zero)
    of_task = [name for name in zero if name.startswith("task.")]
    assert of_task
    for name in (*of_task, next(name for name in zero if name.startswith("head."))):
        assert not torch.equal(zero[name], one[name])
    torch.random.set_rng_state(before)
    ss.training_parts("asv", classes(), min_seconds=0.0, **LOGMEL)
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- streams ----------------------------------------------------------------------------------------


def lengths_of(name: str, shards: Any, **settings: Any) -> tuple[set[int], int]:
    """(samples of the clips of two epochs, how many were too long)."""
    recipe = find_task(name).having({"max_batch_size": 1, **settings})
    shard_set = as_shard_set(shards)
    source = find_texts("characters", recipe.labels, shard_set, where=None) if recipe.kind == "ctc" else None
    task = build_task(recipe, shard_set, where=None, frame_seconds=0.01, texts=source)
    loader = ss.Loader(train_stream(recipe, task, shard_set, seed=0, frame_seconds=0.01, texts=source))
    batches = iter(loader)
    lengths = {length for _ in range(2 * len(shard_set)) for length in next(batches)["wav_len"].tolist()}
    return lengths, len(loader.too_long)


def test_how_long_clips_are_that_are_trained_on() -> None:
    """What is too long is cut where a part tells as much; what is too short is left out."""
    short = {"max_batch_seconds": 0.21, "balance": False}
    for name, label in (("ks", "label"), ("sid", "speaker"), ("asv", "speaker"), ("tag", "tags"), ("ic", "loud")):
        found = lengths_of(name, classes(), labels=(label,), min_seconds=0.0, crop_seconds=None, **short)
        assert found == ({3200, 3360}, 0), name
    longer = lengths_of("ks", classes(), balance=False, min_seconds=0.22)
    assert longer == ({3840, 4160, 4480}, 0)  # of 0.20 s and of 0.22 s there are some, too
    assert lengths_of("asr", texts(), max_batch_seconds=0.4) == ({5600}, 3)
    assert lengths_of("frames", [*conversations()._samples, clip(tone(400, 0.3), 0, key="short", segments=[])],
                      max_batch_seconds=0.4) == ({4800}, 4)  # fmt: skip
    assert lengths_of("sd", conversations(), max_batch_seconds=0.4) == ({5333, 5334}, 0)  # pieces that fit a batch
    assert lengths_of("sd", conversations(), max_batch_seconds=0.4, crop_seconds=0.25) == ({4000}, 0)


def test_each_clip_is_judged_whole() -> None:
    """Also one longer than a usual batch."""
    long = {"key": "long", "wav": np.zeros(16_000 * 130, np.int16), "label": "a"}
    shards = as_shard_set([long, {"key": "short", "wav": np.zeros(1600, np.int16), "label": None}])
    judged = [length for batch in ss.Loader(judged_stream(shards)) for length in batch["wav_len"].tolist()]
    assert sorted(judged) == [1600, 16_000 * 130]
    labelled = [key for batch in ss.Loader(judged_stream(shards, columns=["label"])) for key in batch["key"]]
    assert labelled == ["long"]


def test_the_order_follows_from_the_seed() -> None:
    def keys(seed: int) -> list[str]:
        parts = ss.training_parts("ks", classes(), seed=seed, balance=False, max_batch_size=3, **LOGMEL)
        return [key for _, batch in zip(range(4), ss.Loader(parts.stream), strict=False) for key in batch["key"]]

    assert keys(1) == keys(1)
    assert sorted(keys(1)) == sorted(keys(2)) == [f"clip{number:02d}" for number in range(12)]
    assert keys(1) != keys(2)


def test_seconds_are_of_each_set_without_padding() -> None:
    wav_len = torch.tensor([16_000, 8_000, 4_000])
    assert seconds_by_set({"set": ["a", "b", "a"], "wav_len": wav_len}) == {"a": 1.25, "b": 0.5}
    assert seconds_by_set({"set": []}) == {}


def test_why_rows_are_not_trained_on() -> None:
    rows = as_shard_set([{"key": f"{n}", "wav": np.zeros(1600 * n, np.int16), "word": word}
                         for n, word in enumerate(("a", None, "b", "c"), 1)])  # fmt: skip
    assert counts_without(rows, None, ["word"], min_seconds=0.3) == {"without word": 1, "not above 0.3 s": 2}
    assert counts_without(rows, "word is not None", ["word"]) == {}


# ---- what is looked at on the way -------------------------------------------------------------------


def wavs_of(stage: Any) -> dict[str, Any]:
    return {
        key: wav[:length]
        for batch in ss.Loader(stage)
        for key, wav, length in zip(batch["key"], batch["wav"], batch["wav_len"].tolist(), strict=True)
    }


def test_the_validation_part_is_as_it_is_recorded() -> None:
    """Without noise; of a set of its own a condition takes nothing away from what is trained on."""
    tested = "part == 'test'"
    noisy = ss.training_parts("ks", classes(), valid_where=tested, noise="gaussian", snr=(0.0, 0.0), **LOGMEL)
    plain = wavs_of(judged_stream(as_shard_set(classes()), where=tested))
    assert noisy.judged is not None
    found = wavs_of(noisy.judged)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)
    other = ss.MemoryShards([*classes(8)._samples, {**classes()._samples[0], "key": "unknown", "label": None}], "other")
    parts = ss.training_parts("ks", classes(), valid=other, valid_where=tested, **LOGMEL)
    assert len(root_of(parts.stream).selection) == 12
    assert parts.judged is not None
    assert len(root_of(parts.judged)) == 2
    parts = ss.training_parts("ks", classes(), valid=other, **LOGMEL)
    assert parts.judged is not None
    assert len(root_of(parts.judged)) == 8  # one has no label


def test_a_slot_may_be_missing_but_no_text_and_no_tags() -> None:
    for label, columns in ((["kind", "size"], ()), (["text"], ("text", "iob"))):
        parts = ss.training_parts("sf", texts(), label=label, **LOGMEL)
        assert parts.model.task.columns == columns
    assert len(root_of(ss.training_parts("sf", texts(), label=["kind", "size"], **LOGMEL).stream).selection) == 4


def test_an_upstream_is_evaluated_and_its_states_brought_to_one_scale_if_asked() -> None:
    up = ss.upstream("logmel80").train()
    for normalize in (False, True):
        model = ss.training_parts("ks", classes(), upstream=up, device="cpu", normalize=normalize).model
        assert (model.upstream.training, model.featurizer.normalize) == (False, normalize)


def test_the_best_is_the_largest_or_the_smallest() -> None:
    for task, data, wanted in (("ks", classes, ("valid_accuracy", "highest")), ("asr", texts, ("valid_wer", "lowest"))):
        parts = ss.training_parts(task, data(), valid=data(), where="key != 'clip00'", valid_where="key == 'clip00'",
                                  **LOGMEL)  # fmt: skip
        assert (parts.settings.best_by, parts.settings.best_is) == wanted


def test_parts_keep_features_of_both_sets(tmp_path: Path) -> None:
    valid = ss.MemoryShards(classes(8)._samples, "valid")
    settings: dict[str, Any] = {"balance": False, "valid": valid, "cache": tmp_path, **LOGMEL}
    parts = ss.training_parts("ks", classes(), **settings)
    parts.model(next(iter(ss.Loader(parts.stream))))
    assert parts.judged is not None
    answers_to(parts.model, ss.Loader(parts.judged), torch.device("cpu"))
    assert len(FeatureCache(tmp_path, fingerprint_of(parts.model.upstream))) == 12 + 8
    assert (
        not ss.training_parts("ks", classes(), **{**settings, "cache_gigabytes": 0.0, "cache": tmp_path / "none"})
        .model(next(iter(ss.Loader(parts.stream))))
        .mean.isnan()
    )
    assert not list((tmp_path / "none").rglob("*.bin"))


def test_files_of_another_rate_are_brought_to_that_of_the_upstream(tmp_path: Path) -> None:
    seen: list[int] = []

    class Listening(type(ss.upstream("logmel80"))):  # type: ignore[misc]
        def forward(self, wavs: Any, lengths: Any = None) -> Any:
            seen.append(wavs.shape[1])
            return super().forward(wavs, lengths)

    up = ss.upstream("logmel80")
    model = ss.training_parts("ks", classes(), **{**LOGMEL, "upstream": Listening(None, up.front_end)}).model.eval()
    soundfile.write(tmp_path / "x.wav", 0.3 * np.sin(np.arange(2400)), 8_000)
    assert ss.predict(model, [tmp_path / "x.wav"])[0].answer in "abcd"
    assert seen == [4800]


# ---- runs -------------------------------------------------------------------------------------------


def test_a_run_is_known_by_what_it_learns_from(tmp_path: Path) -> None:
    """Rows, pronunciations, tokens, weights of sets: with another of them it is another run, and that is told."""
    lexicon = {"abc": "AH0 B K", "dab": "D AH0 B", "cd": "K D", "bad": "B AH0 D"}
    settings: dict[str, Any] = {
        "steps": 1, "out": tmp_path / "pr", "quiet": True, "lexicon": Lexicon(lexicon), **LOGMEL,
    }  # fmt: skip
    ss.train("pr", texts(), **settings)
    for changed, difference in (
        ({"where": "text != 'cd'"}, 'where was None, is "text'),
        ({"lexicon": Lexicon({**lexicon, "abc": "AH0 B"})}, "lexicon was"),
        ({"tokenizer": WordTokenizer(PHONEMES[::-1])}, "tokenizer was"),
        ({"valid": texts(("abc",))}, "valid was None"),
    ):
        with pytest.raises(ss.StateError, match=difference):
            ss.train("pr", texts(), **{**settings, **changed})
    sets = [ss.MemoryShards(classes(8)._samples, name) for name in ("one", "other")]
    settings = {"steps": 1, "out": tmp_path / "ks", "quiet": True, "balance": False, **LOGMEL}
    for weights in ((0.5, 0.5), (0.9, 0.1)):  # these may change
        ss.train("ks", ShardSet(sets, weights), **settings)
        assert json.loads((tmp_path / "ks/run.json").read_text())["weights"] == list(weights)
    assert json.loads((tmp_path / "ks/losses.jsonl").read_text())["seconds_by_set"].keys() == {"one", "other"}
