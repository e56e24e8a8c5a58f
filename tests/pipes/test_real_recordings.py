"""Real recordings through every stage that needs no noise: no NaN, no wrong length, damage listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import s3prl_stream as ss
from s3prl_stream.pipes import Lexicon
from s3prl_stream.pipes.features import KINDS, num_frames
from s3prl_stream.pipes.stage import Source
from tests.pipes.test_features import assert_fbank_is_torchaudios

DAMAGED = {"cut_in_half", "no_frames", "text_not_audio", "zero_bytes"}
"""Of the folder `odd`."""
NO_FRAME = {"one_sample"}
"""Too short for features."""
SUFFIXES = (".flac", ".wav", ".ogg", ".mp3", ".opus")
FOLDERS = ("LibriSpeech", "kathleen", "fsdd", "barista", "wakewords", "esc10", "yesno", "diarization")


@pytest.fixture(scope="module")
def recordings(real_data: Path) -> dict[str, dict[str, Any]]:
    """All of `odd`, four of each other folder, and what their headers say of their length (`frames_at_16k`)."""
    paths = sorted(path for path in (real_data / "odd").iterdir() if path.suffix != ".md")
    for folder in FOLDERS:
        found = sorted(path for suffix in ("flac", "wav", "ogg") for path in (real_data / folder).rglob(f"*.{suffix}"))
        paths += found[:: max(len(found) // 4, 1)][:4]
    return {
        f"{path.parent.name}/{path.stem}": {
            "wav_path": str(path),
            "text": f"RECORDING {number}",
            "label": path.parent.name,
            "labels": [path.parent.name, path.suffix],
            "segments": {"long": [(-1.0, 99.0)], "short": [(0.25, 0.5)]},
        }
        for number, path in enumerate(paths)
    }


def length_at_16k(path: str) -> int:
    with soundfile.SoundFile(path) as sound:
        return int(sound.frames * 16_000 / sound.samplerate + 0.5)


def run(data: Any, chain: Callable[[Source], Source]) -> tuple[list[dict[str, Any]], set[str]]:
    """(rows as dicts of values without padding, names of the files listed as damaged).

    What follows a row is checked to be padding, and nothing in it to be NaN or infinite.
    """
    loader = ss.Loader(chain(ss.ShardStream(data, epochs=1, max_batch_seconds=120.0)))
    rows = []
    for batch in loader:
        for number, key in enumerate(batch["key"]):
            row = {"key": key}
            for name, value in batch.items():
                if name == "key" or not isinstance(value, torch.Tensor | list) or name.endswith("_len"):
                    continue
                row[name] = value[number]
                if f"{name}_len" in batch:
                    length = int(batch[f"{name}_len"][number])
                    assert not value[number][length:].any(), name
                    row[name] = value[number][:length]
                    assert not value.is_floating_point() or bool(torch.isfinite(row[name]).all()), name
            rows.append(row)
    return rows, {listed["key"].rpartition("/")[2] for listed in loader.damaged}


def test_every_recording_is_loaded_whole_or_listed(recordings: dict[str, dict[str, Any]]) -> None:
    rows, damaged = run(recordings, lambda stream: stream.load_audio().norm_wav())
    assert damaged >= DAMAGED
    assert {row["key"] for row in rows} == {key for key in recordings if key.rpartition("/")[2] not in damaged}
    for row in rows:
        assert len(row["wav"]) == length_at_16k(recordings[row["key"]]["wav_path"]), row["key"]
        level = float(row["wav"].double().square().mean().sqrt())
        assert row["key"] == "odd/silence" or level == pytest.approx(10 ** (-25 / 20), rel=1e-4)
    assert len(rows) >= 40


def test_channels_and_effects(recordings: dict[str, dict[str, Any]]) -> None:
    odd = {"stereo": recordings["odd/stereo_opposed"]}
    (mean,), _ = run(odd, lambda stream: stream.load_audio(channel="mean"))
    assert float(mean["wav"].abs().max()) < 1e-4, "its channels are opposed"
    (first,), _ = run(odd, lambda stream: stream.load_audio(sox_effects=[["gain", "-3.0"]]))
    (second,), _ = run(odd, lambda stream: stream.load_audio(channel=1, sox_effects=[["gain", "-3.0"]]))
    assert torch.equal(first["wav"], -second["wav"])


FAST = ("logmel80", "fbank80_povey")


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_features_masks_and_shifts(recordings: dict[str, dict[str, Any]], kind: str) -> None:
    deltas = 1 if kind in ("mfcc13", "fbank80_povey") else 0
    norm = "none" if kind == "linear201" else "utterance"

    def chain(stream: Source) -> Source:
        features = stream.load_audio().norm_wav().features(kind, norm=norm, deltas=deltas)
        return features.shift(2).mask("tera", noise_prob=0.5).mask_spans(like="feat")

    rows, damaged = run(recordings, chain)
    assert damaged >= DAMAGED | NO_FRAME
    for row in rows:
        frames = num_frames(kind, length_at_16k(recordings[row["key"]]["wav_path"]))
        assert len(row["feat"]) == len(row["target_feat"]) == len(row["masked_feat"]) == frames - 2, row["key"]
        assert bool(row["loss_mask"].any())
        assert bool(row["frame_mask"].any())
    assert len(rows) + len(damaged) == len(recordings)


def test_pieces_tags_and_labels(recordings: dict[str, dict[str, Any]]) -> None:
    def chain(stream: Source) -> Source:
        chunked = stream.load_audio(dtype="int16").chunk(min_seconds=1, max_seconds=3)
        labelled = chunked.encode_category().encode_multilabel(categories=[*names, *SUFFIXES])
        return labelled.chunk_frames(min_frames=50).tag_frames(num_labels=2)

    names = {sample["label"] for sample in recordings.values()}
    rows, damaged = run(recordings, chain)
    assert damaged >= DAMAGED
    for key, sample in recordings.items():
        pieces = [row for row in rows if row["key"] == key]
        if key.rpartition("/")[2] in damaged:
            assert not pieces
            continue
        length = length_at_16k(sample["wav_path"])
        assert sum(len(piece["wav"]) for piece in pieces) == length, "nothing vanishes"
        assert sum(float(piece["tags"][:, 0].sum()) for piece in pieces) == sum(len(piece["tags"]) for piece in pieces)
        short = sum(float(piece["tags"][:, 1].sum()) for piece in pieces)
        assert short == pytest.approx(25 if length > 8_000 else max(length - 4_000, 0) / 160, abs=2)
        assert {float(piece["binary_labels"].sum()) for piece in pieces} == {2.0}
        assert {sorted(names)[int(piece["class_id"])] for piece in pieces} == {sample["label"]}


def test_crops_segments_and_texts(recordings: dict[str, dict[str, Any]]) -> None:
    lexicon = Lexicon({"RECORDING": "R AH0", **{str(number): "N" for number in range(len(recordings))}})

    def texts(stream: Source) -> Source:
        encoded = stream.load_audio(crop_segment=True).tokenize(train_tokenizer=True, vocab_type="word")
        return encoded.phonemize(lexicon, phonemized_text_name="p", output_text_name="y")  # type: ignore[call-arg]

    part = {key: {**sample, "start_sec": 0.1, "end_sec": 0.35} for key, sample in recordings.items()}
    rows, damaged = run(part, texts)
    assert damaged >= (DAMAGED | NO_FRAME) - {"cut_in_half"}, "a segment outside of its recording is listed"
    assert {len(row["wav"]) for row in rows} == {4_000}
    assert all((len(row["tokens"]), len(row["y"]), row["p"]) == (3, 4, "R AH0 N") for row in rows)
    cropped, _ = run(recordings, lambda stream: stream.load_audio().crop(1.0).features(norm="none"))
    for row in cropped:
        assert len(row["wav"]) == min(16_000, length_at_16k(recordings[row["key"]]["wav_path"]))


@pytest.mark.slow
def test_half_an_hour(real_data: Path, tmp_path: Path) -> None:
    """Joined from LibriSpeech: planned in chunks, cut by stages, and whole."""
    parts, seconds = [], 0.0
    for path in sorted((real_data / "LibriSpeech").rglob("*.flac")):
        parts.append(soundfile.read(path, dtype="int16")[0])
        seconds += len(parts[-1]) / 16_000
        if seconds > 1800:
            break
    wav = np.concatenate(parts)[: 1800 * 16_000]
    soundfile.write(tmp_path / "long.flac", wav, 16_000)
    segments = [{"start": 10.0, "end": 1790.0, "label": "a"}, {"start": 900.0, "end": 900.5, "label": "b"}]
    data = {"long": {"wav_path": str(tmp_path / "long.flac"), "segments": segments}}

    def stream(**settings: Any) -> Source:
        return ss.ShardStream(data, epochs=1, too_long="crop", max_batch_seconds=1900.0, **settings).load_audio()

    def joined(rows: list[dict[str, Any]], name: str) -> torch.Tensor:
        return torch.cat([row[name] for row in rows])

    for chain in (
        stream().chunk(min_seconds=2, max_seconds=20).tag_frames(num_labels=2, hop_samples=1),
        stream().chunk_frames(min_frames=500, max_frames=1500).tag_frames(num_labels=2, hop_samples=1),
        stream(chunk_seconds=15.0, shuffle=False).tag_frames(num_labels=2, hop_samples=1),
    ):
        rows = list(chain)
        assert torch.equal((joined(rows, "wav") * 32768).short(), torch.from_numpy(wav))
        tags_FC = joined(rows, "tags")
        assert tags_FC[:, 0].sum() == 1780 * 16_000
        assert tags_FC[:, 1].nonzero()[[0, -1], 0].tolist() == [900 * 16_000, round(900.5 * 16_000) - 1]
    for kind in KINDS:
        (sample,) = stream().norm_wav().features(kind).mask("tera").mask_spans()
        assert len(sample["feat"]) == num_frames(kind, len(wav))
        assert bool(torch.isfinite(sample["masked_feat"]).all())
        assert sample["loss_mask"].any(dim=1).float().mean() > 0.13
    assert 0.4 < sample["frame_mask"].float().mean() < 0.55


def test_fbank_of_real_speech_is_torchaudios(real_data: Path) -> None:
    paths = sorted((real_data / "LibriSpeech").rglob("*.flac"))[::25]
    for path in paths:
        assert_fbank_is_torchaudios(torch.from_numpy(soundfile.read(path, dtype="float32")[0]), "hamming")
    assert len(paths) == 10
