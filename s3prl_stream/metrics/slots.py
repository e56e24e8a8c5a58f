"""Slot filling: what kinds of slots were found, and what was put into them (SUPERB's SF).

A slot is marked in the text: "a B-size small E-size coffee" holds the slot ("size", "small").
"""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics.classification import check_pairs
from s3prl_stream.metrics.edits import cer

BEGIN, END = "B-", "E-"


def slots_of(text: str) -> list[tuple[str, str]]:
    """(type, value) of each slot in a marked text, from left to right; a mark without its partner is no slot.

    S3PRL looks for them by a regular expression in which the end of "city" also closes "cit"; here marks are words.
    """
    words = text.split()
    slots, place = [], 0
    while place < len(words):
        kind = words[place].removeprefix(BEGIN)
        end = None
        if words[place].startswith(BEGIN) and f"{END}{kind}" in words[place + 2 :]:
            end = words.index(f"{END}{kind}", place + 2)
            inside = [word for word in words[place + 1 : end] if not word.startswith((BEGIN, END))]
            slots.append((kind, " ".join(inside)))
        place = place + 1 if end is None else end + 1
    return slots


def slot_type_f1(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean over the utterances of the F1 of the types of slots, 0 to 1; 1 where there are none and none was found."""
    check_pairs("slot_type_f1", answers, references)
    scores = []
    for answer, reference in zip(answers, references, strict=True):
        found = {kind for kind, _ in slots_of(answer)}
        wanted = {kind for kind, _ in slots_of(reference)}
        scores.append(2 * len(found & wanted) / (len(found) + len(wanted)) if found or wanted else 1.0)
    return sum(scores) / len(scores)


def slot_value_cer(answers: Sequence[str], references: Sequence[str]) -> float:
    """Character error rate of the references' slot values, each against the nearest value of its type in the answer.

    A slot whose type was not found counts as if nothing had been put into it.

    Raises:
        UsageError: the references have no slot at all.
    """
    check_pairs("slot_value_cer", answers, references)
    nearest, values = [], []
    for answer, reference in zip(answers, references, strict=True):
        found = slots_of(answer)
        for kind, value in slots_of(reference):
            candidates = [other for other_kind, other in found if other_kind == kind]
            nearest.append(min(candidates, key=lambda other: Levenshtein.distance(other, value), default=""))
            values.append(value)
    if not values:
        raise UsageError(f"slot_value_cer: none of the {len(references)} references has a slot, so there is no rate")
    return cer(nearest, values)
