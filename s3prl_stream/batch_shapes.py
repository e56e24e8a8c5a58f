"""Batches in the shapes that the training code of NeMo and of Lhotse takes. Pure functions of a batch.

Neither package is imported: the shapes are those of NeMo's `LhotseSpeechToTextBpeDataset` and `AudioToBPEDataset`
(`training_step` of its CTC and transducer models unpacks them), and of Lhotse's `K2SpeechRecognitionDataset`, which the
recipes of icefall read. B clips, T samples, F frames, D bins, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Batch

NemoBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Encode = Callable[[str], Sequence[int]]


def nemo_batch(batch: Batch, *, encode: Encode | None = None, pad_id: int = 0) -> NemoBatch:
    """What `training_step` of NeMo's speech recognition models takes.

    Args:
        batch: with `wav` (of `load_audio`, float32 or int16), and `tokens` (of `tokenize`) or `text`.
        encode: text -> ids, such as `model.tokenizer.text_to_ids`; None: the batch has `tokens`.
        pad_id: what stands behind the tokens: 0 in NeMo's Lhotse loader, the tokenizer's own in its older ones.

    Returns:
        audio_signal float32 [B, T], a_sig_length int64 [B], transcripts int64 [B, L], transcript_length int64 [B].

    Raises:
        UsageError: no `wav` or `tokens` in the batch, or a clip without text.
    """
    wav = _tensor(batch, "wav", "load_audio")
    if encode is None:
        tokens, lengths = _tensor(batch, "tokens", "tokenize"), batch["tokens_len"]
    else:
        encoded = [torch.as_tensor(encode(text), dtype=torch.int64) for text in _texts(batch)]
        lengths = torch.tensor([len(one) for one in encoded], dtype=torch.int64, device=wav.device)
        tokens = pad_sequence(encoded, batch_first=True) if encoded else torch.zeros((0, 0), dtype=torch.int64)
        tokens = tokens.to(wav.device)
    behind = torch.arange(tokens.shape[1], device=tokens.device)[None, :] >= lengths[:, None]
    return _floats(wav), batch["wav_len"], tokens.masked_fill(behind, pad_id), lengths


def lhotse_batch(batch: Batch, *, inputs: str = "feat") -> dict[str, Any]:
    """What Lhotse's `K2SpeechRecognitionDataset` gives, the longest clip first; each clip is one supervision.

    Args:
        batch: with `text`, and `feat` (of `features`) or `wav` (of `load_audio`).
        inputs: "feat" or "wav".

    Returns:
        `inputs` float32 [B, F, D] or [B, T], and `supervisions`: `text` (list of B), `sequence_idx` int32 [B], and
        `start_frame`, `num_frames` int32 [B], which are called `start_sample`, `num_samples` of waveforms. Beside
        Lhotse's, `key` (list of B) in the place of its `cut`.

    Raises:
        UsageError: no such inputs or no texts in the batch.
    """
    values = _tensor(batch, inputs, "features" if inputs == "feat" else "load_audio")
    keys, texts = batch["key"], _texts(batch)
    unit = "frame" if inputs == "feat" else "sample"
    lengths, order = batch[f"{inputs}_len"].sort(descending=True, stable=True)
    places = order.tolist()
    return {
        "inputs": _floats(values)[order],
        "supervisions": {
            "text": [texts[place] for place in places],
            "sequence_idx": torch.arange(len(places), dtype=torch.int32),
            f"start_{unit}": torch.zeros(len(places), dtype=torch.int32),
            f"num_{unit}s": lengths.to(torch.int32),
            "key": [keys[place] for place in places],
        },
    }


def _texts(batch: Batch) -> list[str]:
    texts = batch.get("text", [None] * len(batch["key"]))
    without = next((key for key, text in zip(batch["key"], texts, strict=True) if text is None), None)
    if without is not None:
        raise UsageError(f"{without}: no text, which speech recognition needs. Select with where='text is not None'.")
    return [str(text) for text in texts]


def _tensor(batch: Batch, name: str, stage: str) -> torch.Tensor:
    value = batch.get(name)
    if not isinstance(value, torch.Tensor):
        raise UsageError(
            f"no {name!r} in the batch, which has {', '.join(sorted(batch))}. Add .{stage}() to the stream."
        )
    return value


def _floats(values: torch.Tensor) -> torch.Tensor:
    """int16 as float32 in [-1, 1)."""
    return values.to(torch.float32) / 32768 if values.dtype == torch.int16 else values
