from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from full_disk import files_of_at_most

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.noise_bank import NoiseBank
from s3prl_stream.pipes.record_draws import RecordDraws
from s3prl_stream.pipes.reverberate import Reverberation
from s3prl_stream.pipes.rooms import DIRECT_AT, RirBank, reverberated
from s3prl_stream.shards.claims import new_owner

RATE = 16_000


def write(path: Path, wav: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, rate, subtype="PCM_16")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        write(tmp_path / "noise" / f"sub{number}" / f"n{number}.wav", 0.1 * rng.standard_normal(RATE * (number + 1)))
    return tmp_path / "noise"


def test_a_bank_holds_the_clips_of_a_folder_behind_each_other(folder: Path, tmp_path: Path) -> None:
    bank = NoiseBank(folder, cache=tmp_path / "cache")
    assert (len(bank), bank.seconds) == (3, 6.0)
    expected, _ = soundfile.read(folder / "sub1" / "n1.wav", dtype="int16")
    assert np.array_equal(bank.clip(1), expected)
    assert isinstance(bank.timeline, np.memmap)


def test_it_is_made_once_and_its_fingerprint_follows_from_its_samples(folder: Path, tmp_path: Path) -> None:
    bank = NoiseBank(folder, cache=tmp_path / "cache")
    (made,) = (tmp_path / "cache").glob("*.int16")
    before = made.stat().st_mtime_ns
    again = NoiseBank(folder, cache=tmp_path / "cache")
    assert made.stat().st_mtime_ns == before
    assert again.fingerprint == bank.fingerprint == NoiseBank(folder, cache=tmp_path / "other").fingerprint
    write(folder / "sub0" / "n0.wav", np.full(RATE, 0.25))
    assert NoiseBank(folder, cache=tmp_path / "cache").fingerprint != bank.fingerprint
    assert (
        len(list((tmp_path / "cache").iterdir())) == 4
    )  # two timelines, two of what is told of them, nothing half made


def test_what_killed_processes_have_left_half_made_is_removed(folder: Path, tmp_path: Path) -> None:
    """A bank of ten hours is a gigabyte; what another process may be writing stays."""
    (tmp_path / "cache").mkdir()
    host, boot, pids, _, token = new_owner().split(".")
    with subprocess.Popen(["true"]) as ended:
        pass
    dead, alive = (
        tmp_path / "cache" / f"0f.int16.{host}.{boot}.{pids}.{pid}.{token}" for pid in (ended.pid, os.getpid())
    )
    for left in (dead, alive):
        left.touch()
    bank = NoiseBank(folder, cache=tmp_path / "cache")
    assert not dead.exists()
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".int16", ".json", alive.suffix}
    assert len(bank)


def test_a_cache_folder_without_room_is_told(folder: Path, tmp_path: Path) -> None:
    with files_of_at_most(1000), pytest.raises(UsageError, match=r"int16: cannot be written \(File too large\)"):
        NoiseBank(folder, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_each_kind_and_rate_of_a_folder_is_a_file_of_its_own(folder: Path, tmp_path: Path) -> None:
    write(folder / "padded.wav", np.concatenate([np.full(RATE, 0.1), np.zeros(RATE)]))
    seconds = [
        kind(folder, sample_rate=rate, cache=tmp_path / "cache").seconds
        for kind, rate in ((NoiseBank, RATE), (RirBank, RATE), (NoiseBank, 8_000))
    ]
    assert seconds[:2] == [7.0, 8.0]
    assert seconds[2] == pytest.approx(7.0, abs=0.1)  # resampling rings into the silence


def test_the_fingerprint_is_also_of_where_clips_begin(tmp_path: Path) -> None:
    wav = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    for at in (4_000, 9_000):
        write(tmp_path / f"{at}" / "a.wav", wav[:at])
        write(tmp_path / f"{at}" / "b.wav", wav[at:])
    one, other = (RirBank(tmp_path / f"{at}", cache=tmp_path / "cache") for at in (4_000, 9_000))
    assert np.array_equal(one.timeline, other.timeline)
    assert one.fingerprint != other.fingerprint


def test_a_bank_pickles_as_its_path(folder: Path, tmp_path: Path) -> None:
    bank = NoiseBank(folder, cache=tmp_path / "cache")
    pickled = pickle.dumps(bank)
    assert len(pickled) < 1_000
    again = pickle.loads(pickled)
    assert again.fingerprint == bank.fingerprint
    assert np.array_equal(again.draw(np.random.default_rng(1), 5_000), bank.draw(np.random.default_rng(1), 5_000))


def test_stretches_are_uniform_on_the_timeline_and_go_round(folder: Path, tmp_path: Path) -> None:
    bank = NoiseBank(folder, cache=tmp_path / "cache")
    rng = np.random.default_rng(0)
    doubled = np.concatenate([bank.timeline, bank.timeline])
    firsts = []
    for _ in range(300):
        stretch = bank.draw(rng, 2_000)
        assert stretch.dtype == np.int16
        first = next(
            at
            for at in np.flatnonzero(bank.timeline == stretch[0])
            if np.array_equal(doubled[at : at + 2_000], stretch)
        )
        firsts.append(first / len(bank.timeline))
    assert np.mean(firsts) == pytest.approx(0.5, abs=5 / np.sqrt(12 * 300))
    assert np.array_equal(np.sort(bank.draw(rng, len(bank.timeline))), np.sort(bank.timeline))
    assert len(bank.draw(rng, 3 * len(bank.timeline))) == 3 * len(bank.timeline)
    assert len(bank.draw(rng, 0)) == 0


def test_voices_of_a_babble_are_equally_loud(tmp_path: Path) -> None:
    hertz = (500, 1_500, 2_500)
    for number, (tone, level) in enumerate(zip(hertz, (0.01, 0.1, 0.9), strict=True)):
        write(tmp_path / "v" / f"{number}.wav", level * np.sin(2 * np.pi * tone * np.arange(RATE) / RATE))
    bank = NoiseBank(tmp_path / "v", cache=tmp_path / "cache")

    class Places:
        def __init__(self) -> None:
            self.places = iter((2_000, RATE + 2_000, 2 * RATE + 2_000))

        def integers(self, _: int) -> int:
            return next(self.places)

    mixed = bank.draw(Places(), 8_000, voices=3)  # type: ignore[arg-type]
    spectrum = np.abs(np.fft.rfft(mixed))
    levels = [spectrum[round(tone * 8_000 / RATE)] for tone in hertz]
    assert levels == pytest.approx([levels[0]] * 3, rel=0.02)
    assert np.abs(mixed.astype(int)).max() == 32767


def test_digital_silence_and_damage_are_left_out_and_told(folder: Path, tmp_path: Path) -> None:
    wav = np.zeros(3 * RATE)
    wav[RATE : RATE + 8_000] = 0.1
    write(folder / "padded.wav", wav)
    write(folder / "silent.wav", np.zeros(RATE))
    (folder / "broken.wav").write_bytes(b"RIFF, but no more of it")
    with pytest.warns(UserWarning, match=r"2 of 6 clips cannot be used"):
        bank = NoiseBank(folder, cache=tmp_path / "cache")
    assert {row["key"]: row["reason"] for row in bank.damaged} == {"broken.wav": "decode", "silent.wav": "silent"}
    assert bank.seconds == 6.5
    assert (
        NoiseBank(folder, cache=tmp_path / "cache").damaged == bank.damaged
    )  # told again when it is taken from the cache
    write(tmp_path / "s" / "silent.wav", np.zeros(RATE))
    with pytest.raises(UsageError, match="none of 1 clips"):
        NoiseBank(tmp_path / "s", cache=tmp_path / "cache")


def test_it_is_bounded_and_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="only the first 0.001 h"):
        bank = NoiseBank(folder, max_hours=0.001, cache=tmp_path / "cache")
    assert bank.seconds == 3.0
    assert NoiseBank(folder, max_hours=math.inf, cache=tmp_path / "cache").seconds > 3.0
    with pytest.warns(UserWarning, match="only the first"), pytest.raises(UsageError, match="1e-06 is too little"):
        NoiseBank(folder, max_hours=1e-6, cache=tmp_path / "cache")


def test_a_packed_set_is_a_source_at_any_rate(sample_set: Path, tmp_path: Path) -> None:
    shards = ss.open_shards(sample_set)
    bank = NoiseBank(shards, sample_rate=8_000, cache=tmp_path / "cache")
    again = NoiseBank(sample_set, sample_rate=8_000, cache=tmp_path / "cache2")
    assert len(bank) == len(shards)
    assert bank.fingerprint == again.fingerprint
    assert bank.seconds == pytest.approx(shards.hours * 3600, rel=0.02)


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        NoiseBank(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no audio files"):
        NoiseBank(tmp_path / "empty")
    with pytest.raises(UsageError, match="NoiseBank: max_hours=0 is no number above 0"):
        NoiseBank(tmp_path, max_hours=0)


def test_a_file_in_the_cache_that_was_cut_is_told(folder: Path, tmp_path: Path) -> None:
    NoiseBank(folder, cache=tmp_path / "cache")
    (made,) = (tmp_path / "cache").glob("*.int16")
    made.write_bytes(made.read_bytes()[:-2])
    with pytest.raises(UsageError, match="remove this file"):
        NoiseBank(folder, cache=tmp_path / "cache")
    told = json.loads(made.with_suffix(".json").read_text())
    assert told["starts"][-1] == 6 * RATE
    made.unlink()
    assert NoiseBank(folder, cache=tmp_path / "cache").seconds == 6.0
    made.with_suffix(".json").write_text("{")
    with pytest.raises(UsageError, match=r"\.json: cannot be read \(not JSON: .*\)\. Remove this file"):
        NoiseBank(folder, cache=tmp_path / "cache")


def test_measured_responses_are_aligned(tmp_path: Path) -> None:
    response = np.zeros(RATE)
    response[300] = -0.5
    response[301:9_000] = 0.05 * np.random.default_rng(0).standard_normal(8_699)
    write(tmp_path / "rirs" / "one.wav", response)
    late = np.zeros(100)
    late[3] = 0.9
    write(tmp_path / "rirs" / "two.wav", late)
    bank = RirBank(tmp_path / "rirs", cache=tmp_path / "cache")
    drawn = {len(one): one for one in (bank.draw(np.random.default_rng(seed), max_seconds=0.25) for seed in range(12))}
    assert set(drawn) == {DIRECT_AT + 4_000, DIRECT_AT + 97}
    for one in drawn.values():
        assert int(np.abs(one).argmax()) == DIRECT_AT
        assert one[DIRECT_AT] == 1.0
    assert drawn[DIRECT_AT + 4_000][DIRECT_AT + 1] == pytest.approx(response[301] / -0.5, abs=1e-3)
    samples = [{"wav": np.ones(5_000, np.float32), "sample_rate": RATE} for _ in range(12)]
    stage = Reverberation(rooms=bank, prob=0.8)
    for sample in stage(RecordDraws()(samples)):
        noted = sample["draws"]["reverberate"]
        assert noted.keys() == {"applied", "rir"}
        assert (noted["rir"] in (0, 1)) is noted["applied"]
        if noted["applied"]:
            response = bank.response(noted["rir"], max_seconds=stage.max_seconds)
            assert np.array_equal(sample["wav"], reverberated(samples[0]["wav"], response))
