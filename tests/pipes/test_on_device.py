"""`.on(device)`: batches behind it are those of the same chain without it. On the CPU; a GPU runs the same code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.batch_features import BATCH_KINDS, extract_rows
from s3prl_stream.pipes.features import extract
from s3prl_stream.pipes.on_batch import Drawn
from s3prl_stream.pipes.stage import Source, Stage
from s3prl_stream.pipes.tail import _packed, _unpacked
from s3prl_stream.sample import Sample

RATE = 16_000


def speech_like(num_samples: int, seed: int) -> np.ndarray:
    """Noise whose spectrum falls by 12 dB an octave and whose level rises and falls, int16 [T]."""
    rng = np.random.default_rng(seed)
    noise = np.fft.rfft(rng.standard_normal(num_samples))
    noise /= 1.0 + (np.arange(len(noise)) / max(len(noise), 1) * 40) ** 2
    wav = np.fft.irfft(noise, num_samples) * (0.2 + np.abs(np.sin(np.arange(num_samples) / 3_000)))
    return (wav / (np.abs(wav).max() + 1e-9) * 8_000).astype(np.int16)


def clips() -> dict[str, Sample]:
    lengths = (201, 400, 560, 4_000, 9_999, 16_000, 16_161, 25_600)
    return {f"c{n}": {"wav": speech_like(length, n), "sample_rate": RATE} for n, length in enumerate(lengths)}


def stream(**settings: Any) -> Source:
    return ss.ShardStream(clips(), epochs=1, max_batch_seconds=4.0, **settings).load_audio(dtype="int16")


def whole() -> Source:
    """The same clips as floats, for a chain without the marker."""
    return ss.ShardStream(clips(), epochs=1, max_batch_seconds=4.0).load_audio()


def assert_batches_agree(moved: Source, plain: Source, tolerance: float = 1e-4) -> list[dict[str, Any]]:
    ours, theirs = list(ss.Loader(moved)), list(ss.Loader(plain))
    assert len(ours) == len(theirs) > 1
    for a, b in zip(ours, theirs, strict=True):
        assert set(a) == set(b)
        for name, value in b.items():
            if not isinstance(value, torch.Tensor):
                assert a[name] == value
                continue
            assert (a[name].dtype, a[name].shape) == (value.dtype, value.shape), name
            if value.is_floating_point():
                assert float((a[name] - value).abs().max()) <= tolerance, name
            else:
                assert torch.equal(a[name], value), name
    return ours


@pytest.mark.parametrize("kind", BATCH_KINDS)
@pytest.mark.parametrize(("norm", "deltas"), [("utterance", 2), ("none", 0), ("fixed", 2)])
def test_features_of_rows_are_those_of_each_alone(kind: str, norm: str, deltas: int) -> None:
    lengths = [560, 561, 719, 720, 4_000, 9_999]
    wavs = [torch.from_numpy(speech_like(length, length).astype(np.float32) / 32768) for length in lengths]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    feat, frames = extract_rows(padded, torch.tensor(lengths), kind, norm=norm, deltas=deltas)
    for row, wav in enumerate(wavs):
        alone = extract(wav, kind, norm=norm, deltas=deltas)
        assert int(frames[row]) == len(alone)
        assert float((feat[row, : len(alone)] - alone).abs().max()) <= 1e-4
        assert not feat[row, len(alone) :].any()


def test_a_chain_for_tera_agrees_and_masks_are_the_same() -> None:
    def tail(source: Source) -> Source:
        return source.norm_wav().features("logmel80").mask("tera")

    batches = assert_batches_agree(tail(stream().on("cpu")), tail(whole()))
    assert any(bool(batch["loss_mask"].any()) for batch in batches)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_spans_behind_it_are_the_same(kind: str) -> None:
    def tail(source: Source) -> Source:
        return source.norm_wav().features("logmel80").mask_spans(kind)

    batches = assert_batches_agree(tail(stream().on("cpu")), tail(whole()))
    assert any(bool(batch["frame_mask"].any()) for batch in batches)


@pytest.mark.parametrize("legacy", [False, True])
def test_noise_of_a_mask_goes_to_the_same_clips_at_its_deviation(legacy: bool) -> None:
    def tail(source: Source) -> Source:
        return source.norm_wav().features("logmel80").mask("tera", noise_prob=0.5, legacy=legacy)

    noisy = {True: 0, False: 0}
    for ours, theirs in zip(ss.Loader(tail(stream().on("cpu"))), ss.Loader(tail(whole())), strict=True):
        assert torch.equal(ours["loss_mask"], theirs["loss_mask"])
        for row, frames in enumerate(ours["feat_len"].tolist()):
            assert not ours["masked_feat"][row, frames:].any()
            seen = ~ours["loss_mask"][row, :frames]
            added = [(batch["masked_feat"] - batch["feat"])[row, :frames][seen] for batch in (ours, theirs)]
            assert bool(added[0].any()) == bool(added[1].any())
            noisy[bool(added[0].any())] += 1
            if len(added[0]) > 2_000 and added[0].any():  # 4 standard errors of a deviation from 2 000 values: 0.013
                assert float(added[0].std()) == pytest.approx(0.2, abs=0.013)
    assert min(noisy.values()) >= 2


@pytest.mark.parametrize("with_slopes", [False, True])
def test_chains_on_the_filter_bank_agree(with_slopes: bool) -> None:
    """APC's, and TERA's on features with slopes, in which a band may lie."""

    def tail(source: Source) -> Source:
        return source.features("fbank80", deltas=2).mask() if with_slopes else source.features("fbank80").shift(2)

    plain = ss.ShardStream(clips(), epochs=1, max_batch_seconds=4.0, where="frames > 700").load_audio()
    moved = ss.ShardStream(clips(), epochs=1, max_batch_seconds=4.0, where="frames > 700").load_audio().on("cpu")
    assert_batches_agree(tail(moved), tail(plain))


def test_noise_of_a_bank_and_rooms_agree_with_what_is_drawn(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", speech_like(20_000, 99), RATE)
    bank = ss.pipes.NoiseBank(tmp_path, cache=tmp_path / "cache")

    def tail(source: Source) -> Source:
        noisy = source.add_noise(noise=bank, snr=(0, 20), voices=(1, 3), prob=0.7)
        return noisy.reverberate(rt60=(0.1, 0.4), prob=0.6).features("logmel80", norm="none")

    plain = tail(ss.ShardStream(clips(), epochs=1, max_batch_seconds=4.0).load_audio().record_draws())
    batches = assert_batches_agree(tail(stream().record_draws().on("cpu")), plain)
    draws = [draw for batch in batches for draw in batch["draws"]]
    assert {draw["add_noise"]["applied"] for draw in draws} == {True, False}
    assert {draw["reverberate"]["applied"] for draw in draws} == {True, False}


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_gain_and_specaugment_agree(fill: str) -> None:
    def tail(source: Source) -> Source:
        loud = source.norm_wav(target_db=-20.0).random_gain(prob=0.5).features("logmel80", norm="utterance")
        return loud.spec_augment(prob=0.8, freq_width=(0, 20), time_width=(0, 10), fill=fill)

    plain = tail(ss.ShardStream(clips(), epochs=1, max_batch_seconds=4.0).load_audio().record_draws())
    assert_batches_agree(tail(stream().record_draws().on("cpu")), plain)


def test_dense_noise_has_the_same_ratio_and_follows_identity() -> None:
    def batches(source: Source) -> list[dict[str, Any]]:
        return list(ss.Loader(source.record_draws().on("cpu").add_noise(snr=(-5, 15), prob=0.8)))

    again = iter(ss.Loader(stream(seed=1).record_draws().on("cpu").add_noise(snr=(-5, 15), prob=0.8)))
    plain = ss.Loader(stream())
    noisy = batches(stream())
    for batch, clean_batch, same in zip(noisy, plain, batches(stream()), strict=True):
        assert torch.equal(batch["wav"], same["wav"])
        rows = zip(batch["wav"], clean_batch["wav"] / 32768, batch["wav_len"].tolist(), batch["draws"], strict=True)
        for row, clean, length, draws in rows:
            drawn = draws["add_noise"]
            added = (row - clean).double()
            assert not added[length:].any()
            if not drawn["applied"]:
                assert not added.any()
                continue
            ratio = 20 * float(torch.log10(clean.double().norm() / added.norm()))
            assert ratio == pytest.approx(drawn["snr_db"], abs=0.1)
            if length > 1_000:
                white = added[:length] / added[:length].std()
                assert abs(float((white[1:] * white[:-1]).mean())) < 5 / length**0.5
    assert not torch.equal(next(again)["wav"][:, :50], noisy[0]["wav"][:, :50])


def test_a_second_stage_behind_it_draws_other_noise() -> None:
    def batch(*stages: Stage) -> dict[str, Any]:
        data = {"a": {"wav": speech_like(16_000, 1), "sample_rate": RATE}}
        chain: Any = ss.ShardStream(data, epochs=1).load_audio().on("cpu")
        for stage in stages:
            chain = stage(chain)
        (only,) = ss.Loader(chain)
        return only

    noise, mask = ss.pipes.NoiseAugmentation(snr=0), ss.pipes.MaskedReconstruction(noise_prob=1.0)
    plain, once, twice = (batch(*[noise] * count)["wav"] for count in range(3))
    assert abs(correlation(once - plain, twice - once)) < 0.05
    one, other = (batch(ss.pipes.ExtractFeat(), *[mask] * count) for count in (1, 2))
    seen = ~one["loss_mask"] & ~other["loss_mask"]
    assert abs(correlation(*((made["masked_feat"] - made["feat"])[seen] for made in (one, other)))) < 0.05


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@pytest.mark.parametrize(("kind", "num_samples"), [("logmel80", 200), ("fbank80", 559)])
def test_what_is_too_short_is_listed_as_without(kind: str, num_samples: int) -> None:
    """No frame, or one that has no deviation."""
    long = {key: clip for key, clip in clips().items() if len(clip["wav"]) > 600}
    short = {**long, "short": {"wav": speech_like(num_samples, 0), "sample_rate": RATE}}
    moved = ss.Loader(ss.ShardStream(short, epochs=1).load_audio(dtype="int16").on("cpu").features(kind))
    plain = ss.Loader(ss.ShardStream(short, epochs=1).load_audio().features(kind))
    for loader in (moved, plain):
        assert "short" not in [key for batch in loader for key in batch["key"]]
    assert moved.damaged == plain.damaged
    assert [row["reason"] for row in moved.damaged] == ["too_short"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_state_is_that_of_the_chain_without_it(num_workers: int) -> None:
    moved = ss.Loader(stream().record_draws().on("cpu"), num_workers=num_workers)
    batch = next(iter(moved))
    assert batch["wav"].dtype == torch.float32
    plain = ss.Loader(stream())
    plain.load_state_dict(json.loads(json.dumps(moved.state_dict())))
    assert next(iter(plain))["batch_index"] == 1


def test_sample_by_sample_it_is_the_chain_without_it() -> None:
    moved = list(stream().on("cpu").features("logmel80"))
    for sample in moved:
        expected = extract(sample["wav"], "logmel80", norm="utterance")
        assert torch.equal(sample["feat"], expected)


def test_plain_torch_loader_gets_the_same_batches() -> None:
    chain = stream().on("cpu").features("logmel80")
    for one, other in zip(ss.Loader(chain), torch.utils.data.DataLoader(chain.collate(), batch_size=None), strict=True):
        assert torch.equal(one["feat"], other["feat"])


def test_an_empty_batch_has_the_keys_and_types_of_the_others() -> None:
    loaders = [ss.Loader(stream().on("cpu").features("logmel80").mask("tera"), rank=r, world_size=5) for r in range(5)]
    rounds = [list(loader) for loader in loaders]
    empty = next(batch for batches in rounds for batch in batches if not batch["key"])
    full = rounds[0][0]
    tensors = {"wav", "wav_len", "feat", "feat_len", "masked_feat", "loss_mask", "loss_mask_len"}
    assert tensors <= set(empty)
    assert {name: empty[name].dtype for name in tensors} == {name: full[name].dtype for name in tensors}


def test_one_block_holds_tensors_of_every_type() -> None:
    tensors = {
        "a": torch.arange(5, dtype=torch.int16), "b": torch.zeros(0, 3), "c": torch.tensor([True, False, True]),
        "d": torch.rand(2, 3, dtype=torch.float64), "e": torch.tensor(7),
    }  # fmt: skip
    block, places = _packed(tensors, pin=False)
    for name, tensor in tensors.items():
        assert torch.equal(_unpacked(block, places[name], tensor), tensor)


def test_a_tail_pickles() -> None:
    builder = ss.Loader(stream().on("cpu").features("logmel80"))._builder
    assert pickle.loads(pickle.dumps(builder)).tail.device == torch.device("cpu")


class Shaped(ss.pipes.OnBatch):
    """Tells the shapes in which its draws come back."""

    functional_name = "shaped"

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        return {"number_len": 1 / 3, "one": np.full(1, 1 / 3), "whole": 3}

    def on_batch(self, batch: dict[str, Any], drawn: Drawn) -> dict[str, Any]:
        assert drawn["number_len"].tolist() == drawn.host["number_len"].tolist() == [1 / 3] * 2
        product = batch["wav"] @ batch["wav"].T
        return {
            **batch,
            "product": product,
            "shapes": [list(drawn[name].shape) for name in ("number_len", "one", "whole")],
        }


def test_an_array_of_one_number_is_no_number_and_autocast_is_not_for_data() -> None:
    data = {name: {"wav": speech_like(400, 1), "sample_rate": RATE} for name in "ab"}
    with torch.autocast("cpu", torch.bfloat16):
        batch = next(iter(ss.Loader(Shaped()(ss.ShardStream(data, epochs=1).load_audio().on("cpu")))))
    assert batch["product"].dtype == torch.float32
    assert batch["shapes"] == [[2], [2, 1], [2]]
    assert not [name for name in batch if "/" in name]


class RenamedNormWav(ss.pipes.NormWav):
    functional_name = "renamed_norm_wav"

    def __init__(self) -> None:
        super().__init__()
        self.names = {"wav": "speech"}


def test_what_cannot_stand_behind_is_refused_by_name() -> None:
    with pytest.raises(ChainError, match=r"UnfoldChunkBySec works on samples, and stands behind \.on\(device='cpu'\)"):
        stream().on("cpu").chunk(min_seconds=1.0)
    with pytest.raises(ChainError, match="OnDevice works on samples"):
        stream().on("cpu").on("cpu")
    with pytest.raises(ChainError, match=r"NormWav stands behind .* other names"):
        RenamedNormWav()(ss.pipes.OnDevice(device="cpu")([{"wav": np.zeros(3, np.float32)}]))
    with pytest.raises(ChainError, match=r"mfcc13.* before"):
        stream().on("cpu").features("mfcc13")
    with pytest.raises(UsageError, match="torch knows no such device"):
        stream().on("gpu")
    with pytest.raises(ChainError, match="works on samples"):
        stream().on("cpu").load_audio()
    with pytest.raises(UsageError, match="the audio is at 8000 Hz"):
        list(ss.Loader(ss.ShardStream(clips(), epochs=1).load_audio(sample_rate=8_000).on("cpu").features()))


def test_budget_is_divided_by_what_stages_may_stretch() -> None:
    source = ss.ShardStream({f"c{n}": {"wav": speech_like(16_000, n), "sample_rate": RATE} for n in range(20)},
                            epochs=1, max_batch_seconds=8.0).load_audio()  # fmt: skip
    slowed = source.sox_effects([["speed", (0.8, 1.0)]])
    batches = list(ss.Loader(slowed))
    assert max(batch["wav"].numel() for batch in batches) <= 8.0 * RATE
    assert max(len(batch["key"]) for batch in batches) == 6  # 8 / 1.25 = 6.4 clips of 1 s
    assert sum(len(batch["key"]) for batch in batches) == 20 == len(slowed)
    assert max(len(batch["key"]) for batch in ss.Loader(source)) == 8
