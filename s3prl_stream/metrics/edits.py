"""Error rates by edit distance: substitutions, insertions and deletions over the length of the references.

They are of the whole corpus (all edits over all tokens), as is usual, not the mean of the rates of utterances; so they
may exceed 1. The distance is RapidFuzz's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from rapidfuzz.distance import Levenshtein

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics.classification import check_pairs


def error_rate(answers: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]) -> float:
    """Edits from answers to references over the tokens of the references.

    Args:
        answers, references: a sequence of tokens for each utterance; the characters of a string are tokens too.

    Raises:
        UsageError: not as many answers as references, or the references have no token.
    """
    check_pairs("error_rate", answers, references)
    num_tokens = sum(map(len, references))
    if not num_tokens:
        raise UsageError(f"error_rate: the {len(references)} references are all empty; a rate needs something to miss")
    return sum(map(Levenshtein.distance, answers, references)) / num_tokens


def wer(answers: Sequence[str], references: Sequence[str]) -> float:
    """Word error rate; words are what white space separates (S3PRL counts a double space as an empty word)."""
    return error_rate([text.split() for text in answers], [text.split() for text in references])


def cer(answers: Sequence[str], references: Sequence[str]) -> float:
    """Character error rate; a space is a character, as in S3PRL."""
    return error_rate(answers, references)


def per(answers: Sequence[str], references: Sequence[str]) -> float:
    """Phoneme error rate of phonemes separated by spaces."""
    return wer(answers, references)
