"""Corpora: one function each, named as on the command line, that lists utterances without opening their audio.

Arguments are checked when the function is called; the utterances come from a generator.
"""

from __future__ import annotations

from s3prl_stream.corpora.folder import folder
from s3prl_stream.corpora.librispeech import librispeech
from s3prl_stream.corpora.manifest import manifest

__all__ = ["folder", "librispeech", "manifest"]
