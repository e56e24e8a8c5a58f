"""What a caller may choose when packing, checked once, and written into the manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from s3prl_stream.audio.encode import check_codec
from s3prl_stream.audio.source import Channel
from s3prl_stream.errors import UsageError
from s3prl_stream.shards.listing import Lengths


@dataclass(frozen=True)
class PackSettings:
    """Everything that decides about the bytes of a set, apart from the corpus.

    Raises:
        UsageError: a value out of its range.
    """

    codec: str = "flac"
    """"flac" or "wav"."""
    sample_rate: int = 16_000
    """Of the packed audio (Hz)."""
    channel: Channel = "first"
    """"first", "mean", or the number of a channel from 0."""
    shard_mb: float = 512
    """Wanted size of a shard (10**6 bytes)."""
    seed: int = 0
    """Of the order."""
    min_seconds: float | None = None
    """Shorter utterances are skipped."""
    max_seconds: float | None = None
    """Longer utterances are skipped."""
    split_seconds: float | None = None
    """Longer utterances are cut into equal pieces no longer than this."""

    def __post_init__(self) -> None:
        check_codec(self.codec)
        if isinstance(self.sample_rate, bool) or not isinstance(self.sample_rate, int):
            raise UsageError(f"sample_rate is {self.sample_rate!r}, expected a whole number of Hz.")
        if not 100 <= self.sample_rate <= 655_350:
            raise UsageError(f"sample_rate is {self.sample_rate} Hz, expected 100 to 655350.")
        is_number = isinstance(self.channel, int) and not isinstance(self.channel, bool) and self.channel >= 0
        if self.channel not in ("first", "mean") and not is_number:
            raise UsageError(f"channel is {self.channel!r}, expected 'first', 'mean' or a number from 0.")
        for name in ("shard_mb", "min_seconds", "max_seconds", "split_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} is {value}, expected more than 0.")
        if self.min_seconds is not None and self.max_seconds is not None and self.min_seconds > self.max_seconds:
            raise UsageError(f"min_seconds is {self.min_seconds}, more than max_seconds, which is {self.max_seconds}.")

    @property
    def lengths(self) -> Lengths:
        """The limits on length."""
        return Lengths(self.min_seconds, self.max_seconds, self.split_seconds)

    def as_json(self) -> dict[str, Any]:
        """Name -> value."""
        return asdict(self)
