"""The interface that all upstreams share, on runs and baselines: shapes, lengths, and nothing of the neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import TINY
from torch import nn

import s3prl_stream as ss
from s3prl_stream.models.wave import WaveEncoder
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.run_folder import load_objective
from s3prl_stream.trainer.checkpoint import list_checkpoints
from s3prl_stream.upstreams import BASELINES, FeatureUpstream, Upstream
from s3prl_stream.upstreams.waves import WaveUpstream

LENGTHS = [16_000, 4321, 10]


def wavs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, generator=generator) * 0.1 for length in LENGTHS]


def assert_interface(up: Upstream, *, tolerance: float = 1e-5) -> None:
    """What DESIGN promises of any upstream."""
    assert not up.training
    with torch.no_grad():
        together = up(wavs())
        alone = [up([wav]) for wav in wavs()]
        rows = nn.utils.rnn.pad_sequence(wavs(), batch_first=True, padding_value=0.5)  # with anything
        padded = up(rows, torch.tensor(LENGTHS))
        cut = up([nn.functional.pad(wavs()[1], (0, 500), value=0.5)], LENGTHS[1:2])
    frames = up.num_frames(LENGTHS).tolist()
    assert frames == up.num_frames(torch.tensor(LENGTHS)).tolist()
    assert len(together) == up.num_layers + 1
    for one, two in zip(cut, alone[1], strict=True):
        torch.testing.assert_close(one, two, atol=tolerance, rtol=0)
    for layer, hidden_BFH in enumerate(together):
        assert hidden_BFH.shape == (3, max(frames), up.hidden_size)
        assert hidden_BFH.dtype == torch.float32
        for row, valid in enumerate(frames):
            assert alone[row][layer].shape[1] == valid
            torch.testing.assert_close(hidden_BFH[row, :valid], alone[row][layer][0], atol=tolerance, rtol=0)
            torch.testing.assert_close(hidden_BFH[row, :valid], padded[layer][row, :valid], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines(name: str) -> None:
    up = ss.upstream(name)
    assert_interface(up)
    assert (up.num_layers, up.stride) == (0, 160)
    assert up.hidden_size == {"fbank": 240, "mfcc": 39, "spectrogram": 201}.get(name, 80)
    feat, louder = up([wavs()[0]])[0], up([wavs()[0] * 2])[0]
    is_normalised = feat.mean(dim=1).abs().max() < 1e-4  # of which a mean over time would tell nothing
    assert is_normalised == (name in ("fbank", "mfcc"))
    is_levelled = torch.allclose(feat, louder, atol=1e-3)
    assert is_levelled == (name != "fbank80")  # all others bring waves or features to one level


def test_a_checkpoint_in_a_run_is_an_upstream_of_its_own(sample_set: Path, tmp_path: Path) -> None:
    sizes = {**TINY, "max_batch_seconds": 10.0, "checkpoint_every": 1, "norm": "fixed"}
    ss.pretrain("tera", sample_set, steps=2, out=tmp_path, **sizes)
    first, last = list_checkpoints(tmp_path)
    ups = [ss.upstream(path) for path in (tmp_path, first, last)]
    assert_interface(ups[0])
    assert (ups[0].stride, ups[0].hidden_size, ups[0].num_layers) == (160, 8, 1)
    assert ups[0].num_frames([16_000, 4321, 10]).tolist() == [101, 28, 6]
    assert not load_objective(tmp_path).training
    weights = [up.state_dict()["encoder.project.weight"] for up in ups]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert {up.norm for up in ups} == {"fixed"}  # of the features that it was trained on
    fresh = [ss.upstream(tmp_path, trained=False, seed=seed).state_dict() for seed in (0, 5, 5)]
    assert torch.equal(fresh[1]["encoder.project.weight"], fresh[2]["encoder.project.weight"])
    assert not torch.equal(fresh[0]["encoder.project.weight"], fresh[1]["encoder.project.weight"])


@pytest.mark.parametrize("network", [True, False])
def test_what_is_no_waveform_is_told(network: bool) -> None:
    sizes = {"conv_size": 8, "hidden_size": 16, "num_heads": 2, "ffn_size": 32, "position_groups": 2}
    up: Upstream = WaveUpstream(WaveEncoder(**sizes)) if network else ss.upstream("fbank")
    short = torch.zeros(2000)
    for wrong in ([short.short()], [short[None]], short[None].short(), short[None, None], short):
        with pytest.raises(ss.UsageError, match=r"a waveform is torch\.(int16|float32) \[.*; give floats"):
            up(wrong)
    for wrong in ([short.short().numpy()], short.numpy(), ["a.wav"], None, 3):
        with pytest.raises(ss.UsageError, match=r"a waveform is .*; give floats"):
            up(wrong)
    with pytest.raises(ss.UsageError, match="no waveforms"):
        up([])
    two = torch.stack([short, short])
    for lengths in ([2000], [2000, 2001], torch.tensor([1.0, 0.5]), [-1, 5]):
        for wavs in (two, list(two)):
            with pytest.raises(ss.UsageError, match=r"lengths are .*; give samples of each"):
                up(wavs, lengths)


def test_an_encoder_gives_as_many_hidden_states_as_it_says() -> None:
    class Own(torch.nn.Module):
        hidden_size = 80
        num_layers = 1
        num_given = 2

        def forward(self, feat: torch.Tensor, feat_len: torch.Tensor) -> Any:
            return [feat] * self.num_given if self.num_given > 1 else feat

    own = Own()
    up = FeatureUpstream(own, FrontEnd("logmel80"))
    assert len(up([torch.zeros(2000)])) == 2
    for own.num_given in (1, 3):
        with pytest.raises(ss.UsageError, match=f"encoder Own gave {own.num_given} hidden states, its num_layers is 1"):
            up([torch.zeros(2000)])


def test_a_long_input_goes_through_in_pieces_that_see_their_own_valid_frames() -> None:
    torch.manual_seed(0)
    encoder = ss.build_encoder("tera", hidden_size=8, num_layers=1, num_heads=2, ffn_size=8).eval()
    front_end = FrontEnd("logmel80")
    up = FeatureUpstream(encoder, front_end, max_frames=50).eval()
    long, short = wavs()[0], wavs()[0][:9000]
    with torch.no_grad():
        found = up([long, short])[-1]  # 101 and 57 frames, in pieces of 34, 34 and 33
        assert found.shape[1] == 101
        for row, wav, pieces in ((0, long, ((0, 34), (34, 68), (68, 101))), (1, short, ((0, 34), (34, 57)))):
            feat = front_end.features(wav, norm="utterance")
            for first, stop in pieces:
                (expected,) = encoder(feat[None, first:stop], torch.tensor([stop - first]))[-1]
                torch.testing.assert_close(found[row, first:stop], expected, atol=1e-5, rtol=0)
    encoder.to("meta")  # as one that is being trained is moved, without the upstream that asks it
    assert {state.device.type for state in up([short])} == {"meta"}


def test_short_waveforms_are_taken_as_padded_and_s3prl_counts_frames_by_share() -> None:
    """To 800 samples before anything else is done with them; lengths as a share of the longest one's frames."""
    front_end, short = FrontEnd("logmel80", target_db=-25.0), wavs()[0][:500]
    padded = front_end.features(nn.functional.pad(short, (0, 300)), norm="none")
    assert torch.equal(front_end.features(short, norm="none"), padded)
    assert [FrontEnd(kind).num_frames([10]).tolist() for kind in ("logmel80", "fbank80")] == [[6], [3]]
    # 16 000 / 101 samples a frame: 50.8 and 49.9 of them
    assert front_end.legacy_num_frames([16_000, 8_050, 7_900]).tolist() == [101, 51, 50]


def test_what_is_no_upstream_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("no weights here")
    with pytest.raises(ss.UsageError, match="loaded safely"):
        ss.upstream(tmp_path / "thesis.txt")
    for name in (tmp_path, "no/such/run"):
        with pytest.raises(ss.UsageError, match=r"no run\.json"):
            ss.upstream(name)
    with pytest.raises(ss.UsageError, match=r"Identity is no name; .* derives from s3prl_stream\.upstreams\.Upstream"):
        ss.upstream(nn.Identity())  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match=r"Upstream must implement num_frames\(\)"):
        Upstream().num_frames([16_000])
    for asked in ({"trained": False}, {"encoder": nn.Identity()}):
        with pytest.raises(ss.UsageError, match="are for runs"):
            ss.upstream("logmel80", **asked)
