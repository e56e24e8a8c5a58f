"""Metrics against answers worked out by hand, and against S3PRL's own on random input (tests/golden/superb.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import (
    DiarizationError,
    Turn,
    accuracy,
    cer,
    diarization_error,
    equal_error_rate,
    error_rate,
    max_twv,
    mean_average_precision,
    median_filter,
    micro_f1,
    min_dcf,
    per,
    slot_type_f1,
    slot_value_cer,
    slots_of,
    wer,
)


@pytest.fixture(scope="module")
def golden(repository: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((repository / "tests/golden/superb.json").read_text())
    return numbers


# ---- classes ----------------------------------------------------------------------------------------


def test_accuracy_counts_an_answer_of_several_slots_once() -> None:
    assert accuracy(["a", "b", "b", "c"], ["a", "b", "c", "c"]) == 0.75
    assert accuracy([("on", "light"), ("on", "heat")], [("on", "light"), ("off", "heat")]) == 0.5
    with pytest.raises(UsageError, match="0 answers for 0 references"):
        accuracy([], [])


def test_labels_of_several_classes() -> None:
    assert micro_f1([{"a", "b"}, {"c"}], [{"a"}, {"c"}]) == pytest.approx(2 * 2 / (3 + 2))
    assert micro_f1([set()], [set()]) == 1.0
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    targets = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.bool_)
    assert mean_average_precision(scores, targets) == pytest.approx((1 + 2 / 3) / 2)  # the second class never occurs
    tied = np.full((4, 1), 0.5)
    assert mean_average_precision(tied, targets[:, :1]) == mean_average_precision(tied, targets[::-1, :1]) == 0.5
    with pytest.raises(UsageError, match="none of the classes"):
        mean_average_precision(scores, np.zeros_like(targets))


# ---- text -------------------------------------------------------------------------------------------


def test_error_rates_by_hand() -> None:
    assert wer(["the cat sat", "on mat"], ["the cat sat", "on the mat now"]) == pytest.approx(2 / 7)
    assert cer(["kitten"], ["sitting"]) == pytest.approx(3 / 7)
    assert wer(["a b c d"], ["x"]) == 4.0
    assert per(["AH0  T"], ["AH0 T"]) == 0.0
    assert error_rate([[1, 2, 3]], [[1, 3]]) == 0.5
    with pytest.raises(UsageError, match="1 answers for 2 references"):
        wer(["a"], ["a", "b"])
    for hopeless in ([""], []):
        with pytest.raises(UsageError, match=r"empty|0 references"):
            wer([""] * len(hopeless), hopeless)


def test_texts_as_s3prl(golden: dict[str, Any]) -> None:
    texts = golden["texts"]
    for metric in (wer, cer, per):
        expected = texts[metric.__name__]
        assert metric(texts["answers"], texts["references"]) == pytest.approx(expected, abs=1e-9)


def test_slots_are_words_between_marks() -> None:
    assert slots_of("a B-size small E-size B-kind iced mocha E-kind please") == [
        ("size", "small"),
        ("kind", "iced mocha"),
    ]
    for unmarked in ("B-size small", "small E-size", "size small E-size", "B-size E-size"):
        assert slots_of(unmarked) == []
    # S3PRL closes "cit" by the end of "city", and leaves the first end in the value of the second of these
    assert slots_of("B-cit a E-city B-cit b E-cit") == [("cit", "a b")]
    assert slots_of("B-size E-size red E-size") == [("size", "red")]


def test_slot_metrics_by_hand() -> None:
    wanted = ["B-size small E-size B-kind tea E-kind", "no slot"]
    assert slot_type_f1(wanted, wanted) == 1.0
    assert slot_type_f1(["none"], ["none"]) == 1.0
    assert slot_type_f1(wanted[:1], ["none"]) == slot_type_f1(["none"], wanted[:1]) == 0.0
    assert slot_value_cer(wanted, wanted) == 0.0
    found = ["B-size smell E-size", "no slot"]
    assert slot_type_f1(found, wanted) == pytest.approx((2 / 3 + 1) / 2)
    assert slot_value_cer(found, wanted) == pytest.approx((1 + 3) / 8)
    # a word that looks like a mark leaves a slot empty, which is no reason to stop
    assert slot_value_cer(["B-what x E-what"] * 2, ["B-what E-MAIL E-what", "B-what y E-what"]) == pytest.approx(2 / 1)
    with pytest.raises(UsageError, match="slot_value_cer: none of the 2 references has a slot"):
        slot_value_cer(wanted, ["no slot"] * 2)


def test_slots_as_s3prl(golden: dict[str, Any]) -> None:
    slots = golden["slots"]
    assert slot_type_f1(slots["answers"], slots["references"]) == pytest.approx(slots["type_f1"], abs=1e-9)
    assert slot_value_cer(slots["answers"], slots["references"]) == pytest.approx(slots["value_cer"], abs=1e-9)


# ---- trials -----------------------------------------------------------------------------------------


def test_verification_by_hand() -> None:
    assert equal_error_rate([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]).value == 0.0
    assert equal_error_rate([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1]).value == 1.0
    assert equal_error_rate([1, 0, 1, 0], [4, 3, 2, 1]).value == 0.5
    assert equal_error_rate([1, 1, 0, 0], [1, 1, 1, 1]).value == 0.5
    between = equal_error_rate([1, 1, 1, 0, 0], [0.8, 0.6, 0.4, 0.7, 0.3])  # one of two false alarms, from 0.7 down;
    assert between == pytest.approx((0.5, 0.65))  # misses fall from 2 to 1 of 3 at 0.6, so half way they are as many
    perfect = min_dcf([1, 1, 0, 0], [4, 3, 2, 1])
    assert perfect == (0.0, 3.0)
    # one of two targets above all others: miss 0.5 at no false alarm; cost 0.01 * 0.5 over 0.01
    assert min_dcf([1, 0, 1, 0], [4, 3, 2, 1]).value == pytest.approx(0.5)
    # where a miss costs 1000, one false alarm of two is the better of both: 0.99 * 0.5 over 0.99
    assert min_dcf([1, 0, 1, 0], [4, 3, 2, 1], cost_miss=1000.0) == pytest.approx((0.5, 2.0))
    assert min_dcf([0, 1] + [0] * 99, range(101, 0, -1)).value == pytest.approx(0.99)  # of 1 in 100, 99 times as likely
    for p_target in (0.01, 0.9):  # nothing is better than always the same answer
        assert min_dcf([0, 0, 1, 1], [4, 3, 2, 1], p_target=p_target).value == pytest.approx(1.0)
    for trials in (([1, 1], [0.0, 1.0]), ([1, 0], [0.0, float("nan")]), ([1, 0], [0.0])):
        with pytest.raises(UsageError, match="trials"):
            equal_error_rate(*trials)


def test_verification_as_s3prl(golden: dict[str, Any]) -> None:
    trials = golden["trials"]
    asked = trials["is_target"], trials["scores"]
    assert equal_error_rate(*asked).value == pytest.approx(trials["eer"], abs=1e-6)
    assert min_dcf(*asked).value == pytest.approx(trials["min_dcf"], abs=1e-6)
    assert min_dcf(*asked, p_target=0.05).value == pytest.approx(trials["min_dcf_05"], abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=30))
def test_verification_ranges(trials: list[tuple[bool, int]]) -> None:
    """The equal error rate of the opposite scores is its complement, and no cost is above that of a constant answer."""
    targets, scores = [one[0] for one in trials], [float(one[1]) for one in trials]
    if len(set(targets)) < 2:
        return
    rate = equal_error_rate(targets, scores).value
    assert equal_error_rate(targets, [-score for score in scores]).value == pytest.approx(1 - rate)
    for p_target in (0.01, 0.9):
        assert 0 <= min_dcf(targets, scores, p_target=p_target).value <= 1


# ---- diarization ------------------------------------------------------------------------------------


def turns(*spoken: tuple[float, float, str]) -> list[Turn]:
    return [Turn(*one) for one in spoken]


def test_diarization_by_hand() -> None:
    reference = turns((0, 10, "A"), (10, 20, "B"))
    renamed = turns((0, 10, "x"), (10, 20, "y"))
    assert diarization_error(renamed, reference) == diarization_error(renamed[::-1], reference) == (0, 0, 0, 20)
    late = diarization_error(turns((0, 12, "x"), (12, 21, "y")), reference)
    assert late == (0, 1, 2, 20)
    assert late.rate == pytest.approx(0.15)
    one = diarization_error(turns((0, 20, "x")), reference)
    assert (one.confused, one.rate) == (10, 0.5)
    assert diarization_error([], reference) == (20, 0, 0, 20)
    assert diarization_error([], reference[:1]) == diarization_error([], reference[:1] * 2) == (10, 0, 0, 10)
    assert diarization_error([], []) == diarization_error(turns((3, 3, "x")), []) == (0, 0, 0, 0)
    rounded = turns((0, 0.2, "A"), (0.2, 0.5, "B"), (0.5, 0.6, "A"), (0.6, 0.9, "B"))
    assert diarization_error(rounded, rounded).confused == 0  # not a rounding error below
    assert diarization_error(reference, []) == (0, 20, 0, 0)
    with pytest.raises(UsageError, match="no speech"):
        _ = diarization_error(reference, []).rate


def test_collar_and_overlap() -> None:
    reference, answer = turns((0, 10, "A"), (10, 20, "B")), turns((0, 10.2, "x"), (10.2, 20, "y"))
    assert diarization_error(answer, reference).confused == pytest.approx(0.2)
    with_collar = diarization_error(answer, reference, collar_seconds=0.25)
    assert with_collar.confused == 0
    assert diarization_error(answer, [], collar_seconds=0.25) == (0, 20, 0, 0)
    later = turns((0, 10.3, "x"), (10.3, 20, "y"))
    assert diarization_error(later, reference, collar_seconds=0.25).confused == pytest.approx(0.05)
    assert with_collar.total == pytest.approx(20 - 4 * 0.25)  # each side of 10 once, inside of 0 and of 20
    overlap = turns((0, 10, "A"), (5, 10, "B"))
    assert diarization_error(turns((0, 10, "x")), overlap) == (5, 0, 0, 15)
    double = turns((0, 6, "A"), (4, 10, "A"))
    assert diarization_error(turns((0, 10, "x")), double) == (0, 0, 0, 10)


def test_errors_of_recordings_add_up() -> None:
    total = sum([DiarizationError(1, 0, 0, 10), DiarizationError(0, 1, 2, 10)], DiarizationError())
    assert total == (1, 1, 2, 20)
    assert total.rate == 0.2


def test_error_of_turns_equals_that_of_frames() -> None:
    """The counts of S3PRL and of EEND, for the better of the two ways to match two speakers."""
    rng = np.random.default_rng(0)
    reference, answer = rng.random((60, 2)) < 0.4, rng.random((60, 2)) < 0.4

    def spoken(active: np.ndarray) -> list[Turn]:
        return [Turn(frame, frame + 1, str(who)) for frame, who in zip(*np.nonzero(active), strict=True)]

    def frame_error(answer: np.ndarray) -> DiarizationError:
        due, said, right = (one.sum(axis=1) for one in (reference, answer, answer & reference))
        missed, false_alarm = np.maximum(due - said, 0).sum(), np.maximum(said - due, 0).sum()
        return DiarizationError(missed, false_alarm, (np.minimum(due, said) - right).sum(), due.sum())

    best = min((frame_error(answer[:, order]) for order in ([0, 1], [1, 0])), key=lambda error: error.rate)
    assert diarization_error(spoken(answer), spoken(reference)) == pytest.approx(best)


def test_median_filter() -> None:
    blip = np.array([0, 1, 0, 0, 1, 1, 0, 1, 1, 1], dtype=np.bool_)[:, None]
    assert median_filter(blip, 1).tolist() == blip.tolist()
    assert median_filter(blip, 3)[:, 0].astype(int).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert median_filter(blip, 5)[:, 0].astype(int).tolist() == [0, 0, 0, 1, 0, 1, 1, 1, 1, 1]
    assert not median_filter(blip[5:7], 3).any()  # before the first frame there is silence
    for width in (4, -1):
        with pytest.raises(UsageError, match="must be odd"):
            median_filter(blip, width)


# ---- queries ----------------------------------------------------------------------------------------


def test_term_weighted_value_by_hand() -> None:
    is_in = np.array([[1, 0, 0], [0, 1, 1]], dtype=np.bool_)
    perfect = np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.7]])
    assert max_twv(perfect, is_in) == (1.0, 0.7)
    assert max_twv(-perfect, is_in).value == 0.0
    # only the first hit is worth taking: after it comes a false alarm that costs beta / 2 queries / 2 documents
    mixed = np.array([[0.9, 0.8, 0.2], [0.1, 0.3, 0.4]])
    assert max_twv(mixed, is_in) == (0.5, 0.9)
    cheap = max_twv(mixed, is_in, cost_false_alarm=0.01)
    beta = 0.01 / 100 * (1 / 0.0008 - 1)
    assert cheap == (pytest.approx(1 - beta / 4), 0.3)
    assert max_twv(-perfect, is_in, cost_false_alarm=0.01) == (pytest.approx(1 - beta), -0.9)  # all of them are taken
    # with QUESST's costs one false alarm of 100 costs 12.49 hundredths
    assert max_twv([[0.8, 0.9] + [0.0] * 99], [[True] + [False] * 100]).value == pytest.approx(1 - 0.1249)
    for there in (False, True):  # a query that occurs nowhere, or everywhere, changes nothing
        assert max_twv(np.vstack([mixed, [[9, 9, 9]]]), np.vstack([is_in, [[there] * 3]])) == (0.5, 0.9)
    assert max_twv(np.full((2, 3), 0.5), is_in) == (0.0, np.inf)  # equal scores are found together or not at all
    one_is_nan = np.where(perfect == 0.2, np.nan, perfect)
    for scores, there in ((perfect[:1], is_in), (perfect, is_in & False), (one_is_nan, is_in)):
        with pytest.raises(UsageError, match="max_twv"):
            max_twv(scores, there)
