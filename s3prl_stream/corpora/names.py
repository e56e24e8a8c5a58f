"""Patterns such as "{digit}_{speaker}_{take}" that read metadata from the names of files."""

from __future__ import annotations

import re

from s3prl_stream.errors import UsageError

_FIELD = re.compile(r"\{(\w+)\}")


class NamePattern:
    """A name pattern.

    A field matches one or more characters, but no slash and none of the pattern's own dividers (what is neither a
    letter nor a digit in the text between fields), so a name with one part too many does not match by luck.

    Args:
        pattern: text with {field} in it. With a slash it is held against the path below the root, without one
            against the file's name; both without suffix.

    Raises:
        UsageError: no field, a field named twice, or two fields with nothing between them.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        literals_and_fields = _FIELD.split(pattern)
        literals, self.fields = literals_and_fields[::2], literals_and_fields[1::2]
        if not self.fields or any(brace in literal for literal in literals for brace in "{}"):
            raise UsageError(f"pattern {pattern!r}: expected fields in braces, as in {{digit}}_{{speaker}}_{{take}}.")
        if len(set(self.fields)) != len(self.fields) or any(field[0].isdigit() for field in self.fields):
            raise UsageError(f"pattern {pattern!r}: every field needs a name of its own that begins with a letter.")
        if not all(literals[1:-1]):
            raise UsageError(f"pattern {pattern!r}: two fields with nothing between them cannot be told apart.")
        dividers = {char for literal in literals for char in literal if not char.isalnum()} | {"/"}
        value = f"[^{re.escape(''.join(sorted(dividers)))}]+"
        parts = [re.escape(literals[0])]
        for field, literal in zip(self.fields, literals[1:], strict=True):
            parts.append(f"(?P<{field}>{value}){re.escape(literal)}")
        self._regex = re.compile("".join(parts))

    def match(self, path: str) -> dict[str, str] | None:
        """Field -> text for a path below the root, with slashes and without suffix; None if it does not match."""
        found = self._regex.fullmatch(path if "/" in self.pattern else path.rpartition("/")[2])
        return None if found is None else found.groupdict()
