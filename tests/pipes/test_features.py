"""Features: what they are (against torchaudio's), their shapes, and that nothing else moves a bit of them."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.features import (
    DIMS,
    KINDS,
    ExtractFeat,
    cmvn,
    dims_of,
    extract,
    fixed_scale,
    num_frames,
    with_deltas,
)
from s3prl_stream.pipes.kaldi import BLOCK_FRAMES, HOP_SAMPLES, kaldi_fbank, kaldi_mfcc
from s3prl_stream.pipes.log_mel import log_mel, log_spectrogram


def speech_like(num_samples: int, seed: int = 0) -> Tensor:
    """A waveform of coloured noise, float32 [T]."""
    rng = np.random.default_rng(seed)
    wav = np.convolve(rng.standard_normal(num_samples + 7), np.hanning(8) / 4, mode="valid")
    return torch.from_numpy((0.05 * wav).astype(np.float32))


def as_published(kind: str, num_samples: int) -> int:
    """Frames by the formula, written out here once more."""
    if kind in ("logmel80", "linear201"):
        return 1 + num_samples // 160 if num_samples > 200 else 0
    return 1 + (num_samples - 400) // 160 if num_samples >= 400 else 0


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_counted_exactly(kind: str) -> None:
    """Every length is counted; those around each hop, and some between them, are extracted too."""
    counted = range(6500)
    assert [num_frames(kind, length) for length in counted] == [as_published(kind, length) for length in counted]
    rest = 0 if kind in ("logmel80", "linear201") else 400
    hops = [*range(40), 997] if "_" not in kind and kind != "mfcc13" else [0, 1, 2, 10, 11, 37]
    around = {max(hop * 160 + rest + near, 0) for hop in hops for near in (-1, 0, 1)}
    wav = speech_like(max(around))
    for length in sorted({*around, 200, 201, *range(0, 2001, 37)}):
        expected = as_published(kind, length)
        if expected:
            feat_FD = extract(wav[:length], kind, norm="none")
            assert (feat_FD.shape, feat_FD.dtype) == ((expected, DIMS[kind]), torch.float32), length
            continue
        with pytest.raises(SampleError) as error:
            extract(wav[:length], kind, norm="none")
        assert error.value.reason == "too_short"


def test_log_mel_is_the_definition() -> None:
    """Frame 10 by a direct sum in float64; filters from torchaudio."""
    torchaudio = pytest.importorskip("torchaudio")
    filters = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 80, 16_000).double()
    wav = speech_like(16_000).double()
    time = torch.arange(400, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * torch.pi * time / 400)
    frame = wav[10 * 160 - 200 : 10 * 160 + 200] * window
    angle = 2 * torch.pi * torch.outer(torch.arange(201, dtype=torch.float64), time) / 400
    power = (frame * angle.cos()).sum(1) ** 2 + (frame * angle.sin()).sum(1) ** 2
    expected = (power @ filters + 1e-10).log().float()
    torch.testing.assert_close(log_mel(wav.float())[10], expected, atol=1e-4, rtol=0)


def test_a_tone_lands_in_its_filter() -> None:
    tone = torch.sin(2 * torch.pi * 1000.0 * torch.arange(16_000) / 16_000)
    edges = 2595 * np.log10(1 + 8000 / 700) / 81 * np.arange(82)
    centres = 700 * (10 ** (edges / 2595) - 1)
    assert int(log_mel(tone)[50].argmax()) == int(np.abs(centres[1:-1] - 1000).argmin())


def assert_fbank_is_torchaudios(wav: Tensor, window: str) -> None:
    """To a ten-thousandth: from torchaudio in float64 in all bins; from its float32 in those within 43 dB (10 nats) of
    their frame's loudest. Below, its float32 is no nearer to its own float64.
    """
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    found_FD = kaldi_fbank(wav, window=window)
    exact_FD, rounded_FD = (
        kaldi.fbank(wav[None].to(dtype), num_mel_bins=80, window_type=window, dither=0.0)
        for dtype in (torch.float64, torch.float32)
    )
    torch.testing.assert_close(found_FD, exact_FD.float(), atol=1e-5, rtol=0)
    loud_FD = found_FD > found_FD.max(dim=1, keepdim=True).values - 10.0
    torch.testing.assert_close(found_FD[loud_FD], rounded_FD[loud_FD], atol=1e-4, rtol=0)
    assert bool(((found_FD - rounded_FD).abs() <= (exact_FD - rounded_FD).abs() + 1e-5).all())
    assert loud_FD.float().mean() > 0.8


@pytest.mark.parametrize("window", ["hamming", "povey"])
def test_fbank_is_torchaudios(window: str) -> None:
    wav = speech_like(32_000)
    assert_fbank_is_torchaudios(wav, window)
    assert_fbank_is_torchaudios(torch.cat([wav[:8000], torch.zeros(2000), 1e-4 * wav[8000:12000]]), window)


def test_mfcc_is_kaldis() -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    wav = speech_like(8000)
    expected = kaldi.mfcc(wav[None].double(), dither=0.0)
    torch.testing.assert_close(kaldi_mfcc(wav), expected.float(), atol=1e-4, rtol=0)


def test_a_clip_is_computed_in_pieces_to_the_same_bits() -> None:
    wav = speech_like((BLOCK_FRAMES + 100) * HOP_SAMPLES)
    for kind, centre in (("logmel80", 2), ("linear201", 2), ("fbank80", 0), ("mfcc13", 0)):
        whole = extract(wav, kind, norm="none")
        first = BLOCK_FRAMES - 20
        part = extract(wav[(first - centre) * HOP_SAMPLES :], kind, norm="none")
        assert torch.equal(whole[first : first + 60], part[centre : centre + 60])


def test_the_spectrogram_is_that_below_the_log_mel() -> None:
    torchaudio = pytest.importorskip("torchaudio")
    wav = speech_like(8000)
    power_DF = torchaudio.transforms.Spectrogram(n_fft=400, hop_length=160)(wav)
    found_FD, heard_FD = log_spectrogram(wav), power_DF.T > 1e-4  # below it, float32's rounding shows
    assert heard_FD.float().mean() > 0.5
    torch.testing.assert_close(found_FD[heard_FD], (power_DF + 1e-10).log().T[heard_FD], atol=1e-4, rtol=0)
    assert (found_FD.exp() - power_DF.T).abs().max() < 1e-6 * power_DF.max()
    filters = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 80, 16_000)
    mel_FD = (log_spectrogram(wav).exp() - 1e-10) @ filters
    torch.testing.assert_close(log_mel(wav), (mel_FD + 1e-10).log(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 50])
def test_deltas_are_the_regression_over_five_frames(num_frames: int) -> None:
    functional = pytest.importorskip("torchaudio.functional")
    feat_FD = extract(speech_like(8000), "fbank80", norm="none")[:num_frames]
    expected = [feat_FD.T]
    for _ in range(2):
        expected.append(functional.compute_deltas(expected[-1][None])[0])
    torch.testing.assert_close(with_deltas(feat_FD, 2), torch.cat(expected).T, atol=1e-5, rtol=0)
    slope = torch.arange(9.0)[:, None] * torch.tensor([2.0, -3.0])
    assert with_deltas(slope, 2)[4].tolist() == [8.0, -12.0, 2.0, -3.0, 0.0, 0.0]


def test_dimensions() -> None:
    wav = speech_like(8000)
    for kind in KINDS:
        for deltas in range(3):
            assert extract(wav, kind, norm="utterance", deltas=deltas).shape[1] == dims_of(kind, deltas)
    assert dims_of("fbank80_povey", 2) == 240
    with pytest.raises(UsageError, match="logmel80, linear201"):
        dims_of("mel")


def test_two_kinds_stand_beside_each_other() -> None:
    sample = {"key": "a", "wav": speech_like(8000), "sample_rate": 16_000}
    chain = ExtractFeat()([sample]).features("linear201", feat_name="target_feat")
    (out,) = chain
    assert (out["feat"].shape, out["target_feat"].shape) == ((51, 80), (51, 201))
    assert {"feat", "target_feat"} <= set(chain.known_keys() or ())


@pytest.mark.parametrize("kind", KINDS)
def test_cmvn_of_every_kind(kind: str) -> None:
    feat_FD = extract(speech_like(16_000), kind, norm="utterance", deltas=1).double()
    torch.testing.assert_close(feat_FD.mean(0), torch.zeros(feat_FD.shape[1]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(feat_FD.var(0), torch.ones(feat_FD.shape[1]).double(), atol=1e-5, rtol=0)


def test_silence_becomes_zeros_not_noise() -> None:
    assert cmvn(log_mel(torch.zeros(16_000))).abs().max() < 1e-3


def test_the_fixed_scale_keeps_differences_between_utterances_and_leaves_silence_constant() -> None:
    log_mel_FD = torch.tensor([[-23.0, -14.0, -6.0, 2.0]])
    assert fixed_scale(log_mel_FD).tolist() == [[-2.0, -2.0, 0.0, 2.0]]
    quiet, loud = speech_like(16_000) * 0.1, speech_like(16_000)
    difference_FD = extract(loud, "logmel80", norm="fixed") - extract(quiet, "logmel80", norm="fixed")
    heard_FD = log_mel(quiet) > -13.0
    assert heard_FD.float().mean() > 0.5
    torch.testing.assert_close(
        difference_FD[heard_FD], torch.full_like(difference_FD[heard_FD], 2 * np.log(10) / 4), atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("kind", ["fbank80", "fbank80_povey"])
def test_the_fixed_scale_of_the_filter_bank_and_its_slopes(kind: str) -> None:
    """Slopes have scales of their own, so that a loss over all of them does not forget them."""
    plain_FD = extract(speech_like(16_000), kind, norm="none", deltas=2)
    scaled_FD = extract(speech_like(16_000), kind, norm="fixed", deltas=2)
    torch.testing.assert_close(scaled_FD[:, :80], (plain_FD[:, :80].clamp(min=-14.0) + 6.0) / 4.0)
    torch.testing.assert_close(scaled_FD[:, 80:160], plain_FD[:, 80:160] / 0.75)
    torch.testing.assert_close(scaled_FD[:, 160:], plain_FD[:, 160:] / 0.3)


@pytest.mark.parametrize("kind", ["logmel80", "fbank80", "fbank80_povey"])
def test_on_the_fixed_scale_speech_is_of_the_order_of_one(kind: str, real_data: Path) -> None:
    samples, _ = soundfile.read(next(iter(sorted((real_data / "LibriSpeech").rglob("*.flac")))), dtype="float32")
    level = np.sqrt(np.mean(np.square(samples)))
    feat_FD = extract(torch.from_numpy(samples * (10 ** (-25 / 20) / level)), kind, norm="fixed", deltas=2)
    for part_FD in feat_FD.split(80, dim=1):
        assert part_FD.mean().abs() < 0.5
        assert 0.6 < part_FD.std() < 1.5


def test_one_frame_has_no_deviation() -> None:
    with pytest.raises(SampleError) as error:
        extract(torch.zeros(559), "fbank80", norm="utterance")
    assert error.value.reason == "too_short"


@pytest.mark.parametrize("kind", KINDS)
def test_the_stage_keeps_the_waveform_and_adds_feat(kind: str) -> None:
    sample = {"key": "a", "wav": speech_like(8000), "sample_rate": 16_000}
    (out,) = ExtractFeat(kind=kind)([sample])
    assert torch.equal(out["wav"], sample["wav"])
    assert torch.equal(out["feat"], extract(sample["wav"], kind, norm="utterance"))


def test_another_rate_is_refused() -> None:
    with pytest.raises(UsageError, match="8000 Hz"):
        list(ExtractFeat()([{"key": "a", "wav": speech_like(8000), "sample_rate": 8000}]))


def digests(num_threads: int) -> list[str]:
    """Hashes of features of many lengths, computed with this many threads."""
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(num_threads)
    for num_samples in [201, 400, 4000, 12_345, 48_000, 160_001, 240_000]:
        for kind in ("logmel80", "fbank80"):
            if kind == "logmel80" or num_samples >= 560:
                feat_FD = extract(speech_like(num_samples), kind, norm="utterance")
                found.append(hashlib.sha256(feat_FD.numpy().tobytes()).hexdigest())
    torch.set_num_threads(before)
    return found


def test_features_do_not_depend_on_threads_or_process(child: ProcessPoolExecutor) -> None:
    assert digests(2) == digests(1) == child.submit(digests, 1).result()
