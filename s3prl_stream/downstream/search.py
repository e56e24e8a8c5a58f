"""Query by example: spoken queries looked for in spoken documents, with frozen features. SUPERB's QbE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.downstream.columns import need_columns
from s3prl_stream.downstream.streams import Noise, judged_stream
from s3prl_stream.errors import UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.metrics import max_twv
from s3prl_stream.recipes.run_folder import pick_device
from s3prl_stream.shards.shardset import as_shard_set
from s3prl_stream.tasks.query_by_example import costs_in, scores_of
from s3prl_stream.tasks.task import column
from s3prl_stream.upstreams import Upstream
from s3prl_stream.upstreams import upstream as find_upstream
from s3prl_stream.upstreams.upstream import alone

_LEAST_DEVIATION = 1e-9


@dataclass(frozen=True)
class SearchResult:
    """How well queries are found."""

    layer: int
    """The one asked for, or the best."""
    max_twv: float
    threshold: float | None
    """Of the scores, from which on a query counts as found; None: it is best to find nothing."""
    max_twv_of_layers: dict[int, float]
    queries: int
    documents: int
    damaged: int
    """Clips that could not be read."""


class _Clip(NamedTuple):
    words: str
    states: npt.NDArray[np.float32]
    """[layers, F, H]."""


def search_queries(
    queries: Any,
    documents: Any,
    *,
    upstream: str | Path | Upstream,
    label: str = "text",
    document_label: str | None = None,
    where: Any = None,
    document_where: Any = None,
    layer: int | None = None,
    noise: Any = None,
    snr: tuple[float, float] | float = (3.0, 20.0),
    device: str | None = None,
) -> SearchResult:
    """Look for each query in each document and measure it by the maximum term-weighted value.

    Hidden states are compared at mean 0 and deviation 1 in each dimension, over all frames of queries and documents.
    Those of all queries are held, and those of one document after the other, which are computed twice: for this scale
    first.

    Args:
        queries, documents: `open_shards(...)`, or what a `ShardStream` accepts.
        upstream: what `ss.upstream` takes, or an `Upstream`.
        label: the column of the queries that says what is asked for.
        document_label: the column of the documents with the words in it, separated by spaces; None: `label`. A query is
            in a document if its words stand there next to each other.
        where, document_where: which part of the sets.
        layer: hidden state to compare, from 0; None: each, and the best is reported (choose it on another part).
        noise, snr: added to each query and to each document, as in `train`.
        device: where the upstream computes; None: the GPU if there is one.

    Raises:
        UsageError: a column or layer that is not there, or nothing to detect.
    """
    used_device = pick_device(device)
    up = (upstream if isinstance(upstream, Upstream) else find_upstream(upstream)).to(used_device).eval()
    layers = range(up.num_layers + 1) if layer is None else (layer,)
    if layer is not None and not 0 <= layer <= up.num_layers:
        raise UsageError(f"search: layer {layer}: this upstream has hidden states 0 to {up.num_layers}")
    added = Noise.of(noise, snr)
    spoken = _loader(queries, where, added, label)
    asked = list(_clips(spoken, up, label, layers))
    said = document_label or label
    first_time = _clips(_loader(documents, document_where, added, said), up, said, layers)
    mean, deviation = _scale_of(itertools.chain(asked, first_time))

    def scaled(clip: _Clip) -> _Clip:
        return clip._replace(states=((clip.states - mean) / deviation).astype(np.float32))

    asked = [scaled(clip) for clip in asked]
    heard = _loader(documents, document_where, added, said)
    texts: list[str] = []
    costs: list[list[npt.NDArray[np.float64]]] = []
    for document in map(scaled, _clips(heard, up, said, layers)):
        texts.append(document.words)
        of_layers = enumerate(document.states)
        costs.append([costs_in(states, [query.states[place] for query in asked]) for place, states in of_layers])
    is_in = np.array([[f" {query.words} " in f" {text} " for text in texts] for query in asked])
    costs_DLQ = np.array(costs).reshape(len(texts), len(layers), len(asked))
    found = {number: max_twv(scores_of(costs_DLQ[:, place].T), is_in) for place, number in enumerate(layers)}
    best = max(found, key=lambda number: found[number].value)
    return SearchResult(
        layer=best,
        max_twv=found[best].value,
        threshold=found[best].threshold if math.isfinite(found[best].threshold) else None,
        max_twv_of_layers={number: value.value for number, value in found.items()},
        queries=len(asked),
        documents=len(texts),
        damaged=len(spoken.damaged) + len(heard.damaged),
    )


def _loader(shards: Any, where: Any, noise: Noise | None, label: str) -> Loader:
    shard_set = as_shard_set(shards)
    need_columns(shard_set, [label], "search")
    return Loader(judged_stream(shard_set, where=where, columns=[label], noise=noise), rank=0, world_size=1)


def _clips(loader: Loader, upstream: Upstream, label: str, layers: Sequence[int]) -> Iterator[_Clip]:
    """One after the other, in the order of the stream."""
    for batch in loader:
        words = column(batch, label) if batch["key"] else []
        for row in range(len(batch["key"])):
            length = int(batch["wav_len"][row])
            with torch.no_grad():
                states = alone(upstream, batch["wav"][row, :length])[list(layers)].numpy()
            yield _Clip(" ".join(str(words[row]).split()), states)


def _scale_of(clips: Iterable[_Clip]) -> tuple[Any, Any]:
    """Mean and deviation of each dimension of each layer, float64 [layers, 1, H] over all frames.

    Of a dimension that is constant the deviation is just above 0.
    """
    frames, total, squares = 0, np.float64(0), np.float64(0)
    for clip in clips:
        states = clip.states.astype(np.float64)
        frames += states.shape[1]
        total = total + states.sum(axis=1, keepdims=True)
        squares = squares + np.square(states).sum(axis=1, keepdims=True)
    mean = total / max(frames, 1)
    variance = (squares - frames * np.square(mean)) / max(frames - 1, 1)
    return mean, np.maximum(np.sqrt(np.maximum(variance, 0.0)), _LEAST_DEVIATION)
