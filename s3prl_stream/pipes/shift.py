"""Predicting the future: the features now as input, those some frames later as target.

From S3PRL's APC and VQ-APC (Chung et al., "An Unsupervised Autoregressive Model for Speech Representation Learning",
Interspeech 2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from s3prl_stream.arguments import whole_number
from s3prl_stream.errors import SampleError
from s3prl_stream.padding import is_valid
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch
from s3prl_stream.pipes.s3prl_arguments import SHIFT_REFUSED
from s3prl_stream.sample import Batch, Sample


@chained("shift", key_names={"source_feat_name": "feat", "target_feat_name": "target_feat"}, refused=SHIFT_REFUSED)
class AutoregressivePrediction(OnBatch):
    """Pair each frame with the one that comes `n_future` frames later.

    In:     feat float32 [F, D].
    Out:    feat float32 [F - n_future, D], the input; target_feat of the same shape: target_feat[f] is what
            feat[f + n_future] was. 1 -> 1. Both are views of the feat that came in.
    Random: none.
    Raises: SampleError "too_short" (the sample is left out and listed) for F <= n_future.

    Args:
        n_future: frames between a frame and its target, 1 or more; APC has 5.
    """

    positional = "n_future"
    takes: Mapping[str, str] = {"feat": "float32 [F, D]"}
    provides: Mapping[str, str] = {"feat": "float32 [F, D]", "target_feat": "float32 [F, D]"}

    def __init__(self, source: Iterable[Sample] | None = None, *, n_future: int = 5) -> None:
        self.n_future = whole_number("shift", "n_future", n_future, least=1)
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterable[Sample]:
        feat_FD = sample["feat"]
        if len(feat_FD) <= self.n_future:
            raise SampleError(
                f"{sample['key']}: {len(feat_FD)} frames have none that comes {self.n_future} later", reason="too_short"
            )
        yield {**sample, "feat": feat_FD[: -self.n_future], "target_feat": feat_FD[self.n_future :]}

    def sketch(self, sample: Sample) -> Sample:
        (shifted,) = self.emit(sample)
        return shifted

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:  # noqa: ARG002
        feat_BFD, lengths_B = batch["feat"], batch["feat_len"] - self.n_future
        padding_BF1 = ~is_valid(lengths_B, feat_BFD.shape[1] - self.n_future)[:, :, None]
        now, later = feat_BFD[:, : -self.n_future], feat_BFD[:, self.n_future :]
        both = {"feat": now.masked_fill(padding_BF1, 0.0), "target_feat": later.masked_fill(padding_BF1, 0.0)}
        return {**batch, **both, "feat_len": lengths_B, "target_feat_len": lengths_B}
