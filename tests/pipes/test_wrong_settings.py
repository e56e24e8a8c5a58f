"""Settings that no stage can have are refused when it is made, by their names; numbers that are none: test_contract."""

from __future__ import annotations

from typing import Any

import pytest

from s3prl_stream import pipes
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.stage import Stage

WRONG: list[tuple[type[Stage], dict[str, Any], str]] = [
    (pipes.NoiseAugmentation, {"noise": "babble"}, r'"gaussian" nor a NoiseBank, such as NoiseBank\('),
    (pipes.NoiseAugmentation, {"voices": 3}, "of a NoiseBank"),
    (pipes.NoiseAugmentation, {"voices": 0}, "voices=0"),
    (pipes.NoiseAugmentation, {"snr": (6, 3)}, "lowest, highest"),
    (pipes.NoiseAugmentation, {"snr": [1, 2, 3]}, "lowest, highest"),
    (pipes.NoiseAugmentation, {"prob": 1.5}, "prob=1.5 is no number from 0 to 1"),
    (pipes.Reverberation, {"rooms": "hall"}, "RirBank"),
    (pipes.Reverberation, {"rt60": 0}, "rt60=0"),
    (pipes.Reverberation, {"rt60": (1, 0.5)}, "rt60"),
    (pipes.Reverberation, {"max_seconds": 0}, "max_seconds"),
    (pipes.Reverberation, {"max_seconds": (1, 2)}, "max_seconds"),
    (pipes.MixUtterances, {"max_share": 1.5}, "mix_utterances: max_share="),
    (pipes.MixUtterances, {"ratio_db": (3, 1)}, "mix_utterances: ratio_db="),
    (pipes.RandomGain, {"gain_db": 3, "prob": 2}, "prob=2 is no number from 0 to 1"),
    (pipes.SpeedPerturbation, {"factors": ()}, "no list of factors"),
    (pipes.SpeedPerturbation, {"factors": 1.1}, "no list of factors"),
    (pipes.SpeedPerturbation, {"factors": (0.0, 1.0)}, "factors=0.0"),
    (pipes.SpeedPerturbation, {"factors": [(0.9, 1.1)]}, r"factors=\(0.9, 1.1\) is no number from 0.1 to 10"),
    (pipes.LoadAudio, {"sample_rate": 0}, "sample_rate"),
    (pipes.LoadAudio, {"dtype": "float16"}, "dtype"),
    (pipes.LoadAudio, {"channel": "left"}, "channel"),
    (pipes.LoadAudio, {"channel": -1}, "channel"),
    (pipes.RandomCrop, {"max_seconds": 0}, "max_seconds"),
    (pipes.UnfoldChunkBySec, {"min_seconds": 0}, "min_seconds"),
    (pipes.UnfoldChunkBySec, {"max_seconds": 1}, "max_seconds"),
    (pipes.UnfoldChunkBySec, {"step_seconds": 3}, "step_seconds"),
    (pipes.UnfoldChunkBySec, {"tail": "pad"}, "tail"),
    (pipes.UnfoldChunkBySec, {"tokens": "keep"}, "tokens"),
    (pipes.UnfoldChunkBySec, {"sample_rate": 0}, "sample_rate"),
    (pipes.UnfoldChunkBySec, {"min_seconds": 2, "step_seconds": 2.5},
     r"step_seconds=2\.5 is more than min_seconds=2, .* gaps"),
    (pipes.UnfoldChunkByFrame, {"min_frames": 2, "step_frames": 3}, "step_frames=3 is more than min_frames=2, .* gaps"),
    (pipes.ExtractFeat, {"kind": "mfcc"}, "logmel80, linear201, fbank80"),
    (pipes.ExtractFeat, {"deltas": 3}, "deltas"),
    (pipes.ExtractFeat, {"kind": "mfcc13", "norm": "fixed"}, "logmel80, fbank80"),
    (pipes.ExtractFeat, {"norm": "mean"}, "utterance, fixed"),
    (pipes.SpecAugment, {"freq_width": (5, 2)}, "freq_width"),
    (pipes.SpecAugment, {"time_width": (0.5, 2)}, "whole numbers"),
    (pipes.SpecAugment, {"fill": "noise"}, "there are zero, mean"),
    (pipes.SpecAugment, {"max_time_share": 2}, "max_time_share"),
    (pipes.SpecAugment, {"max_time_share": (0.1, 0.2)}, "max_time_share"),
    (pipes.MaskedReconstruction, {"kind": "terra"}, "tera, mockingjay, audio_albert"),
    (pipes.MaskedReconstruction, {"time_share": 1.5}, "time_share"),
    (pipes.MaskedReconstruction, {"noise_prob": 2}, "noise_prob"),
    (pipes.MaskedReconstruction, {"span_frames": 0}, "span_frames"),
    (pipes.MaskedReconstruction, {"kind": "mockingjay", "time_share": 0.0}, "time_share"),
    (pipes.SpanMask, {"kind": "data2vec"}, "kind"),
    (pipes.SpanMask, {"prob": 1.1}, "prob"),
    (pipes.SpanMask, {"span_frames": 0}, "span_frames"),
    (pipes.SpanMask, {"min_spans": 0}, "min_spans"),
    (pipes.AutoregressivePrediction, {"n_future": 0}, "n_future"),
    (pipes.BuildMultiClassTagging, {"columns": "some"}, "columns"),
    (pipes.BuildMultiClassTagging, {"categories": ["a"]}, "categories"),
    (pipes.BuildMultiClassTagging, {"num_labels": 0}, "num_labels"),
    (pipes.BuildMultiClassTagging, {"hop_samples": 0}, "hop_samples"),
    (pipes.EncodeText, {"tokenizer": "characters"}, "'characters' is not a Tokenizer"),
    (pipes.Phonemize, {}, "Phonemize: missing 1 required keyword-only argument: 'lexicon'"),
    (pipes.EncodeMultipleCategory, {"labels": 5}, "EncodeMultipleCategory: 'int' object is not iterable"),
    (pipes.EncodeCategory, {"categories": "yes"}, "categories"),
    (pipes.EncodeCategory, {"categories": [1.5]}, "categories"),
    *[(pipes.SetOutputKeys, {"output_keys": one}, "output_keys=") for one in ("wav", [], {"x": 1}, [1], {"x": None})],
]  # fmt: skip


@pytest.mark.parametrize(("stage", "settings", "message"), WRONG)
def test_wrong_settings_are_refused(stage: type[Stage], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stage(**settings)
