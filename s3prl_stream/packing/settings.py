"""What a caller may choose when packing, checked once, and written into the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from s3prl_stream.audio.encode import ENCODERS, check_codec
from s3prl_stream.audio.source import Channel
from s3prl_stream.errors import UsageError
from s3prl_stream.packing.quality import checked_refusals, checked_thresholds
from s3prl_stream.settings import fit_fields

ORIGINAL = "original"
"""The codec that leaves the bytes of a file alone where they fit."""


@dataclass(frozen=True)
class PackSettings:
    """Everything that decides about the bytes of a set, apart from the corpus.

    Raises:
        UsageError: a value out of its range.
    """

    codec: str = "flac"
    """"flac", "wav", "opus" or "original"."""
    sample_rate: int = 16_000
    """Of the packed audio (Hz)."""
    channel: Channel = "first"
    """"first", "mean", or the number of a channel from 0."""
    shard_mb: float = 512
    """Wanted size of a shard (10**6 bytes)."""
    seed: int = 0
    """Of the order."""
    min_seconds: float | None = None
    """Shorter utterances are skipped, before any splitting."""
    max_seconds: float | None = None
    """Longer utterances are skipped."""
    split_seconds: float | None = None
    """Longer utterances are cut into pieces no longer than this."""
    split: str = "length"
    """Into equal pieces ("length"), or in the middle of the longest silences ("silence")."""
    decode: bool = True
    """False, with codec="original": what fits is taken on the word of its header."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Of findings; see `quality.THRESHOLDS`."""
    refuse: tuple[str, ...] = ()
    """Findings for which a clip is left out."""

    def __post_init__(self) -> None:
        fit_fields("pack", self)
        if not 100 <= self.sample_rate <= 655_350:
            raise UsageError(f"sample_rate is {self.sample_rate} Hz, expected 100 to 655350.")
        if self.codec not in (*ENCODERS, ORIGINAL):
            raise UsageError(f"codec {self.codec!r} cannot be written: choose one of {', '.join(ENCODERS)}, {ORIGINAL}")
        check_codec(self.encoder, self.sample_rate)
        if not self.decode and self.codec != ORIGINAL:
            raise UsageError(f"decode=False is for codec={ORIGINAL!r}, which leaves bytes as they are.")
        is_number = isinstance(self.channel, int) and not isinstance(self.channel, bool) and self.channel >= 0
        if self.channel not in ("first", "mean") and not is_number:
            raise UsageError(f"channel is {self.channel!r}, expected 'first', 'mean' or a number from 0.")
        for name in ("shard_mb", "min_seconds", "max_seconds", "split_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} is {value}, expected more than 0.")
        if self.min_seconds is not None and self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise UsageError(f"min_seconds is {self.min_seconds}, more than max_seconds, which is {self.max_seconds}.")
        if self.split not in ("length", "silence"):
            raise UsageError(f"split is {self.split!r}, expected 'length' or 'silence'.")
        if self.split == "silence" and self.split_seconds is None:
            raise UsageError("split='silence' needs split_seconds, the longest piece.")
        object.__setattr__(self, "thresholds", checked_thresholds(self.thresholds))
        object.__setattr__(self, "refuse", checked_refusals(self.refuse))

    @property
    def takes_mono(self) -> bool:
        """The only channel of a file is the one that is asked for."""
        return self.channel in ("first", "mean", 0)

    @property
    def encoder(self) -> str:
        """The codec of what is encoded; under codec="original", of what does not fit."""
        return "flac" if self.codec == ORIGINAL else self.codec

    def as_json(self) -> dict[str, Any]:
        """Name -> value, as JSON gives it back."""
        return {**asdict(self), "refuse": list(self.refuse)}


def default_of(setting: str) -> Any:
    """What a set was packed with whose manifest is older than the setting."""
    return PackSettings().as_json().get(setting)
