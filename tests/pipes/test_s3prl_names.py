"""The parameters of S3PRL's datapipes (July 2022), by its names, and what our stages make of them."""

from __future__ import annotations

from typing import Any

import pytest

from s3prl_stream import pipes
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.stage import Stage

TIMES = {"start_sec_name": "start_sec", "end_sec_name": "end_sec"}
CASES: list[tuple[type[Stage], dict[str, Any], dict[str, Any]]] = [
    (
        pipes.LoadAudio,
        {"audio_sample_rate": 8000, "audio_channel_reduction": "mean", "sox_effects": [["gain", "-3.0"]],
         "crop_segment": True, "wav_path_name": "path", "wav_name": "speech", **TIMES},
        {"sample_rate": 8000, "channel": "mean", "crop_segment": True, "wav_path_name": "path", "wav_name": "speech"},
    ),
    (pipes.NormWav, {"target_level": -20, "wav_name": "x"}, {"target_db": -20.0, "wav_name": "x"}),
    (
        pipes.EncodeCategory,
        {"train_category_encoder": True, "label_name": "speaker", "encoded_target_name": "y"},
        {"label": "speaker", "categories": None, "encoded_target_name": "y"},
    ),
    (
        pipes.EncodeMultipleCategory,
        {"train_category_encoder": True, "label_name": "slots", "encoded_target_name": "y"},
        {"labels": "slots", "encoded_target_name": "y"},
    ),
    (pipes.EncodeMultiLabel, {"label_name": "sounds"}, {"labels": "sounds"}),
    (
        pipes.EncodeText,
        {"train_tokenizer": True, "text_name": "words", "output_text_name": "y"},
        {"text": "words", "output_text_name": "y"},
    ),
    (
        pipes.RandomCrop,
        {"sample_rate": 16_000, "max_secs": 8, "wav_name": "x"},
        {"sample_rate": 16_000, "max_seconds": 8.0, "wav_name": "x"},
    ),
    (
        pipes.UnfoldChunkBySec,
        {"sample_rate": 16_000, "use_last_samples": False, "min_chunk_secs": 2.5, "max_chunk_secs": 4, "step_secs": 2,
         **TIMES},
        {"sample_rate": 16_000, "tail": "drop", "min_seconds": 2.5, "max_seconds": 4.0, "step_seconds": 2.0},
    ),
    (
        pipes.UnfoldChunkByFrame,
        {"sample_rate": 16_000, "feat_frame_shift": 320, "min_chunk_frames": 200, "max_chunk_frames": 300,
         "step_frames": 100, "use_last_samples": True, **TIMES},
        {"hop_samples": 320, "min_frames": 200, "max_frames": 300, "step_frames": 100, "tail": "keep"},
    ),
    (
        pipes.BuildMultiClassTagging,
        {"sample_rate": 16_000, "feat_frame_shift": 320, "intra_or_inter": "inter", "segments_name": "s",
         "tag_name": "y", "category_name": "c", **TIMES},
        {"hop_samples": 320, "columns": "all", "segments_name": "s", "tag_name": "y", "category_name": "c"},
    ),
    (pipes.ExtractFeat, {"wav_name": "x", "feat_name": "source_feat"}, {"wav_name": "x", "feat_name": "source_feat"}),
    (
        pipes.MaskedReconstruction,
        {"mask_proportion": 0.2, "mask_allow_overlap": False, "mask_frequency": 0.1, "noise_proportion": 0.15,
         "source_feat_name": "x", "target_feat_name": "label", "label_mask_name": "label_mask"},
        {"time_share": 0.2, "overlap": False, "band_share": 0.1, "noise_prob": 0.15, "source_feat_name": "x",
         "target_feat_name": "label", "label_mask_name": "label_mask"},
    ),
    (
        pipes.AutoregressivePrediction,
        {"n_future": 3, "source_feat_name": "x", "target_feat_name": "y"},
        {"n_future": 3, "source_feat_name": "x", "target_feat_name": "y"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("pipe", "given", "meant"), CASES, ids=[case[0].__name__ for case in CASES])
def test_names_of_s3prl_are_understood(pipe: type[Stage], given: dict[str, Any], meant: dict[str, Any]) -> None:
    built = pipe(**given)
    assert {name: built.config()[name] for name in meant} == meant
    assert pipe(**built.config()).describe() == built.describe()


def test_names_of_its_shared_objects_are_told_to_be_none() -> None:
    with pytest.raises(UsageError, match="EncodeText has no parameter 'tokenizer_name'; did you mean"):
        pipes.EncodeText(train_tokenizer=True, tokenizer_name="tokenizer")  # type: ignore[call-arg]
