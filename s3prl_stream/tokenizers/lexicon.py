"""A lexicon: words and how they are pronounced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3prl_stream.errors import UsageError
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.text_lines import text_lines

UNKNOWN_PHONEME = "<unk>"


class Lexicon:
    """Words in upper case -> their phonemes; of several pronunciations the first.

    Args:
        pronunciations: word -> phonemes, as a list or as a text with spaces.
    """

    def __init__(self, pronunciations: Mapping[str, Sequence[str] | str]) -> None:
        self._phonemes: dict[str, str] = {}
        for word, phonemes in pronunciations.items():
            listed = phonemes.split() if isinstance(phonemes, str) else list(phonemes)
            if not word or not listed:
                raise UsageError(f"Lexicon: the word {word!r} has no phonemes")
            self._phonemes.setdefault(word.upper(), " ".join(listed))
        content = json.dumps(sorted(self._phonemes.items())).encode()
        self.fingerprint = hashlib.blake2b(content, digest_size=8).hexdigest()

    @classmethod
    def from_file(cls, *paths: str | Path) -> Lexicon:
        """From files with a line per pronunciation, as LibriSpeech's: the word, white space, its phonemes.

        Raises:
            UsageError: a file is missing or no UTF-8, or a line has no phonemes; the message says which.
        """
        found: dict[str, str] = {}
        for path in map(Path, paths):
            if not path.is_file():
                raise UsageError(f"{path}: there is no such lexicon")
            for where, text in text_lines(path):
                word, _, phonemes = text.strip().replace("\t", " ").partition(" ")
                if word and not phonemes.strip():
                    raise UsageError(f"{where}: the word {word!r:.80} has no phonemes")
                if word:
                    found.setdefault(word.upper(), phonemes)
        return cls(found)

    def save(self, path: str | Path) -> None:
        """Write the file that `from_file` reads, at once; its folder is made if there is none."""
        lines = (f"{word}\t{phonemes}\n" for word, phonemes in self._phonemes.items())
        LocalStore(Path(path).parent).write(Path(path).name, "".join(lines).encode())

    def __len__(self) -> int:
        return len(self._phonemes)

    def __contains__(self, word: str) -> bool:
        return word.upper() in self._phonemes

    def phonemes_of(self, text: str) -> tuple[str, list[str]]:
        """(the phonemes of a text, apart by spaces, with "<unk>" for unknown words; the unknown words)."""
        words = text.upper().split()
        unknown = [word for word in words if word not in self._phonemes]
        return " ".join(self._phonemes.get(word, UNKNOWN_PHONEME) for word in words), unknown

    def __repr__(self) -> str:
        return f"<Lexicon {len(self)} words, {self.fingerprint}>"
