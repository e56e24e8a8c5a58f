"""Texts whose words carry slots (spoken language understanding): the slots' borders are tokens among those of the text.

"set alarm for nine" with the tags "O O O time" becomes s e t ... f o r, B-time, n i n e, E-time: what a network that
hears the words has to write down as well. S3PRL's ids for slot filling on SNIPS.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence

from s3prl_stream.errors import UsageError
from s3prl_stream.tokenizers.tokenizer import EOS_ID, Tokenizer
from s3prl_stream.tokenizers.vocabulary import CharacterTokenizer

OUTSIDE = "O"


class SlotTokenizer(Tokenizer):
    """Another tokenizer's ids for the words, then ids for the borders of slots.

    Args:
        words: encodes the words: characters (with a space among them, which stands between words) or subwords.
        slots: names of the slots, without "O", each once. Slot number n begins with the id
            words.vocab_size + 2 * n and ends with the one after it.
    """

    def __init__(self, words: Tokenizer, slots: Sequence[str]) -> None:
        names = tuple(slots)
        wrong = [name for name in names if len(name.split()) != 1 or name == OUTSIDE]
        if wrong or not names or len(set(names)) < len(names):
            raise UsageError(
                f"SlotTokenizer: the slots must be names without white space, each once, and without {OUTSIDE!r}; "
                f"found {list(names)!r:.200}."
            )
        self.words = words
        self.slots = names
        self._first = words.vocab_size
        # subwords hold their spaces themselves
        self._space = words.encode(" ", eos=False) if isinstance(words, CharacterTokenizer) else []

    def encode(self, text: str, *, eos: bool = True) -> list[int]:
        """The words alone, without any slot."""
        return self.words.encode(text, eos=eos)

    def encode_slots(self, text: str, tags: str, *, eos: bool = True) -> list[int]:
        """The words with the borders of their slots.

        Args:
            text: words, apart by spaces.
            tags: for each word the name of its slot, or "O"; neighbours of one name are in one slot. The words BOS and
                EOS at the ends, as the SNIPS corpus has them, are left out with their tags.

        Raises:
            UsageError: another number of tags than of words, or an unknown slot.
        """
        words, names = text.split(), tags.split()
        if len(words) != len(names):
            raise UsageError(f"{len(words)} words have {len(names)} tags: {text!r:.80}, {tags!r:.80}")
        pairs = list(zip(words, names, strict=True))
        if pairs and pairs[0][0] == "BOS":
            pairs = pairs[1:]
        if pairs and pairs[-1][0] == "EOS":
            pairs = pairs[:-1]
        ids: list[int] = []
        for position, (word, tag) in enumerate(pairs):
            if position:
                ids += self._space
            if tag != OUTSIDE and (position == 0 or pairs[position - 1][1] != tag):
                ids.append(self._begin(tag))
            ids += self.words.encode(word, eos=False)
            if tag != OUTSIDE and (position == len(pairs) - 1 or pairs[position + 1][1] != tag):
                ids.append(self._begin(tag) + 1)
        return [*ids, EOS_ID] if eos else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Words, and B-slot and E-slot as words of their own."""
        parts: list[str] = []
        run: list[int] = []
        for token in self._check_ids(ids):
            if token < self._first:
                run.append(token)
                continue
            parts.append(self.words.decode(run))
            run = []
            slot, is_end = divmod(token - self._first, 2)
            parts.append(f"{'BE'[is_end]}-{self.slots[slot]}")
        parts.append(self.words.decode(run))
        return " ".join(" ".join(parts).split())

    @property
    def vocab_size(self) -> int:
        return self._first + 2 * len(self.slots)

    def to_bytes(self) -> bytes:
        """A JSON file that holds the other tokenizer's as well."""
        words = base64.b64encode(self.words.to_bytes()).decode()
        return json.dumps({"kind": "slots", "slots": list(self.slots), "words": words}, indent=1).encode()

    def _begin(self, slot: str) -> int:
        if slot not in self.slots:
            raise UsageError(f"the slot {slot!r} is unknown; there are {', '.join(self.slots)}")
        return self._first + 2 * self.slots.index(slot)
