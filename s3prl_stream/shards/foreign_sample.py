"""How the members of a WebDataset tar become samples: the rules, used alike by the index, the reader and the pipe.

A sample is what WebDataset makes of a tar: neighbouring files whose names agree up to the first dot of the last part
of their path. Of its files, one is audio; `.json` is metadata, `.txt` its text, `.cls` its label; others (pickles
among them) are left alone. Names are strings here and nothing else: no file is ever opened or written by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from s3prl_stream.errors import SampleError
from s3prl_stream.sample import with_free_names
from s3prl_stream.shards.bytes import metadata_of_json
from s3prl_stream.shards.keys import escape_foreign_key
from s3prl_stream.shards.layout import CODECS
from s3prl_stream.shards.tarwalk import Gap, Member, shown, walk

MAX_SAMPLE_BYTES = 1 << 30
"""From the first file that is needed to the last: a sample is read whole. 9 hours of 16-bit sound at 16 kHz."""
MAX_BYTES_OF = {"json": 4 << 20, "txt": 1 << 20, "cls": 4096}
"""Of the small files that are read."""

MAX_FILES = 1000
"""Of one sample."""

ORIGINAL = "original"
"""Suffix of Lhotse's Shar for audio in the format that it came in: its first bytes tell which."""

_SKIPPED = frozenset({"no_audio", "after_end", "too_long"})
_REFUSED = frozenset({"several_audio", "duplicate_member", "too_large", "not_a_file", "sparse", "path"})
_MAGIC = {b"fLaC": "flac", b"RIFF": "wav", b"OggS": "ogg"}
_META = re.compile(r"__[^/]*__(/|$)")


class Parts(NamedTuple):
    """The files of a sample that are used."""

    audio: Member
    codec: str
    """Of `CODECS`, or `ORIGINAL`: then `codec_of` tells."""
    json: Member | None
    text: Member | None
    label: Member | None

    @property
    def used(self) -> list[Member]:
        """In the order of the tar."""
        found = (self.audio, self.json, self.text, self.label)
        return sorted((one for one in found if one is not None), key=lambda one: one.start)


class Group(NamedTuple):
    """Neighbouring files of one key."""

    key: str
    """As WebDataset has it: with the folder, up to the first dot."""
    files: Sequence[tuple[str, Member]]
    """(suffix, file): what follows the first dot, in lower case."""
    touches_gap: bool
    """Damage stands right before or behind it that may have been a file of it."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Of all its files."""
        return frozenset(suffix for suffix, _ in self.files)


class Stray(NamedTuple):
    """An entry that can be no file of a sample, and why."""

    member: Member
    reason: str
    message: str


def kind_of(reason: str) -> str:
    """ "skipped" (of no use to anybody here), "refused" (sound, but not to be trusted) or "damaged"."""
    return "skipped" if reason in _SKIPPED else "refused" if reason in _REFUSED else "damaged"


def key_and_suffix(name: str, last_dot: bool = False) -> tuple[str, str] | None:
    """A file's key and suffix, as WebDataset cuts its name, or at its last dot; None: it belongs to no sample.

    "a/b.seg.flac" is ("a/b", "seg.flac"), or ("a/b.seg", "flac"). No sample have names without a dot, hidden
    files, and `__meta__` files.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.rpartition(".") if last_dot else base.partition(".")
    if not stem or not dot or _META.match(name):
        return None
    return f"{folder}{slash}{stem}", suffix.lower()


def group(entries: Iterable[Member | Gap], last_dot: bool = False) -> Iterator[Group | Gap | Stray]:
    """Samples, gaps and strays in the order of the tar; folders and files without a key are passed over."""

    def touches(key: str, gap: Gap | None) -> bool:
        """Whether what is lost in a gap may have been a file of this key."""
        if gap is None or gap.reason == "after_end":
            return False
        split = None if gap.name is None else key_and_suffix(gap.name, last_dot)
        return split is None or split[0] == key

    key: str | None = None
    files: list[tuple[str, Member]] = []
    behind: Gap | None = None
    for entry in entries:
        if isinstance(entry, Gap):
            if key is not None:
                yield Group(key, files, touches(key, behind) or touches(key, entry))
                key, files = None, []
            behind = entry
            yield entry
            continue
        stray = _stray(entry)
        if stray is not None:
            yield stray
            continue
        split = key_and_suffix(entry.name, last_dot) if entry.kind == "file" else None
        if split is None:
            continue
        if split[0] != key:
            if key is not None:
                yield Group(key, files, touches(key, behind))
                behind = None
            key, files = split[0], []
        if len(files) <= MAX_FILES:
            files.append((split[1], entry))
    if key is not None:
        yield Group(key, files, touches(key, behind))


def is_used(member: Member) -> bool:
    """True of a file whose content a sample may need; False of what `parts_of` would refuse for its size as well."""
    split = _place(member)
    if split is None:
        return False
    is_sound = split[1].rpartition(".")[2] in (*CODECS, ORIGINAL)
    return member.size <= MAX_BYTES_OF.get(split[1], MAX_SAMPLE_BYTES if is_sound else -1)


def parts_of(found: Group) -> Parts:
    """Which files of a sample are used.

    The audio is the file whose whole suffix is a codec (KEY.flac); without one, the only file whose suffix ends in a
    codec (KEY.mono.flac).

    Raises:
        SampleError: reason "no_audio", "several_audio", "duplicate_member" (a name stands twice), "too_large".
    """
    if len(found.files) > MAX_FILES:
        raise SampleError(f"more than {MAX_FILES} files of one name", reason="too_large")
    of_suffix: dict[str, Member] = {}
    for suffix, member in found.files:
        if suffix in of_suffix:
            raise SampleError(f"{shown(member.name)} stands twice in one sample", reason="duplicate_member")
        of_suffix[suffix] = member
    whole = [suffix for suffix in of_suffix if suffix in CODECS]
    audio = whole or [suffix for suffix in of_suffix if suffix.rpartition(".")[2] in (*CODECS, ORIGINAL)]
    if not audio:
        raise SampleError(f"no audio among {_listed(of_suffix)}; known are {', '.join(CODECS)}", reason="no_audio")
    if len(audio) > 1:
        raise SampleError(
            f"{len(audio)} files of audio ({_listed(audio)}); a sample has one. WebDataset cuts names at the first dot",
            reason="several_audio",
        )
    codec = audio[0].rpartition(".")[2]
    parts = Parts(of_suffix[audio[0]], codec, *map(of_suffix.get, MAX_BYTES_OF))
    for suffix, most in MAX_BYTES_OF.items():
        file = of_suffix.get(suffix)
        if file is not None and file.size > most:
            raise SampleError(f"{shown(file.name)} has {file.size} bytes, at most {most} are read", reason="too_large")
    size = parts.used[-1].end - parts.used[0].start
    if size > MAX_SAMPLE_BYTES:
        raise SampleError(f"the sample spans {size} bytes, at most {MAX_SAMPLE_BYTES} are read", reason="too_large")
    return parts


def codec_of(parts: Parts, head: bytes | memoryview) -> str:
    """The codec of a sample's audio.

    Args:
        head: its first 64 bytes.

    Raises:
        SampleError: reason "no_audio": of no name and no known beginning.
    """
    if parts.codec != ORIGINAL:
        return parts.codec
    head = bytes(head)
    if head[:4] in _MAGIC:
        return "opus" if b"OpusHead" in head else _MAGIC[head[:4]]
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        return "mp3"
    raise SampleError(
        f"{shown(parts.audio.name)} begins like none of {', '.join(CODECS)}: {head[:8].hex(' ')}", reason="no_audio"
    )


def metadata_of(parts: Parts, content: Callable[[Member], bytes]) -> dict[str, Any]:
    """Metadata of a sample: its JSON, with `text` and `label` from their own files where the JSON has none.

    A name that the stream gives to its own values (`sample_rate`, `key` ...) gets an underscore behind it.

    Raises:
        SampleError: reason "json" or "text".
    """
    values: dict[str, Any] = {}
    if parts.json is not None:
        values = with_free_names(metadata_of_json(content(parts.json), shown(parts.json.name)))
    if parts.text is not None:
        values.setdefault("text", _text(content(parts.text), parts.text.name))
    if parts.label is not None:
        text = _text(content(parts.label), parts.label.name).strip()
        values.setdefault("label", int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text)
    return values


def read_foreign(data: bytes, key: str, where: str, last_dot: bool = False) -> tuple[memoryview, str, dict[str, Any]]:
    """The bytes of one indexed sample -> (audio bytes, codec, metadata).

    Args:
        data: from the first file of the sample that is used to the last, with headers.
        key: as it stands in the index.
        where: for messages.
        last_dot: how keys were cut when the tar was indexed.

    Raises:
        SampleError: reason "key" (another sample lies there), "tar", "json", "text" ...
    """
    view = memoryview(data)
    files: list[tuple[str, Member]] = []
    others = []
    for entry in walk(lambda offset, size: data[offset : offset + size], 0, len(data)):
        if isinstance(entry, Gap):
            if entry.reason == "no_end":  # of course: it is a piece
                break
            raise SampleError(f"{where}: {entry.message}", reason="tar")
        split = _place(entry, last_dot)
        if split is not None and escape_foreign_key(split[0]) == key:
            files.append((split[1], entry))
        elif split is not None:
            others.append(split[0])
    if not files:
        what = shown(others[0]) if others else "no file"
        raise SampleError(f"{where}: found {what}. The tar is not the one that was indexed", reason="key")
    try:
        parts = parts_of(Group(key, files, False))
        metadata = metadata_of(parts, lambda member: data[member.content : member.content + member.size])
        audio = view[parts.audio.content : parts.audio.content + parts.audio.size]
        codec = codec_of(parts, audio[:64])
    except SampleError as error:
        raise SampleError(f"{where}: {error}", reason=error.reason) from None
    return audio, codec, metadata


def _place(member: Member, last_dot: bool = False) -> tuple[str, str] | None:
    """`key_and_suffix` of an entry; None: it is no file of a sample."""
    return key_and_suffix(member.name, last_dot) if member.kind == "file" and _stray(member) is None else None


def _stray(member: Member) -> Stray | None:
    """Why an entry can be no file of a sample; None: it may be one, or is an ordinary folder."""
    if member.kind == "folder":
        return None
    if member.kind != "file":
        return Stray(
            member, "sparse" if member.kind == "sparse" else "not_a_file", f"a {member.kind}, not a plain file"
        )
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return Stray(member, "path", "its path leads out of the folder that a tar is unpacked in")
    if "\0" in member.name or "\n" in member.name:
        return Stray(member, "path", "its name holds a zero or a line break")
    return None


def _listed(suffixes: Iterable[str]) -> str:
    names = [f".{suffix}" for suffix in suffixes]
    return ", ".join(shown(name)[1:-1] for name in names[:5]) + (", ..." if len(names) > 5 else "")


def _text(body: bytes, name: str) -> str:
    try:
        return body.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SampleError(f"{shown(name)}: not UTF-8 ({error})", reason="text") from None
