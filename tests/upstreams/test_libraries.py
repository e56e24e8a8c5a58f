"""Models of torchaudio and of Hugging Face as upstreams: the library's own numbers, alone and in a batch."""

from __future__ import annotations

import importlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from upstreams.small_models import save_small_huggingface, save_small_torchaudio, torchaudio_params
from upstreams.test_upstream import LENGTHS, assert_interface, wavs

import s3prl_stream as ss
from s3prl_stream.models.wave import WaveEncoder
from s3prl_stream.upstreams.library_waves import normalised
from s3prl_stream.upstreams.torchaudio_models import bundle_upstream
from s3prl_stream.upstreams.upstream import fingerprint_of
from s3prl_stream.upstreams.waves import WaveUpstream


def as_ours(up: Any) -> WaveUpstream:
    """The same weights in our own network."""
    encoder = WaveEncoder(
        conv_size=8, hidden_size=24, num_layers=3, num_heads=2, ffn_size=32, position_kernel=16, position_groups=4,
        feature_norm=True, positions_first=True,
    )  # fmt: skip
    encoder.load_state_dict(up.wave_weights())
    return WaveUpstream(encoder.eval()).eval()


def assert_same_numbers(one: Any, other: Any) -> None:
    with torch.no_grad():
        first, second = one(wavs()), other(wavs())
    assert len(first) == len(second)
    for row, frames in enumerate(one.num_frames(LENGTHS).tolist()):
        for left, right in zip(first, second, strict=True):
            torch.testing.assert_close(left[row, :frames], right[row, :frames], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["base", "large", "wavlm"])
def test_torchaudio(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = save_small_torchaudio(tmp_path / "model.pt", kind)
    up: Any = ss.upstream(tmp_path / "model.pt")
    assert (up.stride, up.hidden_size, up.num_layers) == (320, 24, 3)
    assert_interface(up, tolerance=2e-5)
    wav = wavs()[0]
    given = nn.functional.layer_norm(wav, wav.shape, eps=1e-7) if kind == "large" else wav
    with torch.no_grad():
        expected, _ = model.extract_features(given[None])
        found = up([wav])
    for one, two in zip(found[1:], expected, strict=True):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=1e-5)
    if kind == "base":
        assert_same_numbers(up, as_ours(up))
    else:
        assert up.wave_weights() is None
    pipelines: Any = importlib.import_module("torchaudio.pipelines")
    made_by = "WavLM" if kind == "wavlm" else "Wav2Vec2"
    bundle = pipelines.Wav2Vec2Bundle("", torchaudio_params(kind), 16_000, kind == "large", made_by)
    monkeypatch.setattr(pipelines, "SMALL", bundle, raising=False)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    assert fingerprint_of(ss.upstream(f"torchaudio:SMALL:{tmp_path / 'weights.pt'}")) == fingerprint_of(up)


def test_nothing_and_silence_are_normalised_to_silence() -> None:
    assert not normalised(torch.zeros(2, 4), torch.tensor([0, 4])).any()


def test_bundles_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(ss.UsageError, match="HUBERT_BASE"):
        bundle_upstream("torchaudio:HUBERT")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ss.UsageError, match="do not fit"), torch.device("meta"):
        bundle_upstream(f"torchaudio:HUBERT_BASE:{tmp_path / 'other.pt'}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # transformers' WavLM in torch 2.11
@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("hubert", {}),
        ("wav2vec2", {}),
        ("wavlm", {}),
        ("hubert", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
    ],
)
def test_huggingface(kind: str, changed: dict[str, Any], tmp_path: Path) -> None:
    model: Any = save_small_huggingface(tmp_path, kind, **changed)
    up: Any = ss.upstream(tmp_path)
    assert (up.stride, up.hidden_size, up.num_layers) == (320, 24, 3)
    assert_interface(up, tolerance=2e-5)
    wav = wavs()[0]
    given = nn.functional.layer_norm(wav, wav.shape, eps=1e-7) if changed else wav
    with torch.no_grad():
        expected = model(given[None], output_hidden_states=True).hidden_states
        found = up([wav])
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    if kind != "wavlm" and not changed:
        assert_same_numbers(up, as_ours(up))


def test_other_directories_of_hugging_face_are_refused(tmp_path: Path) -> None:
    for text, said in (('{"model_type": "bert"}', "type 'bert'"), ("{", "not JSON"), ("[1]", "holds a list")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ss.UsageError, match=said):
            ss.upstream(tmp_path)


def test_weights_that_are_missing_are_not_drawn_in_silence(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    save_small_huggingface(tmp_path, "hubert")
    file = tmp_path / "model.safetensors"
    weights = safetensors.load_file(file)
    del weights["masked_spec_embed"]  # only training has a use for it
    safetensors.save_file(weights, file, metadata={"format": "pt"})
    up: Any = ss.upstream(tmp_path)
    assert (up.model.config.layerdrop, up.model.config.apply_spec_augment) == (0.0, False)  # also if it is trained
    for beside, normalize in (("{}", True), ('{"do_normalize": false}', False)):  # as transformers reads it
        (tmp_path / "preprocessor_config.json").write_text(beside)
        up = ss.upstream(tmp_path)
        assert up.normalize == normalize
    safetensors.save_file({f"x.{name}": one for name, one in weights.items()}, file, metadata={"format": "pt"})
    with pytest.raises(ss.UsageError, match=r"weights of the hubert are not in it, such as encoder\."):
        ss.upstream(tmp_path)
    file.write_bytes((1 << 40).to_bytes(8, "little"))  # a header of a terabyte
    with pytest.raises(ss.UsageError, match=r"cannot be loaded: SafetensorError: .*header too large"):
        ss.upstream(tmp_path)
    file.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(os.system, protocol=2))
    with pytest.raises(ss.UsageError, match=r"cannot be loaded: UnpicklingError: Weights only load failed$"):
        ss.upstream(tmp_path)
