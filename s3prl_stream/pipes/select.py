"""What a chain hands over, under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch
from s3prl_stream.pipes.stage import Samples
from s3prl_stream.sample import Batch, Sample

ALWAYS = ("key", "set", "epoch", "identity", "batch_index", "slot", "draws")
"""Who a sample is, and where in its batch: kept whatever is selected."""


@chained("select")
class SetOutputKeys(OnBatch):
    """Keep some keys only, under other names if wanted.

    In:     the selected keys.
    Out:    they, and `key`, `set`, `epoch`. 1 -> 1.
    Random: none.

    Args:
        output_keys: the keys to keep, or {new name: key}, as in S3PRL. A length ("x_len": "wav_len") comes with its
            tensor when samples are collated, and may be named or not.

    Raises:
        UsageError: at construction, if it is neither, or gives a value the name of what is always kept.
    """

    positional = "output_keys"

    def __init__(self, source: Samples | None = None, *, output_keys: Mapping[str, str] | Sequence[str] = ()) -> None:
        if isinstance(source, Mapping) and not output_keys and all(isinstance(key, str) for key in source.values()):
            source, output_keys = None, source  # type: ignore[assignment]  # S3PRL gives them by position
        named = dict(output_keys) if isinstance(output_keys, Mapping) else {key: key for key in output_keys}
        names = [name for pair in named.items() for name in pair]
        if isinstance(output_keys, str) or not names or not all(isinstance(name, str) for name in names):
            raise UsageError(
                f"SetOutputKeys: output_keys={output_keys!r} is neither a list of keys nor {{new name: key}}."
            )
        taken = next((new for new, old in named.items() if new in ALWAYS and new != old), None)
        if taken is not None:
            raise UsageError(f"SetOutputKeys: {taken!r} says who a sample is and stays; choose another name")
        self.output_keys = {new: old for new, old in named.items() if not _is_length(new, old, named)}
        self.takes = dict.fromkeys(self.output_keys.values(), "any")
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield self.sketch(sample)

    def sketch(self, sample: Sample) -> Sample:
        kept = {key: sample[key] for key in ALWAYS if key in sample}
        return {**kept, **{new: sample[old] for new, old in self.output_keys.items()}}

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:  # noqa: ARG002
        """The batch after this stage; lengths go with their tensors."""
        kept = {key: value for key, value in batch.items() if key in (*ALWAYS, "weight") or "/" in key}
        pairs = [(f"{new}{end}", f"{old}{end}") for new, old in self.output_keys.items() for end in ("", "_len")]
        return {**kept, **{new: batch[old] for new, old in pairs if old in batch}}

    def known_keys(self) -> Mapping[str, str] | None:
        before = self.source.known_keys() if self.source is not None else None
        if before is None:
            return None
        kept = {key: kind for key, kind in before.items() if key in ALWAYS}
        return {**kept, **{new: before[old] for new, old in self.output_keys.items()}}

    def keys_line(self) -> str:
        return f"gives {', '.join(self.output_keys)} only"


def _is_length(new: str, old: str, named: Mapping[str, Any]) -> bool:
    """Whether this pair is the length that collation gives to another pair of tensors."""
    if not (new.endswith("_len") and old.endswith("_len")):
        return False
    return named.get(new.removesuffix("_len")) == old.removesuffix("_len")
