"""Labels as numbers: one a sample, one for each of several questions, or any number of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.categories import Categories
from s3prl_stream.pipes.chained import Alias, chained
from s3prl_stream.pipes.s3prl_arguments import CATEGORY_REFUSED
from s3prl_stream.pipes.stage import Samples, Source, Stage, root_of
from s3prl_stream.sample import Sample

FROM_DATA: Alias = ("categories", {True: None})
"""S3PRL's train_category_encoder=True: the categories are those of the data."""


@chained(
    "encode_category",
    aliases={"label_name": "label", "train_category_encoder": FROM_DATA},
    key_names={"encoded_target_name": "class_id"},
    refused=CATEGORY_REFUSED,
)
class EncodeCategory(Stage):
    """The number of each sample's label among the sorted categories.

    In:     the label.
    Out:    class_id int; int64 [B] in a batch. The label stays. 1 -> 1.
    Random: none.

    Args:
        label: its key. (S3PRL: label_name)
        categories: all labels there are; None: those of all samples of the root, found once when bound. Give them where
            a part of the data may lack one: `chain.stage("encode_category").categories` of the training data.

    Raises:
        UsageError: when bound, if the labels of the root are not known before they are read.
        SampleError: "unknown_label", or "no_label" for a sample without.
    """

    positional = "label"
    provides: Mapping[str, str] = {"class_id": "int"}

    def __init__(
        self, source: Samples | None = None, *, label: str = "label", categories: Iterable[Any] | None = None
    ) -> None:
        self.label = label
        self.categories = None if categories is None else Categories(categories)
        self.takes = {label: "any"}
        super().__init__(source)

    def prepare(self, source: Source) -> None:
        if self.categories is None:
            self.categories = learned(self, self.label, root_of(source).column(self.label))

    def emit(self, sample: Sample) -> Iterator[Sample]:
        assert self.categories is not None
        yield {**sample, "class_id": self.categories.encode(_label(sample, self.label), str(sample["key"]))}


@chained(
    "encode_categories",
    aliases={"label_name": "labels", "train_category_encoder": FROM_DATA},
    key_names={"encoded_target_name": "class_ids"},
    refused=CATEGORY_REFUSED,
)
class EncodeMultipleCategory(Stage):
    """The numbers of several labels of each sample, each among its own categories (action, object and place ...).

    In:     a list of N labels under one key, or N labels under a key each.
    Out:    class_ids int64 [N]; [B, N] in a batch. 1 -> 1.
    Random: none.

    Args:
        labels: the key of the list, or the N keys.
        categories: for each of the N all labels there are; None: those of all samples of the root.

    Raises:
        UsageError: when bound, if the labels of the root are not known before they are read.
        SampleError: "unknown_label"; "no_label" for a sample without, or with another number of labels.
    """

    positional = "labels"
    provides: Mapping[str, str] = {"class_ids": "int64 [N]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        labels: str | Sequence[str] = "labels",
        categories: Sequence[Iterable[Any]] | None = None,
    ) -> None:
        self.labels = labels if isinstance(labels, str) else tuple(labels)
        self.categories = None if categories is None else [Categories(slot) for slot in categories]
        self.takes = {labels: "nested"} if isinstance(labels, str) else dict.fromkeys(labels, "any")
        super().__init__(source)

    def prepare(self, source: Source) -> None:
        if self.categories is not None:
            return
        root = root_of(source)
        if not isinstance(self.labels, str):
            self.categories = [learned(self, name, root.column(name)) for name in self.labels]
            return
        rows = list(_lists(root.column(self.labels), self))
        numbers = sorted(set(map(len, rows)))
        if len(numbers) != 1:
            found = " or ".join(map(str, numbers)) or "no"
            raise UsageError(
                f"EncodeMultipleCategory: the samples have {found} labels under {self.labels!r}; expected the same "
                "number in all of them. Give categories=, a list for each label, and the others are left out."
            )
        self.categories = [learned(self, self.labels, column) for column in zip(*rows, strict=True)]

    def emit(self, sample: Sample) -> Iterator[Sample]:
        assert self.categories is not None
        key = str(sample["key"])
        if isinstance(self.labels, str):
            labels = _label_list(sample, self.labels)
        else:
            labels = [_label(sample, name) for name in self.labels]
        if len(labels) != len(self.categories):
            raise SampleError(f"{key}: {len(labels)} labels, expected {len(self.categories)}", reason="no_label")
        ids = [categories.encode(label, key) for categories, label in zip(self.categories, labels, strict=True)]
        yield {**sample, "class_ids": torch.tensor(ids, dtype=torch.int64)}


@chained(
    "encode_multilabel",
    aliases={"label_name": "labels", "train_category_encoder": FROM_DATA},
    key_names={"binary_labels_name": "binary_labels", "encoded_target_name": "binary_labels"},
    refused=CATEGORY_REFUSED,
)
class EncodeMultiLabel(Stage):
    """Which of the sorted categories each sample has.

    In:     a list of labels, which may be empty.
    Out:    binary_labels float32 [C], 1.0 for those that it has; [B, C] in a batch. 1 -> 1.
    Random: none.

    Args:
        labels: the key of the list. (S3PRL: label_name)
        categories: all C labels there are; None: those of all samples of the root.

    Raises:
        UsageError: when bound, if the labels of the root are not known before they are read.
        SampleError: "unknown_label", or "no_label" for a sample without a list.
    """

    positional = "labels"
    provides: Mapping[str, str] = {"binary_labels": "float32 [C]"}

    def __init__(
        self, source: Samples | None = None, *, labels: str = "labels", categories: Iterable[Any] | None = None
    ) -> None:
        self.labels = labels
        self.categories = None if categories is None else Categories(categories)
        self.takes = {labels: "nested"}
        super().__init__(source)

    def prepare(self, source: Source) -> None:
        if self.categories is None:
            rows = _lists(root_of(source).column(self.labels), self)
            self.categories = learned(self, self.labels, (label for row in rows for label in row))

    def emit(self, sample: Sample) -> Iterator[Sample]:
        assert self.categories is not None
        binary_C = torch.zeros(len(self.categories))
        for label in _label_list(sample, self.labels):
            binary_C[self.categories.encode(label, str(sample["key"]))] = 1.0
        yield {**sample, "binary_labels": binary_C}


def learned(stage: Stage, name: str, labels: Iterable[Any]) -> Categories:
    """The categories of all labels that the data have under this name.

    Raises:
        UsageError: they have none, or some that are neither texts nor integers.
    """
    try:
        return Categories(labels)
    except UsageError as error:
        raise UsageError(f"{type(stage).__name__}, learning from {name!r} of all samples: {error}") from None


def _lists(rows: Iterable[Any], stage: Stage) -> Iterator[Sequence[Any]]:
    """The lists of labels of the root, without the samples that have none."""
    for row in rows:
        if isinstance(row, str) or not (row is None or isinstance(row, Iterable)):
            raise UsageError(f"{type(stage).__name__}: the labels of a sample are a list; found {row!r:.80}.")
        if row is not None:
            yield list(row)


def _label_list(sample: Sample, name: str) -> list[Any]:
    labels = _label(sample, name)
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise SampleError(
            f"{sample['key']}: {name!r} must be a list of labels; found {labels!r:.80}", reason="no_label"
        )
    return list(labels)


def _label(sample: Sample, name: str) -> Any:
    if sample.get(name) is None:
        raise SampleError(f"{sample['key']}: has no label under {name!r}", reason="no_label")
    return sample[name]
