"""Waveforms cut into chunks of fixed or random length, counted in seconds or in feature frames.

Stages for decoded audio, without effect on the plan: a sample becomes several, and its batch grows. To plan batches of
chunks and to decode only what each needs, use the stream's own `chunk_seconds`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from s3prl_stream.arguments import check_rate, one_number, one_of, rate_or_none, whole_number
from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.outline import Outline
from s3prl_stream.pipes.piece import identity_of_piece, piece_of
from s3prl_stream.pipes.stage import Samples, Source, Stage, stages_of
from s3prl_stream.sample import UNCUTTABLE_KEYS, Sample

TAILS = ("keep", "drop", "merge")
SHORTEST_TAIL_SECONDS = 0.05
"""Three frames of features. A chunk of fewer cannot be normalised, and would take its whole clip with it as damaged."""
TAIL_OF_S3PRL = {True: "keep", False: "drop"}

_log = logging.getLogger(__name__)


class Lengths(NamedTuple):
    """How long chunks may be, and how far their beginnings lie apart; all in units of `unit` waveform samples."""

    shortest: int
    longest: int
    step: int | None
    """None: each begins where the one before it ended."""
    unit: int = 1


class _Unfold(Stage):
    """What chunks in seconds and chunks in frames have in common."""

    takes: Mapping[str, str] = {"wav": "float32|int16 [T]", "sample_rate": "any"}
    provides: Mapping[str, str] = {"chunk_index": "int", "chunk_start_seconds": "float"}
    removes = UNCUTTABLE_KEYS
    keeps_count = False
    keeps_length = False
    splits = True
    tail: str
    tokens: str
    sample_rate: int | None

    def lengths_at(self, sample_rate: int) -> Lengths:
        """The lengths of chunks of audio at this rate (Hz)."""
        raise NotImplementedError

    def keep_settings(self, tail: str, tokens: str, sample_rate: int | None) -> None:
        """Those that both have; UsageError for a wrong one."""
        name = type(self).__name__
        self.tail = one_of(name, "tail", tail, TAILS)
        self.tokens = one_of(name, "tokens", tokens, ("refuse", "drop"))
        self.sample_rate = rate_or_none(name, sample_rate)

    def check_chain(self, source: Source) -> None:
        giver = next((stage for stage in stages_of(source) if "tokens" in stage.provides), None)
        if giver is None:
            return
        if self.tokens == "refuse":
            raise ChainError(
                f"{type(self).__name__} cuts utterances that {type(giver).__name__} has encoded whole: the tokens fit "
                f'no piece. Leave out one of them, or write tokens="drop" to keep tokens for whole utterances alone.'
            )
        _log.warning(
            "%s cuts utterances that %s has encoded whole: pieces lose their tokens, whole utterances keep them",
            type(self).__name__,
            type(giver).__name__,
        )

    def emit(self, sample: Sample) -> Iterator[Sample]:
        wav, sample_rate = sample["wav"], int(sample["sample_rate"])
        spans = self._spans(sample, len(wav), sample_rate)
        covered = max((stop for _, stop in spans), default=0)
        if covered < len(wav) or not spans:
            _log.info(
                "%s: the last %.2f of %.2f s are dropped, as tail='drop' says",
                sample["key"],
                (len(wav) - covered) / sample_rate,
                len(wav) / sample_rate,
            )
        for index, (start, stop) in enumerate(spans):
            piece = piece_of(sample, start, stop, self.stage_id)
            yield {**piece, "chunk_index": index, "chunk_start_seconds": start / sample_rate}

    def outline(self, before: Outline) -> list[Outline]:
        spans = self._spans(before.sample, before.num_frames, before.sample_rate)
        metadata = [{**before.sample, "identity": identity_of_piece(before.sample, a, self.stage_id)} for a, _ in spans]
        return [
            Outline(sample, stop - start, before.sample_rate)
            for sample, (start, stop) in zip(metadata, spans, strict=True)
        ]

    def _spans(self, sample: Sample, num_samples: int, sample_rate: int) -> list[tuple[int, int]]:
        check_rate(type(self).__name__, sample["key"], sample_rate, self.sample_rate)
        lengths, shortest_tail = self.lengths_at(sample_rate), round(SHORTEST_TAIL_SECONDS * sample_rate)
        return chunk_spans(num_samples, lengths, self.tail, self.rng(sample), shortest_tail)


@chained(
    "chunk",
    aliases={
        "min_chunk_secs": "min_seconds",
        "max_chunk_secs": "max_seconds",
        "step_secs": "step_seconds",
        "use_last_samples": ("tail", TAIL_OF_S3PRL),
    },
    key_names={f"{key}_name": key for key in ("wav", "segments", "start_sec", "end_sec")},
)
class UnfoldChunkBySec(_Unfold):
    """Cut each waveform into chunks that cover it from its beginning to its end.

    In:     wav [T] of any type; sample_rate (Hz).
    Out:    wav [chunk]; chunk_index (0, 1, ...); chunk_start_seconds (from the beginning of the wav that came in).
            1 -> N (tail="drop": 1 -> 0 is possible).
    Random: by identity: the length of each chunk in turn, if max_seconds is given.

    A piece of an utterance has no known text: pieces lose `text`, `transcription` and `tokens`, and an utterance which
    stays whole keeps them. `segments` are cut to the piece, and start_sec and end_sec, where there are, follow it. Each
    chunk has an identity of its own, so later stages draw anew for each.

    Args:
        min_seconds: the least length of a chunk; all are this long when max_seconds is None. (S3PRL: min_chunk_secs)
        max_seconds: the greatest; lengths are drawn uniformly between both. (S3PRL: max_chunk_secs)
        step_seconds: from the beginning of a chunk to that of the next, at most min_seconds; None: from its end, so
            that chunks do not overlap. (S3PRL: step_secs)
        tail: what becomes of a rest that is too short for another chunk. "keep": it is a chunk of its own from 50 ms on
            (three frames of features), and shorter it is joined to the chunk before it. "merge": it is joined to the
            chunk before it. Where there is none before it, it is a chunk of its own. "drop": it is left out, so
            no chunk is shorter than min_seconds and an utterance shorter than that vanishes (logged at level INFO).
            (S3PRL: use_last_samples)
        tokens: if the text was encoded earlier in the chain. "drop": pieces lose the tokens, which is logged once.
            "refuse": such a chain is refused, as these tokens fit no piece.
        sample_rate: the rate (Hz) that the audio must have; None: any.

    Raises:
        UsageError: at construction, for a value out of its range.
        ChainError: when bound after a stage that provides tokens, with tokens="refuse".
    """

    def __init__(
        self,
        source: Samples | None = None,
        *,
        min_seconds: float = 2.5,
        max_seconds: float | None = None,
        step_seconds: float | None = None,
        tail: str = "keep",
        tokens: str = "drop",
        sample_rate: int | None = None,
    ) -> None:
        name = "UnfoldChunkBySec"
        self.min_seconds = one_number(name, "min_seconds", min_seconds, above=0)
        self.max_seconds = self.step_seconds = None
        if max_seconds is not None:
            self.max_seconds = one_number(name, "max_seconds", max_seconds, least=self.min_seconds)
        if step_seconds is not None:
            self.step_seconds = one_number(name, "step_seconds", step_seconds, above=0)
            _refuse_gaps(name, "seconds", self.step_seconds, self.min_seconds)
        self.keep_settings(tail, tokens, sample_rate)
        super().__init__(source)

    def lengths_at(self, sample_rate: int) -> Lengths:
        """In samples, rounded to the nearest."""
        shortest = max(1, round(self.min_seconds * sample_rate))
        longest = shortest if self.max_seconds is None else max(shortest, round(self.max_seconds * sample_rate))
        step = None if self.step_seconds is None else max(1, round(self.step_seconds * sample_rate))
        return Lengths(shortest, longest, step)


@chained(
    "chunk_frames",
    aliases={
        "min_chunk_frames": "min_frames",
        "max_chunk_frames": "max_frames",
        "feat_frame_shift": "hop_samples",
        "use_last_samples": ("tail", TAIL_OF_S3PRL),
    },
    key_names={f"{key}_name": key for key in ("wav", "segments", "start_sec", "end_sec")},
)
class UnfoldChunkByFrame(_Unfold):
    """Cut each waveform into chunks of whole feature frames; the last one takes what is left of the waveform.

    In, Out, Random, and what becomes of text and segments: as of `UnfoldChunkBySec`.

    Args:
        min_frames, max_frames, step_frames: as the seconds of `UnfoldChunkBySec`, in frames. (S3PRL: min_chunk_frames,
            max_chunk_frames)
        hop_samples: waveform samples from a frame to the next. (S3PRL: feat_frame_shift)
        tail, tokens, sample_rate: as of `UnfoldChunkBySec`.

    Raises:
        UsageError, ChainError: as of `UnfoldChunkBySec`.
    """

    def __init__(
        self,
        source: Samples | None = None,
        *,
        min_frames: int = 2000,
        max_frames: int | None = None,
        step_frames: int | None = None,
        hop_samples: int = 160,
        tail: str = "keep",
        tokens: str = "drop",
        sample_rate: int | None = None,
    ) -> None:
        name = "UnfoldChunkByFrame"
        self.min_frames = whole_number(name, "min_frames", min_frames, least=1)
        self.max_frames = self.step_frames = None
        if max_frames is not None:
            self.max_frames = whole_number(name, "max_frames", max_frames, least=self.min_frames)
        if step_frames is not None:
            self.step_frames = whole_number(name, "step_frames", step_frames, least=1)
            _refuse_gaps(name, "frames", self.step_frames, self.min_frames)
        self.hop_samples = whole_number(name, "hop_samples", hop_samples, least=1)
        self.keep_settings(tail, tokens, sample_rate)
        super().__init__(source)

    def lengths_at(self, sample_rate: int) -> Lengths:  # noqa: ARG002
        """In frames, whatever the rate."""
        longest = self.min_frames if self.max_frames is None else self.max_frames
        return Lengths(self.min_frames, longest, self.step_frames, self.hop_samples)


def _refuse_gaps(stage: str, unit: str, step: float, shortest: float) -> None:
    if step > shortest:
        raise UsageError(
            f"{stage}: step_{unit}={step:g} is more than min_{unit}={shortest:g}, which would leave gaps between chunks"
        )


def chunk_spans(
    num_samples: int, lengths: Lengths, tail: str, rng: np.random.Generator, shortest_tail: int = 1
) -> list[tuple[int, int]]:
    """(first, behind the last) of the chunks of a waveform, in waveform samples, in turn.

    Each length is drawn uniformly from shortest to longest, and is cut where the waveform ends. Together they cover the
    waveform, but for a rest shorter than the shortest with tail="drop". With "keep" a rest that would be shorter than
    `shortest_tail`, or than any chunk that was asked for, is joined to the chunk before it.
    """
    shortest = lengths.shortest * lengths.unit
    spans: list[tuple[int, int]] = []
    start = covered = 0
    while start + shortest <= num_samples:
        drawn = lengths.shortest
        if lengths.longest > lengths.shortest:
            drawn = int(rng.integers(lengths.shortest, lengths.longest + 1))
        covered = min(start + drawn * lengths.unit, num_samples)
        spans.append((start, covered))
        start = covered if lengths.step is None else start + lengths.step * lengths.unit
    is_too_short = num_samples - start < min(shortest_tail, shortest)
    if covered < num_samples and spans and (tail == "merge" or (tail == "keep" and is_too_short)):
        spans[-1] = (spans[-1][0], num_samples)
    elif tail != "drop" and (covered < num_samples or not spans):
        spans.append((start, num_samples))
    return spans
