"""Waveforms cut into chunks of fixed or random length.

A stage for decoded audio, without effect on the plan: a sample becomes several, and its batch grows. To plan batches of
chunks and to decode only what each needs, use the stream's own `chunk_seconds`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.stage import Samples, Source, Stage, chained, stages_of
from s3prl_stream.sample import WHOLE_UTTERANCE_KEYS, Sample

TAILS = ("keep", "drop", "merge")

_log = logging.getLogger(__name__)


@chained("chunk", aliases={"min_chunk_secs": "min_seconds", "max_chunk_secs": "max_seconds"})
class UnfoldChunkBySec(Stage):
    """Cut each waveform into chunks from its beginning to its end, without gap or overlap.

    In:     wav [T] of any type; sample_rate (Hz).
    Out:    wav [chunk]; chunk_index (0, 1, ...); chunk_start_seconds (from the beginning of the wav that came in).
            1 -> N (tail="drop": 1 -> 0 is possible).
    Random: by identity: the length of each chunk in turn, if max_seconds is given.

    A piece of an utterance has no known text: pieces lose `text`, `transcription`, `segments` and `tokens`, and an
    utterance which stays whole keeps them. Each chunk has an identity of its own, so later stages draw anew for each.

    Args:
        source: what to read from; None to bind later.
        min_seconds: the least length of a chunk; all are this long when max_seconds is None. (S3PRL: min_chunk_secs)
        max_seconds: the greatest; lengths are drawn uniformly between both. (S3PRL: max_chunk_secs)
        tail: what becomes of a rest shorter than min_seconds. "keep": it is a chunk of its own. "merge": it is joined
            to the chunk before it, and is a chunk of its own where there is none. "drop": it is left out, so no chunk
            is shorter than min_seconds and an utterance shorter than that vanishes (logged at level INFO).
        tokens: if the text was encoded earlier in the chain. "refuse": the chain is refused, as these tokens fit no
            piece. "drop": pieces lose them.

    Raises:
        UsageError: at construction, for a value out of its range.
        ChainError: when bound after a stage that provides tokens, with tokens="refuse".
    """

    takes: Mapping[str, str] = {"wav": "float32|int16 [T]", "sample_rate": "any"}
    provides: Mapping[str, str] = {"chunk_index": "int", "chunk_start_seconds": "float"}
    removes = WHOLE_UTTERANCE_KEYS
    keeps_count = False
    splits = True

    def __init__(
        self,
        source: Samples | None = None,
        *,
        min_seconds: float = 2.5,
        max_seconds: float | None = None,
        tail: str = "keep",
        tokens: str = "refuse",
    ) -> None:
        if not min_seconds > 0.0:
            raise UsageError(f"UnfoldChunkBySec: min_seconds={min_seconds!r} is not greater than 0.")
        if max_seconds is not None and not max_seconds >= min_seconds:
            raise UsageError(f"UnfoldChunkBySec: max_seconds={max_seconds!r} is less than min_seconds={min_seconds!r}.")
        if tail not in TAILS:
            raise UsageError(f"UnfoldChunkBySec: tail={tail!r} does not exist; there are {', '.join(TAILS)}.")
        if tokens not in ("refuse", "drop"):
            raise UsageError(f"UnfoldChunkBySec: tokens={tokens!r} does not exist; there are refuse, drop.")
        self.min_seconds = float(min_seconds)
        self.max_seconds = None if max_seconds is None else float(max_seconds)
        self.tail = tail
        self.tokens = tokens
        super().__init__(source)

    def check_chain(self, source: Source) -> None:
        giver = next((stage for stage in stages_of(source) if "tokens" in stage.provides), None)
        if giver is not None and self.tokens == "refuse":
            raise ChainError(
                f"{type(self).__name__} cuts utterances that {type(giver).__name__} has encoded whole: the tokens fit "
                f'no piece. Leave out one of them, or write tokens="drop" to keep tokens for whole utterances alone.'
            )

    def emit(self, sample: Sample) -> Iterator[Sample]:
        wav, sample_rate = sample["wav"], int(sample["sample_rate"])
        shortest = max(1, round(self.min_seconds * sample_rate))
        longest = shortest if self.max_seconds is None else max(shortest, round(self.max_seconds * sample_rate))
        lengths = chunk_lengths(len(wav), shortest, longest, self.tail, self.rng(sample))
        if sum(lengths) < len(wav) or not lengths:
            _log.info(
                "%s: the last %.2f of %.2f s are dropped, as tail='drop' says",
                sample["key"],
                (len(wav) - sum(lengths)) / sample_rate,
                len(wav) / sample_rate,
            )
        start = 0
        for index, length in enumerate(lengths):
            whole = length == len(wav)
            kept = sample if whole else {key: sample[key] for key in sample if key not in WHOLE_UTTERANCE_KEYS}
            yield {
                **kept,
                "wav": wav[start : start + length],
                "chunk_index": index,
                "chunk_start_seconds": start / sample_rate,
                "identity": f"{sample['identity']}/{self.stage_id}:{start}",
            }
            start += length


def chunk_lengths(num_frames: int, shortest: int, longest: int, tail: str, rng: np.random.Generator) -> list[int]:
    """Lengths of the chunks in turn, in waveform frames, each drawn uniformly from shortest to longest.

    They add up to num_frames, or to less than `shortest` below it with tail="drop". The last one may come out shorter
    than it was drawn, since the waveform ends there, and is then judged by `tail` if it is shorter than `shortest`.
    """
    lengths: list[int] = []
    rest = num_frames
    while rest >= shortest:
        drawn = shortest if shortest == longest else int(rng.integers(shortest, longest + 1))
        lengths.append(min(drawn, rest))
        rest -= lengths[-1]
    if rest and tail == "merge" and lengths:
        lengths[-1] += rest
    elif tail != "drop" and (rest or not lengths):
        lengths.append(rest)
    return lengths
