"""The stages. Importing this package registers their chained methods, as in `source.norm_wav()`."""

from __future__ import annotations

from s3prl_stream.pipes.add_noise import NoiseAugmentation
from s3prl_stream.pipes.chunk import UnfoldChunkBySec
from s3prl_stream.pipes.effects import apply_effects
from s3prl_stream.pipes.features import ExtractFeat
from s3prl_stream.pipes.load_audio import LoadAudio
from s3prl_stream.pipes.mask import MaskedReconstruction
from s3prl_stream.pipes.noise_bank import NoiseBank
from s3prl_stream.pipes.norm_wav import NormWav
from s3prl_stream.pipes.on_batch import OnBatch
from s3prl_stream.pipes.on_device import OnDevice
from s3prl_stream.pipes.record_draws import RecordDraws
from s3prl_stream.pipes.reverberate import Reverberation
from s3prl_stream.pipes.rooms import RirBank
from s3prl_stream.pipes.sequential import SequentialDataPipe
from s3prl_stream.pipes.shift import AutoregressivePrediction
from s3prl_stream.pipes.sox_effects import SoxEffects
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.pipes.tokenize import EncodeText
from s3prl_stream.pipes.tokenizers import (
    CharacterTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
    texts_of,
    train_sentencepiece,
)

__all__ = [
    "AutoregressivePrediction",
    "CharacterTokenizer",
    "EncodeText",
    "ExtractFeat",
    "LoadAudio",
    "MaskedReconstruction",
    "NoiseAugmentation",
    "NoiseBank",
    "NormWav",
    "OnBatch",
    "OnDevice",
    "RecordDraws",
    "Reverberation",
    "RirBank",
    "SentencePieceTokenizer",
    "SequentialDataPipe",
    "SoxEffects",
    "Stage",
    "Tokenizer",
    "UnfoldChunkBySec",
    "apply_effects",
    "load_tokenizer",
    "texts_of",
    "train_sentencepiece",
]
