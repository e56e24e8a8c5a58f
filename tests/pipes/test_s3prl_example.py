"""The example of S3PRL's plan, word for word, on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3prl_stream.pipes import EncodeText, LoadAudio, NoiseAugmentation, SequentialDataPipe, UnfoldChunkBySec
from s3prl_stream.pipes import load_audio as load_audio_module
from tests.contract import assert_same_samples, outputs


@pytest.fixture
def data(tmp_path: Path) -> dict[str, dict[str, object]]:
    rng = np.random.default_rng(0)
    for name, seconds, rate in (("a", 3.0, 16_000), ("b", 9.3, 8_000), ("c", 1.0, 16_000)):
        soundfile.write(tmp_path / f"{name}.wav", rng.uniform(-0.3, 0.3, round(seconds * rate)), rate)
    return {name: {"wav_path": str(tmp_path / f"{name}.wav"), "text": f"text {name}"} for name in "abc"}


def test_word_for_word(data: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    read_file = load_audio_module.file_of

    def watched(sample: dict[str, object]) -> tuple[bytes, str]:
        read.append(str(sample["key"]))
        return read_file(sample)

    monkeypatch.setattr(load_audio_module, "file_of", watched)

    audio_pipe = LoadAudio(sox_effects=[["gain", "-3.0"]], crop_segment=True)
    text_pipe = EncodeText(train_tokenizer=True)
    noise_pipe = NoiseAugmentation(snr=[3, 6])
    chunk_pipe = UnfoldChunkBySec(min_chunk_secs=2, max_chunk_secs=4)  # type: ignore[call-arg]
    dataset = SequentialDataPipe(audio_pipe, text_pipe, noise_pipe, chunk_pipe)(data)

    assert read == [], "lazily: nothing is read to build the chain"
    number = len(dataset)
    assert number > 5, "it grows by chunking"
    assert read == [], "nor to count its samples"
    iterator = iter(dataset)
    first = next(iterator)
    assert (first["key"], read) == ("a", ["a"])
    samples = [first, *iterator]
    assert len(samples) == number
    seconds = {key: sum(len(s["wav"]) for s in samples if s["key"] == key) / 16_000 for key in data}
    assert seconds == {"a": 3.0, "b": 9.3, "c": 1.0}, "nothing vanishes"
    lengths = [len(s["wav"]) / 16_000 for s in samples]
    assert max(lengths) <= 4.0
    assert len({length for length in lengths if length >= 2.0}) > 1, "lengths are drawn"

    # one by one
    loaded = audio_pipe(data)
    assert [len(sample["wav"]) for sample in loaded] == [48_000, 148_800, 16_000]
    assert len(loaded) == 3
    encoded = text_pipe(loaded)
    tokenizer = encoded.stage("tokenize").tokenizer
    assert [tokenizer.decode(sample["tokens"].tolist()) for sample in encoded] == ["text a", "text b", "text c"]
    assert_same_samples(outputs(chunk_pipe(noise_pipe(encoded))), outputs(dataset))
    whole = next(sample for sample in samples if sample["key"] == "c")
    assert tokenizer.decode(whole["tokens"].tolist()) == "text c"


def test_the_stages_stay_as_they_are(data: dict[str, dict[str, object]]) -> None:
    text_pipe = EncodeText(train_tokenizer=True)
    trained = text_pipe(data)
    other = text_pipe([{"text": "OTHER WORDS"}])
    assert text_pipe.tokenizer is None
    assert trained.tokenizer != other.tokenizer
    assert trained([{"text": "a text"}]).tokenizer == trained.tokenizer, "what is trained serves other data"
