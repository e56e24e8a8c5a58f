"""What a probe asks of the clips of a set: a label, and on which part of them the answers are judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64, key_hash, uniform
from s3prl_stream.shards.selection import explaining
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.where import compile_where

Bools: TypeAlias = npt.NDArray[np.bool_]
Key: TypeAlias = tuple[str, str]

TEST_SHARE = 0.25
VALIDATION_SHARE = 0.2


class Fold(NamedTuple):
    """Two parts of N utterances; the rest is trained on."""

    test: Bools
    validation: Bools
    """Part of the training utterances."""


class Question:
    """A label of the clips of a set, and how these are split; arguments as of `probe`.

    Attributes:
        labels: (set, key) -> the label; None where there is none.
        centers: (set, key) -> the value of the column `center`; None: there is no such column.

    Raises:
        UsageError: an unknown column, a label of measures, no seeds, or two ways to split.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        label: str,
        holdout: str | None = None,
        test_where: str | None = None,
        center: str | None = None,
        seeds: int = 3,
    ) -> None:
        if seeds < 1:
            raise UsageError(f"probe: seeds is {seeds}; it must be at least 1")
        if holdout is not None and test_where is not None:
            raise UsageError("probe: give a holdout or test_where, not both")
        self.label, self.seeds, self._shards = label, seeds, shards
        self._column, _, values = (holdout or "").partition("=")
        self._held_out = [value.strip() for value in values.split(",") if value.strip()]
        by = None if holdout is None else self._column
        columns = _columns(shards, [name for name in (label, by, center) if name is not None])
        self.labels = columns[label]
        self.centers = None if center is None else columns[center]
        self._groups = None if by is None else columns[by]
        self._in_test = None if test_where is None else _selected(shards, test_where)
        self.split = f"a random {TEST_SHARE:.0%} for testing, by seed"
        """In words."""
        if test_where is not None:
            self.split = f"test where {test_where}"
        elif holdout is not None:
            held_out = f"{self._column} {values} held out"
            self.split = held_out if values else f"each {self._column} held out in turn"
        self.split += "" if center is None else f", each {center} centered"

    def check(self, where: str | None) -> None:
        """See that it can be asked of the clips of `where`, before anything is computed; errors as of `folds`."""
        used = self.labels.keys() if where is None else _selected(self._shards, where)
        self.folds(sorted(key for key in used if self.labels[key] is not None))

    def folds(self, keys: Sequence[Key]) -> tuple[list[str], dict[int, list[Fold]]]:
        """Names of the classes of utterances that have a label, and the folds of each seed.

        Raises:
            UsageError: fewer than two classes, or a part without utterances, or with none that could be right.
        """
        names = sorted({str(self.labels[key]) for key in keys})
        if len(names) < 2:
            raise UsageError(
                f"probe: label {self.label!r} has {len(names)} value(s) in this selection; at least 2 are needed"
            )
        folds = {seed: self._folds(keys, seed) for seed in range(self.seeds)}
        labels = np.array([str(self.labels[key]) for key in keys])
        if not any(np.isin(labels[one.test], labels[~one.test]).any() for some in folds.values() for one in some):
            raise UsageError(
                f"probe: no utterance of a test part has a value of {self.label!r} that occurs in training, so none "
                f"can be right ({len(names)} values, {len(keys)} utterances). Hold out another part, or take a label "
                "of which each value has several utterances"
            )
        return names, folds

    def _folds(self, keys: Sequence[Key], seed: int) -> list[Fold]:
        if self._groups is not None:
            groups = [self._groups[key] for key in keys]
            return [
                fold(name, test, keys, seed, groups) for name, test in held_out(groups, self._column, self._held_out)
            ]
        if self._in_test is not None:
            return [fold("test_where", np.array([key in self._in_test for key in keys], dtype=np.bool_), keys, seed)]
        return [fold("random", _draw(keys, TEST_SHARE, "probe test", seed), keys, seed)]


def held_out(groups: Sequence[str | None], column: str, values: Sequence[str]) -> list[tuple[str, Bools]]:
    """(name, the test part) for these values of a column together, or for each of all its values; errors of `probe`."""
    there = sorted({group for group in groups if group is not None})
    unknown = sorted(set(values) - set(there))
    if unknown:
        raise UsageError(f"probe: {column} has no value {', '.join(unknown)}; it has {', '.join(there[:20])}")
    parts = [set(values)] if values else [{value} for value in there]
    return [(",".join(sorted(part)), np.array([group in part for group in groups])) for part in parts]


def fold(name: str, test: Bools, keys: Sequence[Key], seed: int, groups: Sequence[str | None] | None = None) -> Fold:
    """The fold with a validation part split off as the test part was: by groups if there are enough, else by chance."""
    if not test.any() or test.all():
        raise UsageError(f"probe: the split ({name}) leaves {'no' if not test.any() else 'only'} test utterances")
    rest = sorted({group for group, held in zip(groups or [], test, strict=False) if not held and group is not None})
    if len(rest) >= 3:
        order = sorted(rest, key=lambda group: int(hash64("probe validation", seed, group)))
        chosen = set(order[: max(1, round(VALIDATION_SHARE * len(rest)))])
        validation = np.array([group in chosen for group in groups or []]) & ~test
    else:
        validation = _draw(keys, VALIDATION_SHARE, "probe validation", seed) & ~test
    if not validation.any() or (validation | test).all():
        raise UsageError(f"probe: too few training utterances ({int((~test).sum())}) to split off a validation part")
    return Fold(test, validation)


def _draw(keys: Sequence[Key], share: float, purpose: str, seed: int) -> Bools:
    hashes = hash64(purpose, seed, np.array([key_hash("/".join(key)) for key in keys], dtype=np.uint64))
    drawn: Bools = uniform(hashes) < share
    return drawn


def _columns(shards: ShardSet, names: Sequence[str]) -> dict[str, dict[Key, str | None]]:
    """Column -> (set, key) -> its value as text; the first column must not be one of measures."""
    for name in names:
        if name not in shards.columns():
            raise UsageError(f"probe: no column {name!r}; {shards.known_columns(name)}")
    rows = shards.table().select(list(dict.fromkeys(["set", "key", *names]))).to_pylist()
    numbers = (row[names[0]] for row in rows if isinstance(row[names[0]], float) and math.isfinite(row[names[0]]))
    measured = next((number for number in numbers if not number.is_integer()), None)
    if measured is not None:
        raise UsageError(
            f"probe: label {names[0]!r} holds measures, such as {measured:g}, and a probe tells classes apart. Take a "
            "column of texts or of whole numbers"
        )
    return {name: {(row["set"], row["key"]): _text(row[name]) for row in rows} for name in names}


def _selected(shards: ShardSet, expression: str) -> set[Key]:
    condition = compile_where(expression, shards.columns())
    with explaining(expression):
        rows = shards.table().filter(condition).select(["set", "key"]).to_pylist()
    return {(row["set"], row["key"]) for row in rows}


def _text(value: Any) -> str | None:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return None if missing else str(value)
