"""Segments as labels of frames: who speaks, or what sounds, in each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.arguments import check_rate, one_of, rate_or_none, whole_number
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.categories import Categories
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.encode_category import learned
from s3prl_stream.pipes.s3prl_arguments import TAGS_REFUSED
from s3prl_stream.pipes.segments import Segments, as_segments, labels_of
from s3prl_stream.pipes.stage import Samples, Source, Stage, root_of
from s3prl_stream.sample import Sample

COLUMNS = ("recording", "all")
COLUMNS_OF_S3PRL = {"intra": "recording", "inter": "all"}


@chained(
    "tag_frames",
    aliases={"feat_frame_shift": "hop_samples", "intra_or_inter": ("columns", COLUMNS_OF_S3PRL)},
    key_names={
        **{f"{key}_name": key for key in ("wav", "segments", "start_sec", "end_sec")},
        "tag_name": "tags",
        "category_name": "tag_labels",
    },
    refused=TAGS_REFUSED,
)
class BuildMultiClassTagging(Stage):
    """Mark in which frames each label's segments lie; several may hold at once.

    In:     wav [T] of any type; sample_rate (Hz); segments, a list of {"start", "end", "label"} in seconds of the wav,
            or S3PRL's {label: [(start, end), ...]}.
    Out:    tags float32 [F, C], 1.0 from frame round(start * sample_rate / hop_samples) to before that of the end;
            tag_labels, the C labels in the order of the columns. In a batch tags [B, F, C] with tags_len. 1 -> 1.
    Random: none.

    For diarization: columns="recording" with num_labels=2 gives [F, 2], whatever the speakers of a recording are
    called; in one with a single speaker the second column is 0. Of a piece that was cut earlier in the chain, columns
    are those of the whole recording.

    Args:
        columns: "recording": the labels of the recording itself, sorted. "all": those of all recordings. (S3PRL:
            intra_or_inter)
        categories: the labels of columns="all"; None: those of all samples of the root, found once when bound.
        num_labels: number of columns of columns="recording", filled up with empty ones; None: as many as there are
            labels, which makes no batch where recordings differ.
        hop_samples: waveform samples from a frame to the next. (S3PRL: feat_frame_shift)
        like: the key of the features that are to be tagged: F is their number of frames. None: F = round(T / hop).
        sample_rate: the rate (Hz) that the audio must have; None: any.

    Raises:
        UsageError: at construction, for a value out of its range.
        SampleError: "segments" (they are none, or end before they begin), "unknown_label", or "too_many_labels".
    """

    provides: Mapping[str, str] = {"tags": "float32 [F, C]", "tag_labels": "any"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        columns: str = "recording",
        categories: Iterable[Any] | None = None,
        num_labels: int | None = None,
        hop_samples: int = 160,
        like: str | None = None,
        sample_rate: int | None = None,
    ) -> None:
        name = type(self).__name__
        if (categories is not None and columns != "all") or (num_labels is not None and columns != "recording"):
            raise UsageError(f'{name}: categories= belongs to columns="all", num_labels= to "recording".')
        self.columns = one_of(name, "columns", columns, COLUMNS)
        self.categories = None if categories is None else Categories(categories)
        self.num_labels = None if num_labels is None else whole_number(name, "num_labels", num_labels, least=1)
        self.hop_samples = whole_number(name, "hop_samples", hop_samples, least=1)
        self.like = like
        self.sample_rate = rate_or_none(name, sample_rate)
        self.takes = {
            "wav": "float32|int16 [T]",
            "sample_rate": "any",
            "segments": "nested",
            **({} if like is None else {like: "any"}),
        }
        super().__init__(source)

    def prepare(self, source: Source) -> None:
        """Find the labels of all recordings, if they are needed and were not given."""
        if self.columns == "all" and self.categories is None:
            name = self.names.get("segments", "segments")
            rows = (as_segments(row, "a sample of the root") for row in root_of(source).column(name))
            self.categories = learned(self, name, (segment["label"] for row in rows for segment in row))

    def emit(self, sample: Sample) -> Iterator[Sample]:
        key, rate = str(sample["key"]), int(sample["sample_rate"])
        check_rate("BuildMultiClassTagging", key, rate, self.sample_rate)
        if sample.get("segments") is None:
            raise SampleError(f"{key}: has no segments", reason="segments")
        segments = as_segments(sample["segments"], key)
        if not all(isinstance(segment["label"], str | int) for segment in segments):
            raise SampleError(f"{key}: the label of a segment is neither a text nor an integer", reason="segments")
        num_frames = round(len(sample["wav"]) / self.hop_samples) if self.like is None else len(sample[self.like])
        columns = self.categories if self.categories is not None else self._own_columns(sample, segments, key)
        width = max(len(columns), self.num_labels or 0)
        tags_FC = frame_tags(segments, columns, key, num_frames, width, rate / self.hop_samples)
        yield {**sample, "tags": torch.from_numpy(tags_FC), "tag_labels": list(columns)}

    def _own_columns(self, sample: Sample, segments: Segments, key: str) -> Categories | tuple[()]:
        labels = labels_of(sample, segments)
        if self.num_labels is not None and len(labels) > self.num_labels:
            raise SampleError(
                f"{key}: {len(labels)} labels ({', '.join(map(str, labels[:8]))}), expected at most {self.num_labels}",
                reason="too_many_labels",
            )
        return Categories(labels) if labels else ()


def frame_tags(
    segments: Segments, columns: Categories | tuple[()], key: str, num_frames: int, width: int, frames_per_second: float
) -> npt.NDArray[np.float32]:
    """[num_frames, width]: 1.0 where a segment of the column's label lies.

    A segment may begin before the first frame, end behind the last, or do both.
    """
    tags_FC = np.zeros((num_frames, width), dtype=np.float32)
    for segment in segments:
        assert columns
        first, stop = (round(min(max(segment[edge] * frames_per_second, 0), num_frames)) for edge in ("start", "end"))
        tags_FC[first:stop, columns.encode(segment["label"], key)] = 1.0
    return tags_FC
