"""Labels and their numbers: 0, 1, ... in sorted order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from s3prl_stream.errors import SampleError, UsageError


class Categories:
    """The labels there are, each once, sorted (numbers before texts): the order of their ids.

    Args:
        labels: strings, integers or booleans, in any order; None, and repeats, are left out.

    Raises:
        UsageError: no label at all, or one of another type.
    """

    def __init__(self, labels: Iterable[Any]) -> None:
        if isinstance(labels, str):
            raise UsageError(f"categories: {labels!r} is one string; give a list of labels.")
        try:
            found = {plain_label(label) for label in labels if label is not None}
        except TypeError as error:
            raise UsageError(f"categories must be strings or integers: {error}.") from None
        wrong = next((label for label in found if not isinstance(label, str | int)), None)
        if wrong is not None or not found:
            problem = "there are none" if wrong is None else f"{wrong!r} is a {type(wrong).__name__}"
            raise UsageError(f"categories must be strings or integers; {problem}.")
        self.labels = tuple(sorted(found, key=lambda label: (isinstance(label, str), label)))
        self._ids = {label: position for position, label in enumerate(self.labels)}
        self.fingerprint = hashlib.blake2b(json.dumps(self.labels).encode(), digest_size=8).hexdigest()

    def encode(self, label: Any, key: str) -> int:
        """The id of the label of a sample.

        Raises:
            SampleError: reason "unknown_label".
        """
        try:
            return self._ids[plain_label(label)]
        except (KeyError, TypeError):
            raise SampleError(
                f"{key}: the label {label!r:.80} is none of the {len(self)} categories "
                f"{', '.join(map(repr, self.labels[:8]))}{' ...' if len(self) > 8 else ''}",
                reason="unknown_label",
            ) from None

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Categories) and self.labels == other.labels

    def __hash__(self) -> int:
        return hash(self.labels)

    def __repr__(self) -> str:
        return f"<Categories {len(self)}, {self.fingerprint}>"


def plain_label(label: Any) -> Any:
    """A value of numpy's or torch's as one of Python's; an array of several as it is."""
    try:
        return label.item() if hasattr(label, "item") else label
    except (ValueError, RuntimeError):
        return label
