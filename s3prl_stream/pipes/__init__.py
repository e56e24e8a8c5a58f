"""The stages. Importing this package registers their chained methods, as in `source.norm_wav()`."""

from __future__ import annotations

from s3prl_stream.pipes.add_noise import NoiseAugmentation
from s3prl_stream.pipes.categories import Categories
from s3prl_stream.pipes.chunk import UnfoldChunkByFrame, UnfoldChunkBySec
from s3prl_stream.pipes.crop import RandomCrop
from s3prl_stream.pipes.effects import apply_effects
from s3prl_stream.pipes.encode_category import EncodeCategory, EncodeMultiLabel, EncodeMultipleCategory
from s3prl_stream.pipes.features import ExtractFeat
from s3prl_stream.pipes.function import SampleFunction
from s3prl_stream.pipes.load_audio import LoadAudio
from s3prl_stream.pipes.load_feat import LoadFeat
from s3prl_stream.pipes.mask import MaskedReconstruction
from s3prl_stream.pipes.mask_spans import SpanMask
from s3prl_stream.pipes.mix_utterances import MixUtterances
from s3prl_stream.pipes.noise_bank import NoiseBank
from s3prl_stream.pipes.norm_wav import NormWav
from s3prl_stream.pipes.on_batch import OnBatch
from s3prl_stream.pipes.on_device import OnDevice
from s3prl_stream.pipes.perturb_speed import SpeedPerturbation
from s3prl_stream.pipes.phonemize import Phonemize
from s3prl_stream.pipes.random_gain import RandomGain
from s3prl_stream.pipes.record_draws import RecordDraws
from s3prl_stream.pipes.reverberate import Reverberation
from s3prl_stream.pipes.rooms import RirBank
from s3prl_stream.pipes.select import SetOutputKeys
from s3prl_stream.pipes.sequential import SequentialDataPipe
from s3prl_stream.pipes.shift import AutoregressivePrediction
from s3prl_stream.pipes.sox_effects import SoxEffects
from s3prl_stream.pipes.spec_augment import SpecAugment
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.pipes.tag_frames import BuildMultiClassTagging
from s3prl_stream.pipes.tokenize import EncodeText, texts_of
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.load import load_tokenizer
from s3prl_stream.tokenizers.slots import SlotTokenizer
from s3prl_stream.tokenizers.subwords import SentencePieceTokenizer, train_sentencepiece
from s3prl_stream.tokenizers.tokenizer import Tokenizer
from s3prl_stream.tokenizers.vocabulary import CharacterTokenizer, WordTokenizer

__all__ = [
    "AutoregressivePrediction",
    "BuildMultiClassTagging",
    "Categories",
    "CharacterTokenizer",
    "EncodeCategory",
    "EncodeMultiLabel",
    "EncodeMultipleCategory",
    "EncodeText",
    "ExtractFeat",
    "Lexicon",
    "LoadAudio",
    "LoadFeat",
    "MaskedReconstruction",
    "MixUtterances",
    "NoiseAugmentation",
    "NoiseBank",
    "NormWav",
    "OnBatch",
    "OnDevice",
    "Phonemize",
    "RandomCrop",
    "RandomGain",
    "RecordDraws",
    "Reverberation",
    "RirBank",
    "SampleFunction",
    "SentencePieceTokenizer",
    "SequentialDataPipe",
    "SetOutputKeys",
    "SlotTokenizer",
    "SoxEffects",
    "SpanMask",
    "SpecAugment",
    "SpeedPerturbation",
    "Stage",
    "Tokenizer",
    "UnfoldChunkByFrame",
    "UnfoldChunkBySec",
    "WordTokenizer",
    "apply_effects",
    "load_tokenizer",
    "texts_of",
    "train_sentencepiece",
]
