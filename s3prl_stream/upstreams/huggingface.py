"""Upstreams from Hugging Face: a directory that `save_pretrained` wrote, of a model of wav2vec 2.0's kind.

Nothing is downloaded and no code of the directory runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from s3prl_stream.errors import UsageError
from s3prl_stream.json_files import read_json
from s3prl_stream.padding import is_valid
from s3prl_stream.upstreams.library_waves import LibraryUpstream

_SAVE_AGAIN = "Save the model there again."
CONFIG = "config.json"
UNUSED = {"masked_spec_embed"}
"""Weights that a model may lack: what masked frames are made of in training."""
KINDS = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")


class HuggingFaceUpstream(LibraryUpstream):
    """A `HubertModel`, `Wav2Vec2Model`, `WavLMModel` ..."""

    library = "huggingface"

    def __init__(self, model: Any, *, normalize: bool) -> None:
        config = model.config
        super().__init__(
            model,
            kernels=config.conv_kernel,
            strides=config.conv_stride,
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            normalize=normalize,
        )

    def hidden_states(self, wav_BT: Tensor, wav_len_B: Tensor) -> list[Tensor]:
        """The first layer's input, then the output of each layer."""
        attended_BT = is_valid(wav_len_B, wav_BT.shape[1]).long()
        output: Any = self.model(wav_BT, attention_mask=attended_BT, output_hidden_states=True)
        return list(output.hidden_states)


def huggingface_upstream(folder: Path) -> HuggingFaceUpstream:
    """An upstream of a directory with `config.json` and weights.

    Raises:
        UsageError: transformers is not installed, or the model is of another kind or cannot be loaded.
    """
    kind = read_json(folder / CONFIG, UsageError, _SAVE_AGAIN).get("model_type")
    if kind not in KINDS:
        raise UsageError(f"{folder}: a model of type {kind!r}; there are {', '.join(KINDS)}")
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise UsageError(f'{folder}: needs transformers: pip install "s3prl-stream[huggingface]" ({error})') from error
    try:
        model, loaded = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # safetensors and torch have errors of their own; torch's goes on how to load unsafely
        reason = str(error).partition(". In PyTorch")[0][:400]
        raise UsageError(f"{folder}: cannot be loaded: {type(error).__name__}: {reason}") from error
    missing = sorted(set(loaded["missing_keys"]) - UNUSED)  # transformers draws them at random, and tells a log
    if missing:
        raise UsageError(f"{folder}: {len(missing)} weights of the {kind} are not in it, such as {missing[0]}")
    model.config.layerdrop = 0.0
    model.config.apply_spec_augment = False
    return HuggingFaceUpstream(model, normalize=_wants_normalised(folder, model.config))


def _wants_normalised(folder: Path, config: Any) -> bool:
    """As the preprocessor beside the model says; where there is none, models with layer norm in the convolutions do."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return bool(read_json(path, UsageError, _SAVE_AGAIN).get("do_normalize", True))  # as transformers takes it
    return bool(getattr(config, "feat_extract_norm", "group") == "layer")
