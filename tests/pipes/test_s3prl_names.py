"""The parameters of S3PRL's datapipes (July 2022), by its names, and what our stages make of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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
        {"train_tokenizer": True, "text_name": "words", "output_text_name": "y", "vocab_type": "subword",
         "vocab_args": {"vocab_size": 50, "character_coverage": 1.0}},
        {"text": "words", "output_text_name": "y", "vocab_size": 50},
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
    (
        pipes.ExtractFeat,
        {"cmvn": False, "wav_name": "x", "feat_name": "source_feat"},
        {"norm": "none", "wav_name": "x", "feat_name": "source_feat"},
    ),
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


REFUSED: list[tuple[type[Stage], dict[str, Any], str]] = [
    (pipes.EncodeText, {"train_tokenizer": True, "tokenizer_name": "tokenizer"}, "give it itself: tokenizer="),
    (pipes.EncodeText, {"vocab_file": "x.model"}, r"load_tokenizer"),
    (pipes.EncodeText, {"train_tokenizer": True, "vocab_args": {"coverage": 0.9}}, r"coverage=0\.9.*vocab_size="),
    (pipes.EncodeText, {"train_tokenizer": True, "vocab_size": 9, "vocab_args": {"vocab_size": 9}}, "one of them"),
    (pipes.EncodeText, {"train_tokenizer": True, "vocab_args": {"vocab_size": "9"}}, "vocab_size='9' is no whole"),
    (pipes.EncodeText, {"train_tokenizer": True, "vocab_args": "x"}, "vocab_args='x' is no dict"),
    (pipes.Phonemize, {"g2p_name": "g2p"}, "lexicon="),
    (pipes.EncodeCategory, {"category_encoder_name": "category"}, "categories="),
    (pipes.EncodeMultipleCategory, {"category_encoder_name": "category"}, "categories="),
    (pipes.EncodeMultiLabel, {"category_encoder_name": "category"}, "categories="),
    (pipes.RandomCrop, {"max_secs": 8, "crop_name": "wav_crop"}, r"wav_name.*\.select\(\)"),
    (pipes.NormWav, {"norm_wav_name": "y"}, r"wav_name.*\.select\(\)"),
    (pipes.NormWav, {"target_level": 0}, "leave out this stage"),
    (pipes.NoiseAugmentation, {"noise_proportion": 0.1}, r"\.mask\(noise_prob="),
    (pipes.NoiseAugmentation, {"noise_paths": ["a.wav"], "snrs": (3, 9)}, r"noise=NoiseBank"),
    (pipes.ExtractFeat, {"n_mels": 80}, r"n_mels of S3PRL .*kind=: \"logmel80\""),
    (pipes.ExtractFeat, {"frame_shift": 10}, "every 10 ms"),
    (pipes.ExtractFeat, {"target": {"feat_type": "mel"}}, "feat_name="),
    (pipes.ExtractFeat, {"kaldi": {"feat_type": "fbank"}}, "fbank80_povey"),
    (pipes.ExtractFeat, {"delta": {"order": 2}}, "deltas="),
    (pipes.ExtractFeat, {"cmvn": {"use_cmvn": True}}, "say it by norm"),
    (pipes.BuildMultiClassTagging, {"tag_len_name": "tag_len"}, "_len"),
    (pipes.AutoregressivePrediction, {"source_feat_len_name": "feat_len"}, "_len"),
    (pipes.MaskedReconstruction, {"pos_enc_name": "pos_enc"}, "made by the network"),
    (pipes.MaskedReconstruction, {"attn_mask_name": "attn_mask"}, "lengths in place of attention masks"),
    (pipes.MaskedReconstruction, {"mask_args": {"position_encoding_size": 768}}, "hidden_size"),
    (pipes.MaskedReconstruction, {"mask_args": {"mask_proportion": 0.1}, "mask_proportion": 0.1}, "one of them"),
    (pipes.MaskedReconstruction, {"mask_consecutive_max": 9}, "span_frames="),
    (pipes.MaskedReconstruction, {"mask_consecutive_max": 7, "span_frames": 9}, "one of them"),
    (pipes.MaskedReconstruction, {"mask_bucket_ratio": 2.0}, "overlap=False"),
    (pipes.MaskedReconstruction, {"masked_feat_name": "m", "source_feat_name": "x", "target_feat_name": "y"},
     "source_feat_name='x'"),
]  # fmt: skip


@pytest.mark.parametrize(("pipe", "given", "says"), REFUSED, ids=[f"{case[0].__name__}-{case[1]}" for case in REFUSED])
def test_what_has_no_meaning_here_is_refused_by_the_name_of_ours(
    pipe: type[Stage], given: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        pipe(**given)


def test_the_name_of_a_sample_is_called_key_here() -> None:
    outputs = {"x": "wav", "unique_name": "id"}
    with pytest.raises(UsageError, match=r"takes 'id' .* What S3PRL calls 'id' is 'key' here"):
        pipes.SetOutputKeys(outputs)([{"wav": torch.zeros(3)}])


def test_the_mask_in_both_of_its_spellings() -> None:
    sizes = {"mask_proportion": 0.2, "mask_consecutive_min": 5, "mask_consecutive_max": 5, "mask_allow_overlap": False,
             "mask_bucket_ratio": 1.5, "mask_frequency": 0.1}  # fmt: skip
    ours = pipes.MaskedReconstruction(time_share=0.2, span_frames=5, overlap=False, band_share=0.1)
    assert pipes.MaskedReconstruction(**sizes).describe() == ours.describe()
    assert pipes.MaskedReconstruction(mask_args=sizes).describe() == ours.describe()  # type: ignore[call-arg]
    data = [{"feat": torch.ones(40, 8)}]
    (meant,) = ours(data)
    before = pipes.MaskedReconstruction(mask_args=sizes, target_feat_name="label", source_feat_name="x")  # type: ignore[call-arg]
    (sample,) = before([{"label": data[0]["feat"]}])
    assert torch.equal(sample["x"], meant["masked_feat"])
    assert torch.equal(sample["label"], data[0]["feat"])
    since = pipes.MaskedReconstruction(**sizes, source_feat_name="s", masked_feat_name="m", label_mask_name="l")
    (sample,) = since([{"s": data[0]["feat"]}])
    assert torch.equal(sample["m"], meant["masked_feat"])
    assert torch.equal(sample["l"], meant["loss_mask"])
    assert torch.equal(sample["s"], data[0]["feat"])


def test_sizes_of_vocabularies_are_counted_as_s3prl_counts() -> None:
    texts = [{"text": "AABBC"}]
    for given, characters in (({"vocab_size": 2}, "AB"), ({"vocab_size": -1}, "ABC"), ({"sort_vocab": True}, "ABC")):
        chain = pipes.EncodeText(train_tokenizer=True, vocab_args=given)(texts)  # type: ignore[call-arg]
        assert chain.stage("tokenize").tokenizer == pipes.CharacterTokenizer(characters)
