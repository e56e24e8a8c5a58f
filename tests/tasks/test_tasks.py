"""Tasks: losses and answers on the same logits as S3PRL, padding that changes nothing, and mistakes that are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import Turn, max_twv
from s3prl_stream.sample import Batch
from s3prl_stream.tasks import (
    KINDS,
    Answer,
    CtcText,
    Diarization,
    FrameClassification,
    MultiLabel,
    SlotClassification,
    SpeakerVerification,
    Task,
    UtteranceClassification,
)
from s3prl_stream.tasks.diarization import permutation_free_loss
from s3prl_stream.tasks.query_by_example import costs_in, distances, scores_of, subsequence_cost
from s3prl_stream.tasks.segments import active_frames, rttm, turns_from
from s3prl_stream.tasks.verification import Trial, read_trials
from s3prl_stream.tokenizers.vocabulary import CharacterTokenizer

LETTERS = CharacterTokenizer("abcd")  # ids 3 to 6


@pytest.fixture(scope="module")
def golden(repository: Path) -> dict[str, Any]:
    arrays = dict(np.load(repository / "tests/golden/superb.npz"))
    numbers = json.loads((repository / "tests/golden/superb.json").read_text())
    return {**numbers, **{name: torch.from_numpy(value) for name, value in arrays.items()}}


def batch_of(**columns: Any) -> Batch:
    rows = len(next(iter(columns.values())))
    return {"key": [f"clip{row}" for row in range(rows)], "set": ["s"] * rows, **columns}


def answered(task: Task, outputs: Tensor, len_B: Tensor, batch: Batch) -> list[Answer]:
    pairs = zip(batch["key"], task.answers(outputs, len_B), task.references(batch), strict=True)
    return [Answer("s", *one) for one in pairs]


# ---- against S3PRL ----------------------------------------------------------------------------------


def test_classification_as_s3prl(golden: dict[str, Any]) -> None:
    logits, targets = golden["class_logits"], golden["class_targets"]
    task = UtteranceClassification(label="word", categories=list("vwxyz"))
    batch = batch_of(word=["vwxyz"[number] for number in targets])
    loss = task.loss(logits, torch.ones(6), batch)
    assert float(loss.mean) == pytest.approx(golden["cross_entropy"], abs=1e-5)
    assert int(loss.num_elements) == 6
    expected = float((logits.argmax(dim=1) == targets).double().mean())
    assert task.score(answered(task, logits, torch.ones(6), batch)) == {"accuracy": pytest.approx(expected)}


def test_slots_as_s3prl(golden: dict[str, Any]) -> None:
    targets = golden["slot_targets"]
    task = SlotClassification(categories={"action": ["off", "on"], "object": ["", "heat", "light"]})
    batch = batch_of(
        action=[["off", "on"][number] for number in targets[:, 0]],
        object=[[None, "heat", "light"][number] for number in targets[:, 1]],
    )
    loss = task.loss(golden["class_logits"], torch.ones(6), batch)
    assert float(loss.mean) == pytest.approx(golden["slot_cross_entropy"], abs=1e-5)
    answers = answered(task, golden["class_logits"], torch.ones(6), batch)
    right = [one.answer == one.reference for one in answers]
    assert task.score(answers)["accuracy"] == pytest.approx(sum(right) / 6)
    assert task.show(("on", ""), "k") == "k\taction=on"


def test_am_softmax_as_s3prl(golden: dict[str, Any]) -> None:
    task = SpeakerVerification(label="speaker", categories=list("abcde"), embedding_size=8)
    task.speakers.data.copy_(golden["am_weight"])
    batch = batch_of(speaker=["abcde"[number] for number in golden["class_targets"]])
    loss = task.loss(golden["am_embedding"], torch.ones(6), batch)
    assert float(loss.mean.detach()) == pytest.approx(golden["am_softmax"], abs=1e-5 * golden["am_softmax"])


def test_ctc_as_s3prl(golden: dict[str, Any]) -> None:
    """Three utterances, of which the last has too few frames for its tokens: its loss is 0 and so is its gradient."""
    logits = golden["ctc_logits"].clone().requires_grad_()
    task = CtcText(tokenizer=LETTERS)
    batch = batch_of(tokens=golden["ctc_tokens"], tokens_len=golden["ctc_tokens_len"], text=["a"] * 3)
    batch["key"] = ["0", "1", "2"]
    loss = task.loss(logits, golden["ctc_len"], batch)
    assert float(loss.mean.detach()) == pytest.approx(golden["ctc"], abs=1e-5)
    loss.mean.backward()
    assert logits.grad is not None
    assert float(logits.grad[2].abs().max()) == float(logits.grad[1, 9:].abs().max()) == 0.0


@pytest.mark.parametrize("speakers", [2, 3])
def test_permutation_free_loss_as_s3prl(speakers: int, golden: dict[str, Any]) -> None:
    named = (golden[f"pit{speakers}_{name}"] for name in ("logits", "labels", "len"))
    logits, labels, lengths = named
    loss = permutation_free_loss(logits, labels.float(), lengths)
    assert float(loss.mean) == pytest.approx(golden[f"pit{speakers}"]["loss"], abs=1e-5)
    assert int(loss.num_elements) == int(lengths.sum())
    padded = torch.cat([logits, torch.full((3, 5, speakers), 9.0)], dim=1)
    longer = torch.cat([labels.float(), torch.ones(3, 5, speakers)], dim=1)
    assert float(permutation_free_loss(padded, longer, lengths).mean) == pytest.approx(float(loss.mean), abs=1e-6)


def test_warping_as_dtw_python(golden: dict[str, Any]) -> None:
    for num_query, num_document, expected in golden["dtw"]:
        distance = golden[f"dtw_{num_query}_{num_document}"].numpy()
        assert subsequence_cost(distance) == pytest.approx(expected, abs=1e-9)


# ---- answers ----------------------------------------------------------------------------------------


def test_greedy_decoding_collapses_and_leaves_blanks_and_ends_out() -> None:
    task = CtcText(tokenizer=LETTERS, metrics=["cer", "wer"])
    frames = [3, 3, 0, 3, 4, 1, 5, 5, 6]  # the last is padding
    logits = torch.nn.functional.one_hot(torch.tensor([frames]), 7).float()
    assert task.answers(logits, torch.tensor([8])) == ["aabc"]
    answers = answered(task, logits, torch.tensor([8]), batch_of(text=["aabd"]))
    assert task.score(answers) == {"cer": 0.25, "wer": 1.0}
    assert task.best == ("cer", "lowest")
    assert CtcText(tokenizer=LETTERS, metrics=["slot_type_f1"]).best.kind == "highest"


def test_labels_of_an_utterance() -> None:
    task = MultiLabel(label="events", categories=["dog", "rain", "siren"])
    batch = batch_of(events=["dog, rain", "", "siren"])
    logits = torch.tensor([[9.0, 9, -9], [-9, -9, -9], [-9, 9, 9]])
    loss = task.loss(logits, torch.ones(3), batch)
    assert float(loss.mean) == pytest.approx(1.0, abs=1e-3)  # one of nine is wrong, by 9
    figures = task.score(answered(task, logits, torch.ones(3), batch))
    assert figures == {"mean_average_precision": pytest.approx((1 + 0.5 + 1) / 3), "f1": pytest.approx(6 / 7)}
    assert task.show([0.9, 0.2, 0.5], "k") == "k\tdog,siren"
    assert task.references(batch_of(events=[["rain"], None, []])) == [{"rain"}, None, set()]
    assert task.references(batch_of(events=[("rain", 5), None])) == [{"rain", "5"}, None]


def test_verification_scores_trials_or_all_pairs(tmp_path: Path) -> None:
    task = SpeakerVerification(label="speaker", categories=["x", "y"], embedding_size=2)
    embeddings = torch.tensor([[1.0, 0.1], [2.0, 0.0], [0.0, 1.0], [0.1, 5.0]])
    answers = answered(task, embeddings, torch.ones(4), batch_of(speaker=["a", "a", "b", "b"]))
    assert task.score(answers) == {"equal_error_rate": 0.0, "min_dcf": 0.0, "trials": 6.0}
    (tmp_path / "trials").write_text("1 clip0 clip1\n0 clip0 clip2\n\n")
    task.trials = read_trials(tmp_path / "trials")
    assert task.trials[0] == Trial(True, "clip0", "clip1")
    assert task.score(answers)["trials"] == 2.0
    with pytest.raises(UsageError, match="'clip2', are not among"):
        task.score(answers[:2])
    with pytest.raises(UsageError, match="2 keys, such as 'clip0', are not among"):
        task.score(answers[1:])
    assert task.show(np.array([0.5, -1 / 3]), "k") == "k\t0.5 -0.333333"
    with pytest.raises(UsageError, match="'clip0' stands in several sets"):
        task.score([*answers, answers[0]._replace(set="other", answer=-answers[0].answer)])
    assert task.references(batch_of(text=["no speakers"])) == [None]  # the trials say what is true
    (tmp_path / "trials").write_text("1 clip0\n")
    with pytest.raises(UsageError, match="trials, line 1: found '1 clip0'"):
        read_trials(tmp_path / "trials")
    (tmp_path / "trials").write_bytes(b"1 a b\n0 a caf\xe9\n")
    with pytest.raises(UsageError, match="trials, line 2: not UTF-8"):
        read_trials(tmp_path / "trials")
    with pytest.raises(UsageError, match="absent: cannot be read"):
        read_trials(tmp_path / "absent")


def segments(*spoken: tuple[float, float, str]) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "label": label} for start, end, label in spoken]


def test_frames_of_segments_and_back() -> None:
    turns = [Turn(0.02, 0.05, "A"), Turn(0.04, 0.07, "B")]
    active = active_frames(turns, ["A", "B"], 8, 0.01)
    assert active.astype(int).T.tolist() == [[0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]]
    for end, spoken in ((0.0145, [True, False]), (0.0155, [True, True])):  # the middle of a frame counts
        assert active_frames([Turn(0.0, end, "A")], ["A"], 2, 0.01)[:, 0].tolist() == spoken
    assert active_frames([Turn(0.5, 1.5, "A")], ["A"], 3, 1.0)[:, 0].tolist() == [True, False, False]  # up to its end
    back = sorted(turns_from(active, ["A", "B"], 0.01))
    assert [(round(t.start, 3), round(t.end, 3), t.speaker) for t in back] == [tuple(turn) for turn in turns]
    assert rttm(turns[::-1], "r").splitlines()[0] == "SPEAKER r 1 0.020 0.030 <NA> <NA> A <NA> <NA>"


def test_a_segment_over_the_whole_piece_counts() -> None:
    """S3PRL gives no label to a segment that begins before a piece and ends after it."""
    assert active_frames([Turn(-1.0, 9.0, "A")], ["A"], 4, 0.01).all()


def test_diarization_is_blind_to_names_and_order() -> None:
    task = Diarization(num_speakers=2, frame_seconds=0.1, median_frames=1)
    batch = batch_of(segments=[segments((0.0, 0.5, "zoe"), (0.3, 1.0, "al")), segments((0.2, 0.6, "al"))])
    lengths = torch.tensor([10, 8])
    logits = torch.full((2, 12, 2), -20.0)
    logits[0, 3:10, 0], logits[0, 0:5, 1], logits[1, 2:6, 1] = 20.0, 20.0, 20.0
    assert float(task.loss(logits, lengths, batch).mean) < 1e-6
    assert float(task.loss(logits.flip(2), lengths, batch).mean) < 1e-6
    answers = answered(task, logits, lengths, batch)
    assert task.score(answers)["diarization_error_rate"] == pytest.approx(0.0, abs=1e-9)
    assert task.show(answers[1].answer, "a/b.wav").startswith("SPEAKER b 1 0.200 0.400")
    assert task.show(answers[1].answer, "a b/c d.1.FLAC").startswith("SPEAKER c_d.1 1 ")
    assert task.show(answers[1].answer, "a/talk.v1").startswith("SPEAKER a/talk.v1 1 ")  # a key of a set is no file
    alone = Diarization(num_speakers=1, frame_seconds=0.1, median_frames=1)
    found = alone.answers(torch.zeros(1, 9, 1), torch.tensor([8]))
    assert found == [[Turn(0.0, 0.8, "0")]]  # at the threshold, and not in the padding
    with pytest.raises(UsageError, match="the references have no speech"):
        task.score([Answer("s", "k", [], [])])
    wrong = task.score(answered(task, -logits, lengths, batch))
    assert wrong["diarization_error_rate"] > 0.5
    with pytest.raises(UsageError, match="3 speakers, and the model is for 2"):
        task.loss(logits, lengths, batch_of(segments=[segments((0, 1, "a"), (0, 1, "b"), (0, 1, "c")), []]))
    with pytest.raises(UsageError, match="clip1: has no segments"):  # which is not the same as silence
        task.loss(logits, lengths, batch_of(segments=[[], None]))


def test_turns_begin_at_the_threshold_and_short_ones_are_filtered_out() -> None:
    """By default by the median over 11 frames, one of the two widths that SUPERB tries."""
    probabilities = torch.full((1, 40, 2), 0.1)
    probabilities[0, 10:15, 0], probabilities[0, 25:31, 1] = 0.4, 0.4
    logits, lengths = torch.logit(probabilities), torch.tensor([40])
    for settings, found in (
        ({}, []),
        ({"threshold": 0.3}, ["1"]),
        ({"threshold": 0.3, "median_frames": 1}, ["0", "1"]),
        ({"threshold": 0.6, "median_frames": 1}, []),
    ):
        task = Diarization(num_speakers=2, frame_seconds=0.1, **settings)  # type: ignore[arg-type]
        assert [turn.speaker for turn in task.answers(logits, lengths)[0]] == found
    late = [Answer("s", "k", [Turn(0.1, 1.0, "0")], [Turn(0.0, 1.0, "a")])]
    for collar, rate in ((0.0, 0.1), (0.25, 0.0)):
        task = Diarization(num_speakers=1, frame_seconds=0.1, collar_seconds=collar)
        assert task.score(late)["diarization_error_rate"] == pytest.approx(rate)


def test_frames_without_a_segment_do_not_count() -> None:
    task = FrameClassification(categories=["AH", "T"], frame_seconds=0.1)
    batch = batch_of(segments=[segments((0.0, 0.2, "AH"), (0.3, 0.5, "T")), segments((0.0, 0.1, "T"))])
    lengths = torch.tensor([6, 2])
    logits = torch.zeros(2, 6, 2)
    logits[0, :2, 0], logits[0, 3:5, 1], logits[1, 0, 0] = 50.0, 50.0, 50.0
    loss = task.loss(logits, lengths, batch)
    assert int(loss.num_elements) == 5
    assert float(loss.mean) == pytest.approx(50 / 5)
    silent = task.loss(logits, lengths, batch_of(segments=[[], []]))
    assert (float(silent.mean), int(silent.num_elements)) == (0.0, 0)
    answers = answered(task, logits, lengths, batch)
    assert [len(one.answer) for one in answers] == [6, 2]
    assert task.score(answers) == {"accuracy": 0.8}
    assert task.show([0, 0, 1], "k") == "k\t0.00 0.20 AH 0.20 0.30 T"
    unheard = [one._replace(reference=[Turn(0.0, 0.2, "K"), *one.reference[1:]]) for one in answers]
    assert task.score(unheard) == {"accuracy": pytest.approx(2 / 6)}  # "K" is no class: four frames are missed
    assert [task.unknown(one.reference) for one in unheard] == [["K"], ["K"]]
    with pytest.raises(UsageError, match="score: k and 0 others have no reference"):
        task.score([answers[0], Answer("s", "k", [0], None)])
    for labels in ("K", "KL"):
        unknown = segments(*((0, 1, label) for label in labels))
        with pytest.raises(UsageError, match="label 'K', none of the 2 classes"):
            task.loss(logits, lengths, batch_of(segments=[unknown, []]))


def search(queries: list[np.ndarray], documents: list[np.ndarray]) -> np.ndarray:
    costs_DQ = np.array([costs_in(document, queries) for document in documents])
    return scores_of(costs_DQ.T)


def test_a_query_is_found_where_it_is() -> None:
    """Also when it is said at another speed; a query of four frames is not searched for."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(3, 12, 16))
    documents = [np.concatenate([rng.normal(size=(9, 16)), words[n], rng.normal(size=(7, 16))]) for n in (0, 1, 2)]
    slower = np.repeat(words, 2, axis=1)
    for queries in (words, slower + rng.normal(size=slower.shape) * 0.1):
        scores = search(list(queries), documents)
        assert scores.argmax(axis=1).tolist() == [0, 1, 2]
        assert scores.mean(axis=1) == pytest.approx([0] * 3, abs=1e-9)
        assert scores.std(axis=1) == pytest.approx([1] * 3)
        assert max_twv(scores, np.eye(3, dtype=np.bool_)).value == 1.0
    assert search([words[0][:4]], documents).tolist() == [[0.0, 0.0, 0.0]]
    assert search([words[0][:5]], documents).any()
    distance = distances(words[0], documents[0])
    assert (distance.min(axis=1).max(), distance.max(axis=1).min()) == (0.0, 1.0)
    louder = distances(words[0] * rng.uniform(0.1, 10.0, (12, 1)), documents[0] * rng.uniform(0.1, 10.0, (28, 1)))
    np.testing.assert_allclose(louder, distance, atol=1e-9)  # of directions alone
    with pytest.raises(UsageError, match="0 queries"):
        search([], documents)


# ---- all of them ------------------------------------------------------------------------------------


def every_task() -> dict[str, Task]:
    return {
        "classify": UtteranceClassification(label="word", categories=["a", "b"]),
        "slots": SlotClassification(categories={"x": ["", "a"], "y": ["b"]}),
        "multilabel": MultiLabel(label="tags", categories=["a"], separator=";", threshold=0.25),
        "verify": SpeakerVerification(label="speaker", categories=["a"], margin=0.2, scale=9.0, embedding_size=3),
        "ctc": CtcText(tokenizer=LETTERS, text="phonemes", columns=["words"], metrics=["cer"]),
        "frames": FrameClassification(categories=["a"], frame_seconds=0.02),
        "diarize": Diarization(num_speakers=3, frame_seconds=0.02, median_frames=1, threshold=0.25, collar_seconds=0.5),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_its_configuration(kind: str) -> None:
    task = every_task()[kind]
    assert type(task) is KINDS[kind]
    config = json.loads(json.dumps(task.config()))
    again = KINDS[kind](**config, **({"tokenizer": LETTERS} if kind == "ctc" else {}))
    assert again.config() == task.config()
    plain, plain_again = (
        {name: value for name, value in vars(one).items() if isinstance(value, int | float | str | tuple | list)}
        for one in (task, again)
    )
    assert plain == plain_again  # whatever its constructor took
    assert every_task()["ctc"].columns == ("words",)


def test_mistakes_are_named() -> None:
    task = UtteranceClassification(label="word", categories=["a", "b"])
    with pytest.raises(UsageError, match=r"no column 'word'.*It has: key, set, speaker"):
        task.references(batch_of(speaker=["x"]))
    with pytest.raises(UsageError, match="clip1: word is 'c', none of the 2 classes"):
        task.loss(torch.zeros(2, 2), torch.ones(2), batch_of(word=["a", "c"]))
    with pytest.raises(UsageError, match="clip0: word is None"):
        task.loss(torch.zeros(1, 2), torch.ones(1), batch_of(word=[None]))
    with pytest.raises(UsageError, match="score: nothing was answered"):
        task.score([])
    with pytest.raises(UsageError, match="clip0 and 0 others have no reference"):
        task.score([Answer("s", "clip0", "a", None)])
    assert task.references(batch_of(word=torch.tensor([3, 4]))) == ["3", "4"]
    assert task.references(batch_of(word=torch.tensor([3.0, 0.1, float("nan")]))) == ["3", "0.1", None]
    for categories in ([], ["a", "a"]):
        with pytest.raises(UsageError, match="too few or not each once"):
            UtteranceClassification(label="word", categories=categories)
    for metrics, said in ((["bleu"], "no bleu; there are wer"), ([], "no names; there are wer")):
        with pytest.raises(UsageError, match=said):
            CtcText(tokenizer=LETTERS, metrics=metrics)
    with pytest.raises(UsageError, match="num_speakers is 0; it must be at least 1"):
        Diarization(num_speakers=0, frame_seconds=0.1)
    with pytest.raises(UsageError, match="no column 'segments'"):
        Diarization(num_speakers=2, frame_seconds=0.1).references(batch_of(text=["a"]))
    for wrong in ({"start": 1}, {"start": "x", "end": 1, "label": "a"}, {"start": None, "end": 1, "label": "a"}):
        with pytest.raises(UsageError, match=r"clip0: segment .'start': .* should have start and end"):
            Diarization(num_speakers=2, frame_seconds=0.1).references(batch_of(segments=[[wrong]]))
