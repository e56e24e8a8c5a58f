"""One random stretch of each waveform that is too long.

A stage for decoded audio: to plan by the length of crops and to decode only what is needed, use the stream's own
`crop_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from s3prl_stream.arguments import check_rate, one_number, rate_or_none
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.outline import Outline
from s3prl_stream.pipes.piece import identity_of_piece, piece_of
from s3prl_stream.pipes.s3prl_arguments import CROP_REFUSED
from s3prl_stream.pipes.stage import Samples, Stage
from s3prl_stream.sample import UNCUTTABLE_KEYS, Sample


@chained(
    "crop",
    aliases={"max_secs": "max_seconds"},
    key_names={"wav_name": "wav", "segments_name": "segments"},
    refused=CROP_REFUSED,
)
class RandomCrop(Stage):
    """Keep a random stretch of each waveform that is longer than `max_seconds`; shorter ones stay whole.

    In:     wav [T] of any type; sample_rate (Hz).
    Out:    wav [min(T, max_seconds * sample_rate)]; crop_start_seconds (from the beginning of the wav). 1 -> 1.
    Random: where it begins, uniformly, by identity: another place in each epoch.

    What is cut loses `text`, `transcription` and `tokens`; `segments` are cut with it.

    Args:
        max_seconds: the greatest length; None: nothing is cut. (S3PRL: max_secs)
        sample_rate: the rate (Hz) that the audio must have; None: any.

    Raises:
        UsageError: at construction, for a value out of its range.
    """

    positional = "max_seconds"
    takes: Mapping[str, str] = {"wav": "float32|int16 [T]", "sample_rate": "any"}
    provides: Mapping[str, str] = {"crop_start_seconds": "float"}
    removes = UNCUTTABLE_KEYS
    keeps_length = False
    splits = True

    def __init__(
        self, source: Samples | None = None, *, max_seconds: float | None = None, sample_rate: int | None = None
    ) -> None:
        self.max_seconds = None
        if max_seconds is not None:
            self.max_seconds = one_number("RandomCrop", "max_seconds", max_seconds, above=0)
        self.sample_rate = rate_or_none("RandomCrop", sample_rate)
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        rate, num_samples = int(sample["sample_rate"]), len(sample["wav"])
        check_rate("RandomCrop", sample["key"], rate, self.sample_rate)
        start, length = self._stretch(sample, num_samples, rate)
        yield {**piece_of(sample, start, start + length, self.stage_id), "crop_start_seconds": start / rate}

    def outline(self, before: Outline) -> list[Outline]:
        """The stretch; what later stages draw follows from where it begins."""
        start, length = self._stretch(before.sample, before.num_frames, before.sample_rate)
        sample = {**before.sample, "identity": identity_of_piece(before.sample, start, self.stage_id)}
        return [Outline(sample, length, before.sample_rate)]

    def _stretch(self, sample: Sample, num_samples: int, rate: int) -> tuple[int, int]:
        """(first, number) of the samples that are kept."""
        length = num_samples
        if self.max_seconds is not None:
            length = min(num_samples, max(1, round(self.max_seconds * rate)))
        start = int(self.rng(sample).integers(0, num_samples - length + 1)) if length < num_samples else 0
        return start, length
