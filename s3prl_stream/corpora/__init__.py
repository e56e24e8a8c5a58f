"""Corpora: one function each, named as on the command line, that lists utterances without opening their audio.

Arguments are checked when the function is called; the utterances come from a generator.
"""

from __future__ import annotations

from s3prl_stream.corpora.audiosnips import AUDIOSNIPS, audiosnips
from s3prl_stream.corpora.corpus import Corpus, Option, WithFiles
from s3prl_stream.corpora.fluentspeechcommands import FLUENTSPEECHCOMMANDS, fluentspeechcommands
from s3prl_stream.corpora.folder import FOLDER, folder
from s3prl_stream.corpora.iemocap import IEMOCAP, iemocap
from s3prl_stream.corpora.librilight import LIBRILIGHT, librilight
from s3prl_stream.corpora.librispeech import LIBRISPEECH, librispeech
from s3prl_stream.corpora.ljspeech import LJSPEECH, ljspeech
from s3prl_stream.corpora.manifest import MANIFEST, manifest
from s3prl_stream.corpora.quesst14 import QUESST14, quesst14
from s3prl_stream.corpora.rttm import RTTM, rttm
from s3prl_stream.corpora.speechcommands import SPEECHCOMMANDS, speechcommands
from s3prl_stream.corpora.voxceleb1 import VOXCELEB1, voxceleb1
from s3prl_stream.corpora.voxpopuli import VOXPOPULI, voxpopuli

# fmt: off
CORPORA = (
    LIBRISPEECH, LIBRILIGHT, VOXPOPULI, LJSPEECH,
    VOXCELEB1, SPEECHCOMMANDS, FLUENTSPEECHCOMMANDS, AUDIOSNIPS, IEMOCAP, QUESST14,
    RTTM, FOLDER, MANIFEST,
)
# fmt: on
"""What `s3prl-stream pack` offers, in the order of its help."""

__all__ = [
    "CORPORA",
    "Corpus",
    "Option",
    "WithFiles",
    "audiosnips",
    "fluentspeechcommands",
    "folder",
    "iemocap",
    "librilight",
    "librispeech",
    "ljspeech",
    "manifest",
    "quesst14",
    "rttm",
    "speechcommands",
    "voxceleb1",
    "voxpopuli",
]
