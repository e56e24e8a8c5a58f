"""Reading features that were extracted before: the root's bytes become `feat`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from s3prl_stream.arguments import one_of, whole_number
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.stage import Samples, Stage
from s3prl_stream.sample import Sample
from s3prl_stream.shards.layout import FEATURES
from s3prl_stream.shards.npy import decode_features


@chained("load_feat")
class LoadFeat(Stage):
    """Decode the features of each clip of a set that `extract` wrote, only the frames that the plan asks for.

    In:     audio (bytes of a .npy) with codec "npy", first_frame, num_frames, clip_frames.
    Out:    feat float32 or float16 [F, D], or [F, L, D] where several layers were extracted and none is chosen. 1 -> 1.
    Random: none.
    Raises: SampleError (the sample is left out and listed) if the bytes are damaged; UsageError if it is audio.

    Args:
        layer: which of the L stored layers, from 0; None: all.
        dtype: "float32", or "float16" as stored.
    """

    takes: Mapping[str, str] = {"audio": "any", "codec": "any"}
    provides: Mapping[str, str] = {"feat": "float32 [F, D]"}
    removes = frozenset({"audio", "codec", "num_frames", "clip_frames", "decode_into"})

    def __init__(self, source: Samples | None = None, *, layer: int | None = None, dtype: str = "float32") -> None:
        self.layer = None if layer is None else whole_number("load_feat", "layer", layer, least=0)
        self.dtype = one_of("load_feat", "dtype", dtype, ("float32", "float16"))
        self.provides = {"feat": "any" if layer is None else f"{dtype} [F, D]"}  # the set says how many layers
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        if sample["codec"] != FEATURES:
            raise UsageError(
                f".load_feat(): {sample['key']} is {sample['codec']}, not features; load_audio reads that, and "
                "`s3prl-stream extract` makes features of it"
            )
        features = decode_features(
            sample["audio"],
            first_frame=sample.get("first_frame", 0),
            num_frames=sample.get("num_frames"),
            clip_frames=sample.get("clip_frames"),
        )
        if self.layer is not None:
            if features.ndim == 3 and not 0 <= self.layer < features.shape[1]:
                raise UsageError(f".load_feat(layer={self.layer}): {features.shape[1]} layers are stored")
            if features.ndim == 2 and self.layer:
                raise UsageError(f".load_feat(layer={self.layer}): one layer is stored")
            features = features[:, self.layer] if features.ndim == 3 else features
        if not len(features):
            raise SampleError(f"{sample['key']}: has no frames", reason="empty")
        loaded = {name: value for name, value in sample.items() if name not in self.removes}
        yield {**loaded, "feat": torch.from_numpy(np.array(features, dtype=self.dtype))}
