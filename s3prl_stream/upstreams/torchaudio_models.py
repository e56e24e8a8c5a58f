"""Upstreams from torchaudio: its bundles (wav2vec 2.0, HuBERT, WavLM), and models built by its factories.

A bundle's weights are downloaded by torchaudio when they are not in its cache. Without a network, or for a model of
one's own, weights come from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models.wave import conv_frames
from s3prl_stream.recipes.s3prl_import import read_checkpoint
from s3prl_stream.upstreams.library_waves import LibraryUpstream

PREFIX = "torchaudio:"
FACTORIES = ("wav2vec2_model", "wavlm_model")


class TorchaudioUpstream(LibraryUpstream):
    """A `torchaudio.models.Wav2Vec2Model` without a head.

    Its WavLM does not know padding, and computes utterance by utterance here.
    """

    library = "torchaudio"

    def __init__(self, model: Any, *, normalize: bool) -> None:
        convolutions = model.feature_extractor.conv_layers
        super().__init__(
            model,
            kernels=[layer.kernel_size for layer in convolutions],
            strides=[layer.stride for layer in convolutions],
            hidden_size=model.encoder.feature_projection.projection.out_features,
            num_layers=len(model.encoder.transformer.layers),
            normalize=normalize,
        )
        self._first: list[Tensor] = []
        self._masks = "WavLM" not in type(model.encoder.transformer.layers[0].attention).__name__
        model.encoder.transformer.layers[0].register_forward_pre_hook(self._keep_first)

    def hidden_states(self, wav_BT: Tensor, wav_len_B: Tensor) -> list[Tensor]:
        """The first layer's input, then the output of each layer."""
        if self._masks:
            return self._of_library(wav_BT, wav_len_B)
        rows = [self._of_library(wav_BT[row : row + 1, :length]) for row, length in enumerate(wav_len_B.tolist())]
        return [
            nn.utils.rnn.pad_sequence([hidden_1FH[0] for hidden_1FH in layer], batch_first=True)
            for layer in zip(*rows, strict=True)
        ]

    def _of_library(self, wav_BT: Tensor, wav_len_B: Tensor | None = None) -> list[Tensor]:
        if wav_len_B is None:
            for norm in self._time_norm:
                norm.frames_B = conv_frames(
                    torch.tensor([wav_BT.shape[1]], device=wav_BT.device), self.kernels[:1], self.strides[:1]
                )
        outputs, _ = self.model.extract_features(wav_BT, wav_len_B)  # type: ignore[operator]
        return [self._first.pop(), *outputs]

    def _keep_first(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._first = [inputs[0]]


def bundle_upstream(name: str) -> TorchaudioUpstream:
    """An upstream of "torchaudio:BUNDLE", or of "torchaudio:BUNDLE:FILE" with the weights of a file (its state dict).

    Raises:
        UsageError: no such bundle, its weights cannot be had, or do not fit.
    """
    torchaudio = _torchaudio()
    bundle_name, _, path = name.removeprefix(PREFIX).partition(":")
    bundle: Any = getattr(torchaudio.pipelines, bundle_name, None)
    if not hasattr(bundle, "_normalize_waveform"):
        known = [
            one
            for one in dir(torchaudio.pipelines)
            if hasattr(getattr(torchaudio.pipelines, one), "_normalize_waveform")
        ]
        raise UsageError(f"{name}: torchaudio has no such bundle; there are {', '.join(known)}")
    if path:
        factory = FACTORIES[bundle._model_type == "WavLM"]
        model = _built(torchaudio, factory, bundle._params, read_checkpoint(path), path)
    else:
        try:
            model = bundle.get_model()
        except OSError as error:
            raise UsageError(
                f"{name}: its weights cannot be downloaded ({error}); give a file of them: {PREFIX}{bundle_name}:FILE"
            ) from error
        model = getattr(model, "model", model)  # the wrapper normalises over a whole batch
    return TorchaudioUpstream(model, normalize=bundle._normalize_waveform)


def file_upstream(checkpoint: Mapping[str, Any], path: str) -> TorchaudioUpstream:
    """An upstream of a file that `save_torchaudio` wrote."""
    if checkpoint["factory"] not in FACTORIES:
        raise UsageError(f"{path}: factory {checkpoint['factory']!r}; there are {', '.join(FACTORIES)}")
    model = _built(_torchaudio(), checkpoint["factory"], checkpoint["params"], checkpoint["weights"], path)
    return TorchaudioUpstream(model, normalize=bool(checkpoint["normalize"]))


def save_torchaudio(
    path: str | Path,
    model: nn.Module,
    params: Mapping[str, Any],
    *,
    factory: str = "wav2vec2_model",
    normalize: bool = False,
) -> None:
    """Write a model of torchaudio to a file that `ss.upstream` loads.

    Args:
        path: of the file.
        model: as `torchaudio.models.FACTORY(**params)` made it.
        params: with which it was made.
        factory: "wav2vec2_model" (wav2vec 2.0, HuBERT) or "wavlm_model".
        normalize: whether the model wants waveforms of mean 0 and variance 1.
    """
    torch.save(
        {"factory": factory, "params": dict(params), "normalize": normalize, "weights": model.state_dict()}, path
    )


def _built(
    torchaudio: Any, factory: str, params: Mapping[str, Any], weights: Mapping[str, Tensor], path: str
) -> nn.Module:
    try:
        model: nn.Module = getattr(torchaudio.models, factory)(**params)
        model.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path}: the weights do not fit the model: {str(error)[:400]}") from error
    return model


def _torchaudio() -> Any:
    try:
        import torchaudio
        import torchaudio.models
        import torchaudio.pipelines
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"torchaudio cannot be imported here ({error}); torch 2.11.0 and torchaudio 2.11.0 work together"
        ) from error
    return torchaudio
