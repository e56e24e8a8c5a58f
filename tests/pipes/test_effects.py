"""Sox's effects: beside the program where it is installed, and by what they promise everywhere."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes import EncodeText, LoadAudio
from s3prl_stream.pipes.effects import apply_effects, check_effects, needs_rng, stretch_of
from s3prl_stream.pipes.sox_effects import SoxEffects
from s3prl_stream.pipes.tempo import stretch

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE, level: float = 0.2) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def pitch_hz(wav: np.ndarray, rate: int = RATE) -> float:
    """The strongest frequency, from the middle of the waveform, between bins by a parabola."""
    middle = wav[len(wav) // 4 : -len(wav) // 4]
    spectrum = np.log(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) + 1e-12)
    top = int(np.argmax(spectrum))
    before, at, after = spectrum[top - 1 : top + 2]
    return (top + 0.5 * (before - after) / (before - 2 * at + after)) * rate / len(middle)


def gain_db(effect: list[Any], hertz: float) -> float:
    """What an effect does to a tone, after its beginning."""
    wav = tone(hertz)
    changed, _ = apply_effects(wav, RATE, [effect])
    return 20 * math.log10(np.std(changed[RATE // 2 :]) / np.std(wav[RATE // 2 :]))


COMPARED = [
    (["gain", "-3.0"], 115), (["gain", "-n", "-1"], 115), (["norm", "-3"], 115), (["gain", "20"], 115),
    (["lowpass", "1000"], 115), (["lowpass", "-1", "1k"], 115), (["lowpass", "-2", "500", "300h"], 115),
    (["highpass", "300"], 115), (["highpass", "-1", "300"], 115), (["highpass", "20"], 115),
    (["bandpass", "1000", "200h"], 115), (["bandpass", "-c", "1000", "2o"], 115), (["bandreject", "1000", "200"], 115),
    (["band", "1000", "300"], 115), (["band", "-n", "1000", "300"], 115), (["band", "1000"], 115),
    (["allpass", "1000", "300h"], 115), (["equalizer", "1000", "1o", "6"], 115),
    (["equalizer", "2k", "0.7q", "-6"], 115),
    (["treble", "5"], 115), (["bass", "-5"], 115), (["treble", "-6", "4k", "0.8s"], 115),
    (["bass", "6", "200", "1o"], 115),
    (["trim", "0.5", "1.25"], 115), (["silence", "1", "0.1", "0.1%"], 115), (["silence", "1", "0.05", "-30d"], 115),
    (["reverse"], 115), (["tempo", "0.9"], 115), (["tempo", "1.1"], 115), (["tempo", "1.5", "60", "10", "8"], 115),
    (["speed", "1.1"], 65), (["speed", "-100c"], 65), (["rate", "8000"], 65),
]  # fmt: skip
"""Effects, and how many dB below the signal their difference from sox must be."""


@pytest.mark.skipif(shutil.which("sox") is None, reason="the program sox is not installed (Debian package sox)")
def test_effects_are_those_of_sox(sample_set: Path, tmp_path: Path) -> None:
    import s3prl_stream as ss

    (wav, *_) = (sample["wav"].numpy() for sample in ss.ShardStream(sample_set, epochs=1).load_audio())
    soundfile.write(tmp_path / "in.wav", wav, RATE, subtype="FLOAT")
    for effect, least_db in COMPARED:
        command = ["sox", "-V1", "-D", tmp_path / "in.wav", "-e", "floating-point", "-b", "32", tmp_path / "out.wav"]
        subprocess.run([*command, *effect], check=True)
        expected, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
        found, _ = apply_effects(wav, RATE, [effect])
        assert abs(len(found) - len(expected)) <= 1, effect  # they round a half differently
        shorter = min(len(found), len(expected))
        difference = float(np.std(found[:shorter] - expected[:shorter]))
        assert difference <= 10 ** (-least_db / 20) * np.std(expected), (effect, difference)


@pytest.mark.parametrize("cents", [-700, -200, 1, 350, 1200])
def test_pitch_moves_by_its_cents_and_keeps_the_length(cents: int) -> None:
    wav = tone(440.0)
    shifted, rate = apply_effects(wav, RATE, [["pitch", str(cents)]])
    assert (len(shifted), rate) == (len(wav), RATE)
    assert 1200 * math.log2(pitch_hz(shifted) / 440.0) == pytest.approx(cents, abs=5)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_tempo_changes_the_length_and_keeps_the_pitch(factor: float) -> None:
    wav = tone(440.0)
    changed, _ = apply_effects(wav, RATE, [["tempo", factor]])
    assert len(changed) == round(len(wav) / factor)
    assert 1200 * math.log2(pitch_hz(changed) / 440.0) == pytest.approx(0, abs=5)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_speed_changes_both(factor: float) -> None:
    changed, rate = apply_effects(tone(440.0), RATE, [["speed", factor]])
    assert (len(changed), rate) == (round(RATE / factor), RATE)
    assert pitch_hz(changed) / 440.0 == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize("num_frames", [0, 1, 2, 100, 799, 1_312, 1_313])
def test_every_length_comes_out_as_promised(num_frames: int) -> None:
    wav = np.linspace(-0.5, 0.5, num_frames, dtype=np.float32)
    for channels in (wav, np.stack([wav, -wav])):
        for factor in (0.7, 1.3):
            assert stretch(channels, RATE, factor).shape == (*channels.shape[:-1], round(num_frames / factor))
            for name in ("speed", "tempo"):
                changed, _ = apply_effects(channels, RATE, [[name, factor]])
                assert changed.shape == (*channels.shape[:-1], round(num_frames / factor))
                assert stretch_of([[name, factor]]) == pytest.approx(1 / factor)
        pitched, _ = apply_effects(channels, RATE, [["pitch", "-300"], ["equalizer", "1k", "1q", "3"], ["norm"]])
        assert pitched.shape == channels.shape
        assert np.isfinite(pitched).all()


def test_filters_do_to_tones_what_their_arguments_say() -> None:
    assert gain_db(["lowpass", "1000"], 1000) == pytest.approx(-3.01, abs=0.05)
    assert gain_db(["lowpass", "1000"], 2000) == pytest.approx(-12.6, abs=0.6)
    assert gain_db(["lowpass", "-1", "500"], 500) == pytest.approx(-3.0, abs=0.3)
    assert gain_db(["highpass", "1000"], 1000) == pytest.approx(-3.01, abs=0.05)
    assert gain_db(["equalizer", "1000", "1q", "6"], 1000) == pytest.approx(6.0, abs=0.02)
    assert gain_db(["bandreject", "1000", "100h"], 1000) < -60
    assert gain_db(["bandpass", "1000", "200h"], 1000) == pytest.approx(0.0, abs=0.02)
    assert gain_db(["bandpass", "1000", "200h"], 1105) == pytest.approx(-3.0, abs=0.15)
    assert gain_db(["treble", "6", "2k"], 7000) == pytest.approx(6.0, abs=0.3)
    assert gain_db(["bass", "-6", "300"], 30) == pytest.approx(-6.0, abs=0.3)
    assert gain_db(["allpass", "1000", "1q"], 700) == pytest.approx(0.0, abs=0.02)
    assert gain_db(["gain", "-3.0"], 700) == pytest.approx(-3.0, abs=1e-4)


def test_dither_is_triangular_white_and_by_its_generator() -> None:
    wav = np.full(200_000, 0.1, np.float32)
    (one, _), (again, _) = (apply_effects(wav, RATE, [["dither"]], np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one, again)
    steps = (one.astype(np.float64) - wav) * 32768
    assert np.array_equal(one * 32768, np.rint(one * 32768))
    assert steps.mean() == pytest.approx(0.0, abs=0.01)
    assert steps.var() == pytest.approx(2 / 12 + 1 / 12, rel=0.02)  # two uniforms and the rounding
    assert needs_rng([["gain", "1"], ["dither"]])
    with pytest.raises(UsageError, match="needs an rng"):
        apply_effects(wav, RATE, [["dither"]])


def test_input_is_not_changed_and_the_voxceleb_recipe_of_s3prl_works() -> None:
    quiet = np.zeros(RATE, np.float32)
    stereo = np.stack([np.concatenate([quiet, tone(300), quiet])] * 2)
    before = stereo.copy()
    trim = ["silence", "1", "0.1", "0.1%"]
    recipe = [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"], trim, ["reverse"], trim, ["reverse"]]
    voiced, rate = apply_effects(stereo, RATE, recipe)
    assert np.array_equal(stereo, before)
    assert rate == RATE
    assert voiced.shape[-1] == pytest.approx(RATE, abs=0.05 * RATE)


@pytest.mark.parametrize(
    ("effects", "message"),
    [
        ([["flanger"]], "'flanger' is not known; there are allpass, band, .*treble, trim"),
        ([["reverb", "50"]], r"\.reverberate\(\)"),
        ([["gain", "-l", "3"]], r"expected \[-n\] gain-dB"),
        ([["gain", "loud"]], r"\['gain', 'loud'\]: expected"),
        ([["speed"]], "expected factor"),
        ([["speed", "0"]], r"0\.1 to 10"),
        ([["tempo", "nan"]], "finite"),
        ([["lowpass"]], "expected .*frequency"),
        ([["bandpass", "1000"]], "expected .*width"),
        ([["equalizer", "1000", "1x", "3"]], "expected"),
        ([["silence", "-1", "0.1", "1%"]], "above_periods"),
        (["gain", "-3"], "is not a list of a name and its arguments"),
        ([["gain", "-3"], 5], "5 is not a list of a name and its arguments"),
        (7, "no list of lists"),
        ("gain", "no list of lists"),
        ([["gain", ("a", "b")]], "neither a number"),
        ([["pitch", (200, -200)]], "neither a number"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(effects: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SoxEffects(effects=effects)


def test_frequencies_above_the_half_of_the_rate_are_refused() -> None:
    check_effects([["lowpass", "9k"]])
    with pytest.raises(UsageError, match="9000 Hz: must be below half the sample rate, 8000 Hz"):
        apply_effects(tone(100), RATE, [["lowpass", "9k"]])


# ---- the stage ---------------------------------------------------------------------------------------


def test_ranges_are_drawn_for_each_waveform_and_recorded() -> None:
    samples = [{"wav": tone(440.0, 0.5), "sample_rate": RATE} for _ in range(60)]
    stage = SoxEffects(effects=[["speed", (0.8, 1.25)], ["gain", "-3"]], prob=0.7)
    assert stage.stretch == pytest.approx(1.25)
    from s3prl_stream.pipes.record_draws import RecordDraws

    factors = []
    for sample in stage(RecordDraws()(samples)):
        drawn = sample["draws"]["sox_effects"]
        if not drawn["applied"]:
            assert np.array_equal(sample["wav"].numpy(), samples[0]["wav"])
            continue
        (name, factor), gain = drawn["effects"]
        assert (name, gain) == ("speed", ["gain", "-3"])
        assert len(sample["wav"]) == round(len(samples[0]["wav"]) / factor)
        factors.append(factor)
    assert len(factors) == pytest.approx(42, abs=5 * math.sqrt(60 * 0.21))
    assert 0.8 <= min(factors) < 0.87
    assert 1.17 < max(factors) <= 1.25


def test_segments_and_text_follow_what_is_done_to_time() -> None:
    sample = {
        "wav": tone(440.0), "sample_rate": RATE, "text": "A", "segments": [{"start": 0.2, "end": 0.5, "label": "x"}],
    }  # fmt: skip
    (slow,) = SoxEffects(effects=[["tempo", 0.5]])([sample])
    assert slow["segments"] == [{"start": 0.4, "end": 1.0, "label": "x"}]
    assert slow["text"] == "A"
    assert sample["segments"][0]["start"] == 0.2
    for cutting in (SoxEffects(effects=[["trim", "0.5"]]), LoadAudio(sox_effects=[["trim", "0.5"]])):
        (cut,) = cutting(EncodeText(train_tokenizer=True)([sample]))
        assert not {"text", "tokens", "segments"} & set(cut)
    (reversed_,) = SoxEffects(effects=[["reverse"]])([sample])
    assert "segments" not in reversed_
    assert reversed_["text"] == "A"
