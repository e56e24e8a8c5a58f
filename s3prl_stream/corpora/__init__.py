"""Corpora: one function each, named as on the command line, that lists utterances without opening their audio.

Arguments are checked when the function is called; the utterances come from a generator.
"""

from __future__ import annotations

from s3prl_stream.corpora.audiosnips import AUDIOSNIPS, audiosnips
from s3prl_stream.corpora.commonvoice import COMMONVOICE, commonvoice
from s3prl_stream.corpora.corpus import Corpus, Option, WithFiles
from s3prl_stream.corpora.esc50 import ESC50, esc50
from s3prl_stream.corpora.fluentspeechcommands import FLUENTSPEECHCOMMANDS, fluentspeechcommands
from s3prl_stream.corpora.folder import FOLDER, folder
from s3prl_stream.corpora.fsd50k import FSD50K, fsd50k
from s3prl_stream.corpora.huggingface import HUGGINGFACE, huggingface
from s3prl_stream.corpora.iemocap import IEMOCAP, iemocap
from s3prl_stream.corpora.kaldi import KALDI, kaldi
from s3prl_stream.corpora.lhotse import LHOTSE, lhotse
from s3prl_stream.corpora.librilight import LIBRILIGHT, librilight
from s3prl_stream.corpora.librimix import LIBRIMIX, librimix
from s3prl_stream.corpora.librispeech import LIBRISPEECH, librispeech
from s3prl_stream.corpora.ljspeech import LJSPEECH, ljspeech
from s3prl_stream.corpora.manifest import MANIFEST, manifest
from s3prl_stream.corpora.musan import MUSAN, musan
from s3prl_stream.corpora.quesst14 import QUESST14, quesst14
from s3prl_stream.corpora.rirs import RIRS, rirs
from s3prl_stream.corpora.rttm import RTTM, rttm
from s3prl_stream.corpora.speechcommands import SPEECHCOMMANDS, speechcommands
from s3prl_stream.corpora.voxceleb1 import VOXCELEB1, voxceleb1
from s3prl_stream.corpora.voxpopuli import VOXPOPULI, voxpopuli

# fmt: off
CORPORA = (
    LIBRISPEECH, LIBRILIGHT, VOXPOPULI, COMMONVOICE, LJSPEECH,
    VOXCELEB1, SPEECHCOMMANDS, FLUENTSPEECHCOMMANDS, AUDIOSNIPS, IEMOCAP, QUESST14, LIBRIMIX,
    MUSAN, RIRS, ESC50, FSD50K,
    FOLDER, MANIFEST, RTTM, KALDI, LHOTSE, HUGGINGFACE,
)
# fmt: on
"""What `s3prl-stream pack` offers, in the order of its help."""

__all__ = [
    "CORPORA",
    "Corpus",
    "Option",
    "WithFiles",
    "audiosnips",
    "commonvoice",
    "esc50",
    "fluentspeechcommands",
    "folder",
    "fsd50k",
    "huggingface",
    "iemocap",
    "kaldi",
    "lhotse",
    "librilight",
    "librimix",
    "librispeech",
    "ljspeech",
    "manifest",
    "musan",
    "quesst14",
    "rirs",
    "rttm",
    "speechcommands",
    "voxceleb1",
    "voxpopuli",
]
