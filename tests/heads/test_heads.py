"""Heads: padding changes nothing, one frame is enough, and numbers are those of S3PRL where S3PRL is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s3prl_stream.errors import UsageError
from s3prl_stream.heads import POOLINGS, WeightedSum, build_head, build_pooling
from s3prl_stream.heads.build import KINDS, settings_of_head
from s3prl_stream.heads.ecapa import EcapaTdnn
from s3prl_stream.heads.linear import LinearWithHiddens
from s3prl_stream.heads.pooling import AttentiveStatisticsPooling, MeanPooling, StatisticsPooling
from s3prl_stream.heads.rnn import RNNs
from s3prl_stream.heads.spec_augment import SpecAugment
from s3prl_stream.heads.transformer import Transformer
from s3prl_stream.heads.xvector import XVector

SMALL: dict[str, dict[str, Any]] = {
    "linear": {"hidden_size": 6},
    "hidden": {"hidden_sizes": (6, 5)},
    "rnn": {"project_size": 6, "hidden_size": 5},
    "transformer": {"hidden_size": 8, "num_heads": 2, "ffn_size": 8, "dropout": 0.0},
    "xvector": {"project_size": 6, "hidden_size": 6, "last_size": 8},
    "ecapa": {"channels": 8, "last_size": 6, "scale": 4, "bottleneck": 3},
}
CASES = [
    (kind, level, pooling)
    for kind in SMALL
    for level, pooling in [("frame", None), *(("utterance", one) for one in POOLINGS), ("embedding", None)]
    if (kind, level) != ("xvector", "frame")
]


@pytest.fixture(scope="module")
def golden(repository: Path) -> dict[str, Any]:
    arrays = dict(np.load(repository / "tests/golden/superb.npz"))
    return {**json.loads((repository / "tests/golden/superb.json").read_text()), **arrays}


def small(kind: str, level: str = "utterance", pooling: str | None = None) -> nn.Module:
    torch.manual_seed(0)
    return build_head(kind, level=level, pooling=pooling, input_size=4, output_size=3, **SMALL[kind])


@pytest.mark.parametrize(("kind", "level", "pooling"), CASES)
def test_padding_changes_nothing_and_one_frame_is_enough(kind: str, level: str, pooling: str | None) -> None:
    """Each utterance alone, in a batch, and in a batch padded with rubbish; batch norms in evaluation mode."""
    head = small(kind, level, pooling).eval()
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([23, 16, 3, 1])
    rows = [torch.randn(int(length), 4, generator=generator) for length in lengths]
    padded = torch.full((4, 30, 4), 7.0)
    for row, wav in zip(padded, rows, strict=True):
        row[: len(wav)] = wav
    together, together_len = head(padded, lengths)
    assert torch.isfinite(together if level != "frame" else together[:, :1]).all()
    for number, row in enumerate(rows):
        alone, alone_len = head(row[None], lengths[number : number + 1])
        valid = int(alone_len) if level == "frame" else None
        assert int(together_len[number]) == int(alone_len)
        torch.testing.assert_close(together[number, :valid], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_are_finite_and_padding_gets_none(kind: str) -> None:
    """While training too: a batch with one frame, a constant utterance, and padding."""
    head = small(kind, pooling="statistics").train()
    hidden = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))
    hidden[1] = 0.5
    hidden.requires_grad_()
    head(hidden, torch.tensor([20, 17, 1]))[0].square().sum().backward()
    assert hidden.grad is not None
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters() if parameter.grad is not None)
    assert torch.isfinite(hidden.grad).all()
    assert hidden.grad[2, 1:].abs().max() == hidden.grad[1, 17:].abs().max() == 0
    assert hidden.grad[0].abs().sum() > 0


def test_batch_norms_learn_from_valid_frames_only() -> None:
    """Running means and variances are those of the same utterances without padding."""
    hidden = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    states = []
    for padding in (0, 30):
        head = small("ecapa").train()
        head(nn.functional.pad(hidden, (0, 0, 0, padding), value=3.0), torch.tensor([9, 9]))
        states.append(head.state_dict())
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], msg=name)


def test_sizes_are_those_of_superb(golden: dict[str, Any]) -> None:
    def count(head: nn.Module) -> int:
        return sum(parameter.numel() for parameter in head.parameters())

    expected = golden["parameters"]
    sizes = {"input_size": 768, "output_size": 10}
    assert count(build_head("linear", level="frame", **sizes)) == expected["frame_linear"]
    assert count(build_head("linear", level="utterance", **sizes)) == expected["mean_linear"]
    assert count(build_head("rnn", level="frame", input_size=768, output_size=31)) == expected["rnn"]
    assert count(build_head("xvector", level="embedding", input_size=768, output_size=512)) == expected["xvector"]
    ecapa = build_head("ecapa", level="embedding", input_size=768, output_size=1)
    assert count(ecapa.layers) == expected["ecapa"]  # type: ignore[arg-type]
    lstm = {"project_size": None, "hidden_size": 512, "num_layers": 1, "bidirectional": False, "dropout": 0.0}
    assert count(build_head("rnn", level="frame", input_size=768, output_size=2, **lstm)) == expected["diarization"]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("mean", "mean"), ("statistics", "stats"), ("self_attentive", "sap"), ("attentive", "asp")],
)
def test_poolings_as_s3prl(name: str, theirs: str, golden: dict[str, Any]) -> None:
    pooling = build_pooling(name, 4)
    weights = {key.split(".", 1)[1]: value for key, value in golden.items() if key.startswith(f"pool_{theirs}.")}
    if weights:
        ours = {
            f"attention.project.{kind}": torch.from_numpy(weights[f"sap_linear.{kind}"]) for kind in ("weight", "bias")
        }
        pooling.load_state_dict({**ours, "attention.attend.weight": torch.from_numpy(weights["attention"].T)})
    pooled = pooling(torch.from_numpy(golden["pool_in"]), torch.from_numpy(golden["pool_len"]))
    np.testing.assert_allclose(pooled.detach(), golden[f"pool_{theirs}"], atol=1e-5)
    if name == "attentive":
        constant = pooling(torch.ones(1, 5, 4), torch.tensor([5]))
        np.testing.assert_allclose(constant.detach()[0, 4:], 1e-5**0.5, rtol=1e-3)  # the least deviation


def test_a_time_delay_layer_as_s3prl(golden: dict[str, Any]) -> None:
    """Theirs unfolds and multiplies [frame, bin]; ours is the convolution with the same weights."""
    torch.manual_seed(0)
    layer = XVector(4, project_size=4, hidden_size=6).layers[1]
    conv = nn.Conv1d(4, 6, layer.kernel_size[0], dilation=layer.dilation[0])  # type: ignore[index]
    weight = torch.from_numpy(golden["tdnn_weight"]).view(6, 3, 4).transpose(1, 2)
    conv.load_state_dict({"weight": weight, "bias": torch.from_numpy(golden["tdnn_bias"])})
    made = torch.relu(conv(torch.from_numpy(golden["tdnn_in"]).transpose(1, 2))).transpose(1, 2)
    np.testing.assert_allclose(made.detach(), golden["tdnn_out"], atol=1e-5)
    xvector, hidden = XVector(4, project_size=4, hidden_size=6, last_size=8), torch.randn(1, 30, 4)
    expected = xvector.project(hidden).transpose(1, 2)
    for layer in xvector.layers:
        expected = torch.relu(layer(expected))
    torch.testing.assert_close(xvector(hidden, torch.tensor([30]))[0], expected.transpose(1, 2))
    assert xvector(hidden[:, :3], torch.tensor([3]))[0].shape == (1, 1, 8)


def test_layers_are_those_of_the_papers() -> None:
    ecapa = small("ecapa").layers
    assert [{conv.dilation for conv in block.convs} for block in ecapa.blocks] == [{(2,)}, {(3,)}, {(4,)}]  # type: ignore[union-attr]
    augment, published = (
        vars(SpecAugment()),
        {"warp_frames": 5, "max_dims": 50, "num_bands": 4, "max_frames": 40, "num_stretches": 2},
    )
    assert {name: augment[name] for name in published} == published
    acted: list[float] = []
    rnn = RNNs(4, project_size=4, hidden_size=4).train()
    rnn.dropout.register_forward_hook(lambda module, _, __: acted.append(module.p))
    rnn(torch.zeros(1, 5, 4), torch.tensor([5]))
    assert acted == [0.2, 0.2], "after each of two layers"


def test_two_directions_without_packing_are_those_of_packed_sequences() -> None:
    """torch's own bidirectional LSTM on packed sequences, with the same weights."""
    torch.manual_seed(0)
    rnn = RNNs(4, project_size=None, hidden_size=5, num_layers=1, dropout=0.0)
    theirs = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
    ours = {
        **rnn.layers[0].state_dict(),
        **{f"{name}_reverse": w for name, w in rnn.reversed_layers[0].state_dict().items()},
    }
    theirs.load_state_dict(ours)
    hidden, lengths = torch.randn(3, 8, 4), torch.tensor([8, 5, 1])
    packed = pack_padded_sequence(hidden, lengths, batch_first=True)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found, _ = rnn(hidden, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[row, :length], expected[row, :length])


def test_in_bfloat16_an_lstm_of_published_size_gets_the_right_gradients() -> None:
    """torch's own are wrong on a CPU with AMX: that of the input has nothing to do with the right one."""
    torch.manual_seed(0)
    rnn, hidden = RNNs(8, project_size=None, num_layers=1, dropout=0.0), torch.randn(2, 5, 8, requires_grad=True)
    found = []
    for in_bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            total = rnn(hidden, torch.tensor([5, 3]))[0].float().sin().sum()
        found.append(torch.autograd.grad(total, [hidden, *rnn.parameters()]))
    for wanted, gradient in zip(*found, strict=True):
        assert (gradient - wanted).norm() <= 0.02 * wanted.norm()


@pytest.mark.parametrize("name", POOLINGS)
def test_in_bfloat16_poolings_are_nearly_the_same(name: str) -> None:
    """Deviations too, of what is far from 0: they are differences of sums."""
    torch.manual_seed(0)
    pooling, lengths = build_pooling(name, 4), torch.tensor([200, 150])
    hidden = (torch.randn(2, 200, 4) + 20).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        rough = pooling(hidden, lengths)
    torch.testing.assert_close(rough.float(), pooling(hidden.float(), lengths), rtol=0.02, atol=0)


def test_the_second_layer_of_an_embedding_is_for_training_only() -> None:
    head = small("linear", "embedding")
    hidden, lengths = torch.randn(2, 5, 4), torch.tensor([5, 4])
    trained, used = head.train()(hidden, lengths)[0], head.eval()(hidden, lengths)[0]
    torch.testing.assert_close(torch.relu(head.second(used)), trained)  # type: ignore[operator]
    assert used.min() == 0  # behind a ReLU


def test_settings_reach_the_layers() -> None:
    hidden, lengths = torch.randn(1, 3, 4), torch.tensor([3])
    functions = {"relu": torch.relu, "gelu": nn.functional.gelu, "tanh": torch.tanh, "none": torch.clone}
    for name, function in functions.items():
        layers = LinearWithHiddens(4, hidden_sizes=(4,), activation=name)
        torch.testing.assert_close(layers(hidden, lengths)[0], function(layers.layers[0](hidden)))
    assert [layer.weight.shape for layer in LinearWithHiddens(4).layers[::2]] == [(256, 4), (256, 256)]
    for cell, kind in {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}.items():
        rnn = RNNs(4, project_size=4, hidden_size=4, cell=cell)
        assert {type(layer) for layer in (*rnn.layers, *rnn.reversed_layers)} == {kind}
    encoder = Transformer(4, hidden_size=6, num_heads=2, ffn_size=8, dropout=0.3, attention_dropout=0.2).encoder
    layer = encoder.layers[0]
    assert (layer.num_heads, layer.attention_dropout, layer.dropout.p, encoder.dropout.p) == (2, 0.2, 0.3, 0.3)


def test_how_frames_are_pooled_if_nothing_is_said() -> None:
    usual = {kind: type(small(kind, "utterance").pooling) for kind in KINDS}
    assert usual == {
        **dict.fromkeys(KINDS, MeanPooling), "xvector": StatisticsPooling, "ecapa": AttentiveStatisticsPooling
    }  # fmt: skip


def relu_normed(conv: nn.Conv1d, norm: nn.BatchNorm1d, x_BHF: Tensor) -> Tensor:
    x_BHF = torch.relu(nn.functional.conv1d(x_BHF, conv.weight, conv.bias, padding="same", dilation=conv.dilation))
    return nn.functional.batch_norm(x_BHF, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def ecapa_that_has_learnt(**sizes: int) -> Any:
    ecapa = EcapaTdnn(4, last_size=6, **sizes).eval()
    for norm in ecapa.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.normal_(norm.bias)
    return ecapa


def test_a_block_of_ecapa_is_that_of_the_paper() -> None:
    """Figure 2 there: groups that see those before them, squeeze and excitation, the residual; norms behind ReLUs."""
    block = ecapa_that_has_learnt(channels=9, scale=3, bottleneck=16).blocks[0]
    x = torch.randn(1, 9, 12)
    first, second, third = relu_normed(block.enter, block.enter_norm, x).chunk(3, dim=1)
    first = relu_normed(block.convs[0], block.norms[0], first)
    second = relu_normed(block.convs[1], block.norms[1], second + first)
    left = relu_normed(block.leave, block.leave_norm, torch.cat([first, second, third], dim=1))
    gate = torch.sigmoid(block.excite(torch.relu(block.squeeze(left.mean(dim=2)))))
    torch.testing.assert_close(block(x, torch.ones(1, 1, 12, dtype=torch.bool)), x + left * gate[..., None])


def test_one_frame_is_normed_as_in_evaluation_and_two_by_their_own_mean() -> None:
    norm = EcapaTdnn(4, channels=8, last_size=6).first_norm
    norm.running_mean.fill_(3.0)  # type: ignore[union-attr]
    two = torch.tensor([[[1.0, 5.0, 9.0]]]).expand(1, 8, 3)
    for mode in (True, False):
        one = norm.train(mode)(two, torch.tensor([[[True, False, False]]]))
        torch.testing.assert_close(one[0, 0], torch.tensor([-2.0, 0.0, 0.0]), atol=1e-4, rtol=0)
    both = norm.train()(two, torch.tensor([[[True, True, False]]]))
    torch.testing.assert_close(both[0, 0], torch.tensor([-1.0, 1.0, 0.0]), atol=1e-4, rtol=0)


def test_a_block_of_ecapa_sees_the_sum_of_all_before_it() -> None:
    class Block(nn.Module):
        def __init__(self, output: float) -> None:
            super().__init__()
            self.output = output

        def forward(self, hidden_BHF: Tensor, valid_B1F: Tensor) -> Tensor:
            seen.append(hidden_BHF)
            return torch.full_like(hidden_BHF, self.output)

    seen: list[Tensor] = []
    ecapa = ecapa_that_has_learnt(channels=8)
    ecapa.blocks = nn.ModuleList(map(Block, (1.0, 10.0, 100.0)))
    hidden = torch.randn(1, 5, 4)
    output, _ = ecapa(hidden, torch.tensor([5]))
    torch.testing.assert_close(seen[0], relu_normed(ecapa.first, ecapa.first_norm, hidden.transpose(1, 2)))
    of_all = torch.cat([torch.full((1, 8, 5), block.output) for block in ecapa.blocks], dim=1)
    torch.testing.assert_close(output, torch.relu(ecapa.last(of_all)).transpose(1, 2))
    torch.testing.assert_close(torch.stack(seen[1:]), torch.stack([seen[0] + 1, seen[0] + 11]))


def test_weighted_sum_begins_as_the_mean_and_reports_its_weights() -> None:
    states = [torch.randn(2, 5, 4) * scale for scale in (1.0, 10.0, 100.0)]
    featurizer = WeightedSum(3)
    torch.testing.assert_close(featurizer(states), torch.stack(states).mean(dim=0))
    with torch.no_grad():
        featurizer.scores.copy_(torch.tensor([0.0, 0.0, 2.0]).log())
    assert featurizer.weights() == pytest.approx([0.0, 0.0, 1.0])
    torch.testing.assert_close(featurizer(states), states[2])
    normalized = WeightedSum(3, normalize=True)(states)
    torch.testing.assert_close(
        normalized, torch.stack([nn.functional.layer_norm(state, (4,)) for state in states]).mean(dim=0)
    )
    with pytest.raises(UsageError, match="2 hidden states; there are 3 weights"):
        featurizer(states[:2])


def augmented(**settings: int) -> tuple[Tensor, Tensor]:
    augment = SpecAugment(**settings).train()
    torch.manual_seed(0)
    hidden = torch.ones(200, 60, 40)
    lengths = torch.arange(1, 201).clamp(max=60)
    return augment(hidden, lengths), lengths


def test_spec_augment_masks_what_it_says() -> None:
    plain, lengths = augmented(warp_frames=0, num_bands=0, num_stretches=0)
    assert (plain.sum(dim=(1, 2)) == lengths * 40).all()
    bands, _ = augmented(warp_frames=0, num_stretches=0, num_bands=1, max_dims=15)
    widths = (bands[59:, 0] == 0).sum(dim=1)
    assert (widths.min(), widths.max()) == (0, 15)
    halves, _ = augmented(warp_frames=0, num_stretches=0, num_bands=1, max_dims=39)
    assert (halves[59:, 0] == 0).sum(dim=1).max() == 20
    stretches, _ = augmented(warp_frames=0, num_bands=0, num_stretches=1, max_frames=9)
    frames = (stretches[59:, :, 0] == 0).sum(dim=1)
    assert (frames.min(), frames.max()) == (0, 9)
    assert all((stretches[59:, end, 0] == 0).any() for end in (0, 59))
    warped, _ = augmented(warp_frames=5, num_bands=0, num_stretches=0)
    assert (warped.sum(dim=(1, 2)) - lengths * 40).abs().max() < 1e-2  # of ones only ones can be made
    untouched = torch.randn(2, 9, 4)
    assert SpecAugment().eval()(untouched, torch.tensor([9, 3])) is untouched
    short = SpecAugment(warp_frames=0, num_bands=0, num_stretches=1, max_frames=2).train()
    alone = short(torch.ones(200, 60, 1), torch.full((200,), 4))
    assert (alone[:, :4] == 0).any(dim=1).sum() > 100  # two of three: where there is speech, not in the padding
    assert not alone[:, 4:].any()


def test_warping_moves_time() -> None:
    """A frame of those that may, by up to one here, and not onto an end; what is before and after it is resized."""

    def resized(frames_FH: Tensor, num_frames: int) -> Tensor:
        return nn.functional.interpolate(frames_FH[None, None], (num_frames, 2), mode="bicubic")[0, 0]

    ramp = torch.arange(4.0)[:, None].repeat(1, 2).square()
    padded = torch.cat([ramp, torch.full((3, 2), torch.nan)])
    augment = SpecAugment(warp_frames=1, num_bands=0, num_stretches=0).train()
    torch.manual_seed(0)
    found = augment(padded.expand(100, -1, -1), torch.full((100,), 4))
    assert not found[:, 4:].any()
    possible = [
        torch.cat([resized(ramp[:center], moved), resized(ramp[center:], 4 - moved)])
        for center, moved in ((1, 1), (1, 2), (2, 1), (2, 3))
    ]
    is_which = torch.stack([(found[:, :4] - one).abs().amax(dim=(1, 2)) < 1e-5 for one in possible])
    assert is_which.any(dim=0).all(), "nothing else"
    assert is_which.any(dim=1).all(), "each of them"
    assert SpecAugment(warp_frames=2)._warp(ramp) is ramp  # too short for it


def test_spec_augment_stands_before_the_head_while_it_learns() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"level": "frame", "input_size": 40, "output_size": 2}
    head: Any = build_head("linear", **sizes, spec_augment=True)
    seen: list[Tensor] = []
    head.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for mode in (True, False):
        head.train(mode)(torch.ones(4, 60, 40), torch.full((4,), 60))
    assert [bool((one == 0).any()) for one in seen] == [True, False]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "lineer"}, "there are linear, hidden"),
        ({"level": "word"}, "there are frame"),
        ({"pooling": "median"}, "there are mean"),
        ({"level": "frame", "pooling": "mean"}, "nothing to pool"),
        ({"kind": "xvector", "level": "frame"}, "14 frames less"),
        ({"num_layers": 3}, "no setting num_layers; there are hidden_size"),
        ({"hidden_size": 0}, "hidden_size is 0; it must be at least 1"),
        ({"kind": "ecapa", "channels": 10}, "multiple of scale 8"),
        ({"kind": "ecapa", "channels": 8, "scale": 1}, "multiple of scale 1, which is 2 or more"),
        ({"kind": "rnn", "num_layers": 0}, "num_layers is 0; it must be at least 1"),
        ({"kind": "hidden", "activation": "sine"}, "there are none, relu"),
        ({"kind": "rnn", "recurrence": "gru"}, "no setting recurrence"),
        ({"kind": "rnn", "bidirectional": 3}, "head 'rnn': bidirectional: 3 is not true or false"),
        ({"kind": "rnn", "dropout": True}, "dropout: True is not a number"),
        ({"kind": "rnn", "hidden_size": 1e3}, "hidden_size: 1000.0 is not a whole number"),
        ({"kind": "hidden", "hidden_sizes": "12"}, r"hidden_sizes: '12' is not \[a whole number, ...\]"),
        ({"kind": "hidden", "hidden_sizes": [8, 0]}, "hidden_sizes is 0; it must be at least 1"),
        ({"spec_augment": 3}, "spec_augment: 3 is not true or false"),
        ({"pooling": 3}, "pooling: 3 is not text or none"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000; it must be at least 1 and at most 1000000"),
        ({"kind": "rnn", "num_layers": 10**12}, "num_layers is 1000000000000; it must be at least 1 and at most 1000"),
        ({"kind": "rnn", "hidden_size": 10**6}, r"make 1280\d\d GB of weights, and this machine has \d+ GB"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], said: str) -> None:
    wanted = {"kind": "linear", "level": "utterance", "input_size": 4, "output_size": 2, **options}
    with pytest.raises(UsageError, match=said):
        build_head(wanted.pop("kind"), **wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_that_are_listed_are_those_of_the_head(kind: str) -> None:
    sizes: dict[str, Any] = {"level": "utterance", "input_size": 8, "output_size": 2}
    with torch.device("meta"):
        assert str(build_head(kind, **sizes, **settings_of_head(kind, "utterance"))) == str(build_head(kind, **sizes))
