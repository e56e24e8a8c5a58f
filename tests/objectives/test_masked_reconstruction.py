"""The loss counts masked elements only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.models.transformer import ReconstructionHead
from s3prl_stream.objectives.masked_reconstruction import MaskedReconstructionObjective, masked_l1
from s3prl_stream.recipes import build_objective
from s3prl_stream.sample import Batch


def objective() -> MaskedReconstructionObjective:
    torch.manual_seed(0)
    encoder = ss.build_encoder("tera", hidden_size=16, num_layers=1, num_heads=2, ffn_size=16, dropout=0.0)
    return MaskedReconstructionObjective(encoder, ReconstructionHead(16))


def batch(lengths: tuple[int, ...]) -> Batch:
    num_frames = max(lengths)
    feat_BFD = torch.zeros(len(lengths), num_frames, 80)
    selected_BFD = torch.zeros(len(lengths), num_frames, 80, dtype=torch.bool)
    for row, length in enumerate(lengths):
        feat_BFD[row, :length] = torch.randn(length, 80, generator=torch.Generator().manual_seed(length))
        selected_BFD[row, : length // 2] = True
    return {
        "key": [str(length) for length in lengths], "feat": feat_BFD, "feat_len": torch.tensor(lengths),
        "masked_feat": feat_BFD * ~selected_BFD, "loss_mask": selected_BFD,
    }  # fmt: skip


def test_mean_over_selected_elements() -> None:
    predicted_BFD, target_BFD = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    selected_BFD = torch.tensor([[[True, False], [True, True], [False, False]]])
    loss = masked_l1(predicted_BFD, target_BFD, selected_BFD)
    assert loss.mean.item() == pytest.approx((1 + 3 + 4) / 3)
    assert int(loss.num_elements) == 3


def test_other_features_come_out_whole_on_each_frame_with_a_mask() -> None:
    """The large Mockingjay: one masked bin of what went in makes all bins of what comes out count."""
    net, given = objective().eval(), batch((20, 12))
    given["loss_mask"] = torch.zeros_like(given["loss_mask"])
    given["loss_mask"][0, 3, 7] = given["loss_mask"][1, 5] = True
    given["target_feat"] = torch.randn(2, 20, 80, generator=torch.Generator().manual_seed(1))
    loss = net(given)
    predicted = net.head(net.encoder(given["masked_feat"], given["feat_len"])[-1])
    frames = [(predicted - given["target_feat"])[row, frame].abs().mean() for row, frame in ((0, 3), (1, 5))]
    torch.testing.assert_close(loss.mean, torch.stack(frames).mean())
    assert int(loss.num_elements) == 2 * 80


def test_no_selected_element_gives_zero() -> None:
    loss = masked_l1(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    assert (loss.mean.item(), int(loss.num_elements)) == (0.0, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda hidden: [hidden[:, ::2]], r"hidden state is \[2, 5, 4\], expected is \[2, 10, 4\]"),
        (lambda hidden: hidden[..., :3], r"is \[2, 10, 3\]"),
        (lambda hidden: [], "is list"),
        (lambda hidden: None, "is NoneType"),
        (lambda hidden: {"last": hidden}, "is dict"),
    ],
)
def test_what_an_encoder_of_ones_own_gives_is_looked_at(given: Any, said: str) -> None:
    class Own(nn.Module):
        hidden_size = 4

        def forward(self, feat: Tensor, feat_len: Tensor) -> Any:
            return given(torch.zeros(2, 10, 4))

    feat = torch.zeros(2, 10, 80)
    batch = {"key": ["a", "b"], "feat": feat, "masked_feat": feat, "target_feat": feat, "loss_mask": feat > 0}
    batch["feat_len"] = torch.tensor([10, 8])
    for recipe in ("tera", "apc"):
        with pytest.raises(UsageError, match=f"encoder Own: its last .*{said}"):
            build_objective(recipe, encoder=Own())(batch)
