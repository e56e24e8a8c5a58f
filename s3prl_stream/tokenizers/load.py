"""Files of tokenizers: which kind one is, its content tells."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from s3prl_stream.errors import UsageError
from s3prl_stream.json_files import json_object
from s3prl_stream.tokenizers.slots import SlotTokenizer
from s3prl_stream.tokenizers.subwords import SentencePieceTokenizer
from s3prl_stream.tokenizers.tokenizer import Tokenizer
from s3prl_stream.tokenizers.vocabulary import CharacterTokenizer, WordTokenizer

MAX_FILE_BYTES = 64 << 20
"""A tokenizer file larger than this is not read: real ones hold a few megabytes at most."""


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote, or a SentencePiece `.model` made elsewhere with the same special ids.

    Raises:
        UsageError: there is no such file, or it is no tokenizer.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such tokenizer file.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"{path}: {path.stat().st_size} bytes are more than a tokenizer's ({MAX_FILE_BYTES}).")
    try:
        return tokenizer_of_bytes(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path}: this is no tokenizer: {error}") from None


def tokenizer_of_bytes(content: bytes) -> Tokenizer:
    """The tokenizer whose `to_bytes` these are.

    Raises:
        ValueError: of none.
    """
    if not content.startswith(b"{"):
        return SentencePieceTokenizer(content)
    fields = json_object(content)
    if fields.get("kind") == "characters" and isinstance(fields.get("characters"), str):
        return CharacterTokenizer(fields["characters"])
    if fields.get("kind") == "words" and _is_list_of_texts(fields.get("words")):
        return WordTokenizer(fields["words"])
    slots = fields.get("slots", [])
    if fields.get("kind") == "slots" and isinstance(fields.get("words"), str) and _is_list_of_texts(slots):
        return SlotTokenizer(tokenizer_of_bytes(base64.b64decode(fields["words"])), slots)
    raise UsageError('its fields should be "kind": "characters", "words" or "slots", and what belongs to them')


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
