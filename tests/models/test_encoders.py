"""What all encoders promise: shapes, and that an utterance gets in a batch what it gets alone; and NPC's blind spot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_recipes import SMALL
from torch import Tensor, nn
from torch.nn import functional as F

import s3prl_stream as ss
from s3prl_stream.models.npc import NpcEncoder
from s3prl_stream.models.quantizer import GumbelQuantizer
from s3prl_stream.models.wave import WaveEncoder, _norm_at_once, conv_frames, norm_over_time
from s3prl_stream.recipes import RECIPES, build_objective, find_recipe
from s3prl_stream.sample import Batch


def small(name: str, **changed: Any) -> Any:
    """The objective of a recipe with small sizes; batch statistics and norms as if trained."""
    generator = torch.Generator().manual_seed(1)
    objective = build_objective(find_recipe(name).having({**SMALL[name], **changed}), seed=1)
    for module in objective.modules():
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return objective


def inputs(name: str, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Noise of these lengths (frames, or 400 samples each), padded with zeros."""
    front_end = find_recipe(name).front_end
    generator = torch.Generator().manual_seed(2)
    shape = (400,) if front_end is None else (front_end.feat_dim,)
    rows = [torch.randn(length, *shape, generator=generator) for length in lengths]
    if front_end is None:
        rows = [row.flatten() for row in rows]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


@pytest.mark.parametrize("name", SMALL)
def test_an_utterance_gets_in_a_batch_what_it_gets_alone(name: str) -> None:
    encoder = small(name).encoder.eval()
    together, lengths = inputs(name, (40, 23))
    length = int(lengths[1])
    if RECIPES[name].front_end:  # features may be padded with anything
        together[1, length:] = 1000.0
    with torch.no_grad():
        alone = encoder(together[1:, :length], lengths[1:])
        batch = encoder(together, lengths)
    assert len(alone) == len(batch) == encoder.num_layers + 1
    frames = length if RECIPES[name].front_end else int(encoder.num_frames(lengths)[1])
    for one, two in zip(alone, batch, strict=True):
        assert one.shape == (1, frames, encoder.hidden_size)
        torch.testing.assert_close(two[1, :frames], one[0], atol=1e-5, rtol=0)
        assert "apc" not in name or not two[1, frames:].any()


@pytest.mark.parametrize(
    ("name", "places"),
    [("tera", 1 + 2 * 2), ("audio_albert", 1 + 2 * 2), ("apc", 3), ("npc", 2), ("distilhubert", 1 + 2 * 3)],
)
def test_dropout_acts_at_each_of_its_places_while_training(name: str, places: int) -> None:
    """Behind a transformer's input; in its layers behind attention and feed-forward part, in HuBERT's inside too."""
    encoder = small(name, dropout=0.1).encoder
    acted: list[float] = []
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, _, __: acted.append(module.p if module.training else 0.0))
    encoder.train()(*inputs(name, (20,)))
    assert [share for share in acted if share] == [0.1] * places
    acted.clear()
    encoder.eval()(*inputs(name, (20,)))
    assert not any(acted)


@pytest.mark.parametrize("name", ["npc", "distilhubert"])
def test_as_in_s3prl_padding_reaches_the_end_of_an_utterance(name: str) -> None:
    """What `legacy` reproduces, so that the test above cannot pass by accident."""
    encoder = small(name, legacy=True).encoder.eval()
    together, lengths = inputs(name, (40, 23))
    with torch.no_grad():
        alone = encoder(together[1:, : lengths[1]], lengths[1:])[-1][0]
        batch = encoder(together, lengths)[-1][1, : len(alone)]
    assert (alone - batch).abs().max() > 1e-3


def batch_of(name: str, lengths: tuple[int, ...]) -> Batch:
    padded, valid = inputs(name, lengths)
    keys = [str(length) for length in lengths]
    if name == "distilhubert":
        return {"key": keys, "wav": padded, "wav_len": valid}
    mask = torch.arange(padded.shape[1])[None, :, None] < (valid // 2)[:, None, None]
    return {
        "key": keys, "feat": padded, "feat_len": valid, "masked_feat": padded * ~mask,
        "loss_mask": mask.expand_as(padded), "target_feat": padded.roll(1, dims=2),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SMALL if name != "distilhubert"])
def test_the_loss_of_a_batch_is_that_of_its_utterances(name: str) -> None:
    """Averaged by their weights, in evaluation mode: padding has no part in it."""
    objective = small(name).eval()
    batch = batch_of(name, (40, 23))
    if name in ("tera", "mockingjay", "audio_albert"):
        batch.pop("target_feat")
    parts = []
    for row, length in enumerate((40, 23)):
        cut = {key: value[row : row + 1, :length] for key, value in batch.items() if key not in ("key", "feat_len")}
        parts.append(objective({**cut, "key": ["a"], "feat_len": batch["feat_len"][row : row + 1]}))
    whole = objective(batch)
    assert int(whole.num_elements) == sum(int(part.num_elements) for part in parts)
    mean = sum(part.mean.item() * int(part.num_elements) for part in parts) / int(whole.num_elements)
    assert whole.mean.item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(("name", "frames"), [("apc", 2 * 40), ("vq_apc", 2 * 40), ("npc", 40 + 23)])
def test_as_in_s3prl_padding_counts_in_the_loss_of_apc(name: str, frames: int) -> None:
    loss = small(name, legacy=True).eval()(batch_of(name, (40, 23)))
    assert int(loss.num_elements) == frames * 80


@pytest.mark.parametrize("name", [name for name in SMALL if name != "distilhubert"])
def test_in_bfloat16_the_loss_is_nearly_the_same(name: str) -> None:
    """In training mode, without dropout or draws: batch statistics and sums stay exact."""
    objective = small(name, dropout=0.0, **({"codebook_sizes": ()} if name in ("vq_apc", "npc") else {}))
    batch = batch_of(name, (40, 23))
    exact = objective(batch).mean
    with torch.autocast("cpu", torch.bfloat16):
        rough = objective(batch).mean
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("keys", [(), ("feat", "wav")], ids=["keys alone", "with tensors"])
def test_an_empty_batch_gives_zero_gradients_not_none(name: str, keys: tuple[str, ...]) -> None:
    objective = small(name)
    tensors = {key: torch.zeros((0,) * 3) for key in keys} | {f"{key}_len": torch.zeros(0).long() for key in keys}
    loss = objective({"key": [], "weight": 0.0, **tensors})
    loss.mean.backward()
    assert (loss.mean.item(), int(loss.num_elements)) == (0.0, 0)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in objective.parameters())


@pytest.mark.parametrize("blocks", [1, 4])
def test_npc_does_not_see_the_frame_that_it_predicts(blocks: int) -> None:
    """The gradient of a prediction is 0 on `mask_size` frames around it, and not beyond, up to its receptive field."""
    encoder = NpcEncoder(feat_dim=4, hidden_size=8, num_blocks=blocks, kernel_size=15, mask_size=5).eval()
    feat = torch.randn(16, 61, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    encoder(feat, torch.full((16,), 61))[-1][:, 30].sum().backward()
    assert feat.grad is not None
    distance = (torch.arange(61) - 30).abs()
    seen = feat.grad.abs().sum(dim=(0, 2)) > 0
    assert not seen[distance <= 2].any()
    assert seen[distance == 3].all()
    assert not seen[distance > 7 + blocks].any()


def test_npc_normalises_with_the_statistics_of_valid_frames() -> None:
    encoder = NpcEncoder(feat_dim=4, hidden_size=8, num_blocks=2, kernel_size=15, dropout=0.0).train()
    feat = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(0))
    padded = nn.functional.pad(feat, (0, 0, 0, 30))
    alone = encoder(feat, torch.tensor([20]))[-1]
    statistics = {name: tensor.clone() for name, tensor in encoder.named_buffers()}
    plain = nn.BatchNorm1d(8)
    plain(encoder.blocks[0].conv(feat.transpose(1, 2)))
    for name, expected in plain.named_buffers():
        torch.testing.assert_close(statistics[f"blocks.0.conv_norm.{name}"], expected)
    torch.testing.assert_close(encoder(padded, torch.tensor([20]))[-1][:, :20], alone, atol=1e-5, rtol=0)


def test_apc_sees_the_past_only() -> None:
    encoder = small("apc").encoder.eval()
    feat, lengths = inputs("apc", (20,))
    other = feat.clone()
    other[:, 12:] = 0.0
    with torch.no_grad():
        one, two = encoder(feat, lengths)[-1], encoder(other, lengths)[-1]
    torch.testing.assert_close(one[:, :12], two[:, :12])
    assert not torch.allclose(one[:, 12], two[:, 12])


def test_the_quantizer_gives_code_vectors_and_passes_the_gradient_of_the_softmax() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(8, (5, 5), temperature=0.5)
    hidden = torch.randn(2, 3, 8, requires_grad=True)
    for training in (True, False):
        vectors = quantizer.train(training)(hidden)
        book = quantizer.codebooks[1].weight.T
        distance = (vectors[..., 4:].reshape(-1, 1, 4) - book).abs().amax(dim=-1)
        assert (distance.amin(dim=1) < 1e-6).all()
    assert quantizer.codes(hidden).shape == (2, 2, 3)
    torch.manual_seed(1)
    quantizer.train()(hidden).square().sum().backward()
    found, hidden.grad = hidden.grad, None
    torch.manual_seed(1)
    for group, logits, book in zip(hidden.split(4, dim=-1), quantizer.logits, quantizer.codebooks, strict=True):
        book(F.gumbel_softmax(logits(group), tau=0.5, hard=True)).square().sum().backward()
    assert found is not None
    assert found.abs().sum() > 0
    torch.testing.assert_close(found, hidden.grad)


def test_frames_of_waveforms() -> None:
    """As wav2vec 2.0 counts them: 49 in a second, and one each 320 samples."""
    assert conv_frames(torch.tensor([16_000, 16_320, 400, 719, 720])).tolist() == [49, 50, 1, 1, 2]
    encoder = small("distilhubert").encoder.eval()
    assert isinstance(encoder, WaveEncoder)
    with torch.no_grad():
        assert encoder(torch.zeros(1, 10), torch.tensor([10]))[-1].shape == (1, 2, 16)
    assert encoder.num_frames(torch.tensor([10])).tolist() == [2]
    short = torch.randn(1, 500, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # as if there were zeros up to 800 samples
        alone, padded = encoder(short, torch.tensor([500])), encoder(F.pad(short, (0, 300)), torch.tensor([800]))
    torch.testing.assert_close(alone[-1], padded[-1])


def test_the_norm_of_a_gpu_is_that_of_a_cpu() -> None:
    """All rows at once, or each by torch's own kernel."""
    generator = torch.Generator().manual_seed(0)
    rows, frames = torch.randn(3, 4, 50, generator=generator) * 3 + 5, torch.tensor([50, 23, 2])
    weight, bias = torch.rand(4, generator=generator), torch.rand(4, generator=generator)
    found = _norm_at_once(rows, frames, weight, bias, 1e-5)
    expected = norm_over_time(rows, frames, weight, bias)
    for row, length in enumerate(frames.tolist()):
        torch.testing.assert_close(found[row, :, :length], expected[row, :, :length], atol=1e-5, rtol=0)


def test_fresh_weights_are_of_the_published_deviation() -> None:
    """BERT's 0.02; in HuBERT's convolution of positions (4 (1 - dropout) / (kernel * hidden)) ** 0.5, as in fairseq."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "num_heads": 2, "num_layers": 1, "ffn_size": 128}
    wave = ss.build_encoder("distilhubert", **sizes, conv_size=8, position_kernel=32, position_groups=4, dropout=0.2)
    for encoder in (ss.build_encoder("tera", **sizes), wave):
        linear = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
        weights = torch.cat([module.weight.detach().flatten() for module in linear])
        assert float(weights.std()) == pytest.approx(0.02, rel=0.03)
        assert not any(module.bias.any() for module in linear)
    assert isinstance(wave, WaveEncoder)
    assert float(wave.position_conv.weight.detach().std()) == pytest.approx((4 * 0.8 / (32 * 64)) ** 0.5, rel=0.03)


def test_the_gradient_of_the_convolutions_is_scaled_and_nothing_else() -> None:
    grads = []
    for factor in (1.0, 0.1):
        encoder = small("distilhubert", conv_gradient=factor, dropout=0.0, attention_dropout=0.0).encoder.eval()
        wav, lengths = inputs("distilhubert", (20,))
        out = encoder(wav, lengths)[-1]
        out.square().sum().backward()
        grads.append((out.detach(), encoder.convs.layers[3].weight.grad, encoder.project.weight.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[1][1], 0.1 * grads[0][1], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(grads[1][2], grads[0][2])
