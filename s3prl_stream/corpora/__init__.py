"""Corpora: one function each, named as on the command line, that lists utterances without opening their audio.

Arguments are checked when the function is called; the utterances come from a generator.
"""

from __future__ import annotations

from s3prl_stream.corpora.corpus import Corpus, Option, WithFiles
from s3prl_stream.corpora.folder import FOLDER, folder
from s3prl_stream.corpora.librilight import LIBRILIGHT, librilight
from s3prl_stream.corpora.librispeech import LIBRISPEECH, librispeech
from s3prl_stream.corpora.ljspeech import LJSPEECH, ljspeech
from s3prl_stream.corpora.manifest import MANIFEST, manifest
from s3prl_stream.corpora.rttm import RTTM, rttm

CORPORA = (LIBRISPEECH, LIBRILIGHT, LJSPEECH, RTTM, FOLDER, MANIFEST)
"""What `s3prl-stream pack` offers, in the order of its help."""

__all__ = [
    "CORPORA",
    "Corpus",
    "Option",
    "WithFiles",
    "folder",
    "librilight",
    "librispeech",
    "ljspeech",
    "manifest",
    "rttm",
]
