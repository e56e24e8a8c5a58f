"""The vocabulary: an utterance of a corpus, an item of the plan, and the keys of samples and batches.

Shapes: B batch, T waveform samples, F feature frames, D feature bins, L tokens. A "frame" in the index and the
plan is one waveform sample per channel (as in soundfile), never a feature frame.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from s3prl_stream.errors import UsageError

Sample: TypeAlias = dict[str, Any]
"""One utterance, or a piece of one, on its way through the stages: a flat dict that no stage mutates."""

Batch: TypeAlias = dict[str, Any]

RESERVED_KEYS = frozenset({
    "audio", "batch_index", "clip_frames", "codec", "crc32c", "decode_into", "draw", "draws", "epoch", "feat",
    "first_frame", "frames", "identity", "item", "key", "key_hash", "loss_mask", "masked_feat", "num_frames", "offset",
    "sample_rate", "seconds", "set", "shard", "size", "slot", "target_feat", "tokens", "wav", "weight",
})  # fmt: skip
"""Names the stream gives to its own values; an utterance's metadata must not use them."""

TEXT_KEYS = ("text", "transcription")
"""Where the text of an utterance is looked for."""

UNCUTTABLE_KEYS = frozenset({*TEXT_KEYS, "tokens"})
"""What is true of a whole utterance only, so that no piece of one may keep it. Segments are cut with it."""


def with_free_names(values: Mapping[str, Any], taken: Collection[str] = RESERVED_KEYS) -> dict[str, Any]:
    """The same values, those of names that are taken under names with underscores behind them."""
    free: dict[str, Any] = {name: value for name, value in values.items() if name not in taken}
    for name, value in values.items():
        if name in taken:
            while name in taken or name in free:
                name += "_"
            free[name] = value
    return free


class Utterance:
    """What a corpus parser yields: one stretch of audio with its key and flat metadata.

    Args:
        key: unique in the corpus. Dots and slashes are escaped when it is packed.
        audio: path of the audio file.
        start_seconds, end_seconds: the stretch of the file; None for its beginning or end.
        **metadata: flat values that JSON can hold (text, speaker, language, label, split ...), and
            `segments`, a list of {"start", "end", "label"} in seconds.

    Attributes:
        where: file and line that list it, for messages; a corpus sets it where it reads a table.

    Raises:
        UsageError: `audio` is no path.
    """

    __slots__ = ("audio", "end_seconds", "key", "metadata", "start_seconds", "where")

    def __init__(
        self,
        /,  # so that metadata may be called "self"
        key: str,
        audio: str | Path,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        **metadata: Any,
    ) -> None:
        self.key = key
        if not isinstance(audio, str | os.PathLike):
            raise UsageError(
                f"Utterance {key!r}: audio is of type {type(audio).__name__}, expected the path of a file. "
                "Waveforms in memory are streamed as they are: ShardStream([{'key': ..., 'wav': ...}, ...])."
            )
        self.audio = str(audio)
        self.start_seconds = start_seconds
        self.end_seconds = end_seconds
        self.metadata: Mapping[str, Any] = metadata
        self.where = ""

    def __repr__(self) -> str:
        stretch = ""
        if (self.start_seconds, self.end_seconds) != (None, None):
            stretch = f", start_seconds={self.start_seconds}, end_seconds={self.end_seconds}"
        rest = "".join(f", {name}={value!r}" for name, value in self.metadata.items())
        return f"Utterance(key={self.key!r}, audio={self.audio!r}{stretch}{rest})"


class Item(NamedTuple):
    """One stretch of one clip in a planned batch: all that a worker needs to read and decode it."""

    set_index: int  # which of the stream's sets
    shard: int  # which shard of that set
    offset: int  # first byte of the sample in the shard
    size: int  # bytes of the sample, tar headers and padding included
    crc32c: int  # of those bytes; -1 if the index has none
    key: str
    first_frame: int  # of the stretch, at the clip's own sample rate
    num_frames: int
    clip_frames: int  # of the whole clip
    epoch: int
    draw: int  # 0, or which of several draws of the same stretch (crops, balance)


class PlannedBatch(NamedTuple):
    """Global batch `number` of the plan."""

    number: int
    items: list[Item]
