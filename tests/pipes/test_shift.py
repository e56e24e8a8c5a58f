from __future__ import annotations

import pytest
import torch

from s3prl_stream.errors import SampleError
from s3prl_stream.pipes import AutoregressivePrediction
from s3prl_stream.pipes.run_stages import run_batch
from s3prl_stream.pipes.stage import stages_of


@pytest.mark.parametrize("n_future", [1, 5, 11])
def test_each_frame_is_paired_with_the_one_n_frames_later(n_future: int) -> None:
    feat_FD = torch.arange(12 * 4, dtype=torch.float32).view(12, 4)
    (sample,) = AutoregressivePrediction(n_future=n_future)([{"feat": feat_FD}])
    assert torch.equal(sample["feat"], feat_FD[: 12 - n_future])
    assert torch.equal(sample["target_feat"], feat_FD[n_future:])


def test_an_utterance_without_a_future_is_damage_of_that_utterance() -> None:
    chain = AutoregressivePrediction()([{"feat": torch.zeros(9, 4)}])
    samples = [{"key": str(frames), "feat": torch.zeros(frames, 4)} for frames in (0, 5, 6)]
    damaged: list[str] = []

    def on_damage(sample: dict[str, object], error: SampleError) -> None:
        damaged.append(error.reason)

    (left,) = run_batch(stages_of(chain), samples, on_damage)
    assert left["feat"].shape == left["target_feat"].shape == (1, 4)
    assert damaged == ["too_short", "too_short"]
