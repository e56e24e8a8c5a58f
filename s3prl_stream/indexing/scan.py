"""One tar made elsewhere, read for its index: headers of the tar and of the audio, small files, no bodies.

Works in a process of its own: the rows of a tar go to a scratch file, a summary comes back.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.glued import end_of_first
from s3prl_stream.errors import SampleError, ShardError
from s3prl_stream.hashing import key_hash
from s3prl_stream.indexing.table_lengths import LengthsOfTar, TableDiffers, TableLengths
from s3prl_stream.shards.foreign_sample import Group, Stray, codec_of, group, kind_of, metadata_of, parts_of
from s3prl_stream.shards.keys import escape_foreign_key
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.rows import metadata_kinds, storable
from s3prl_stream.shards.tar_reads import FoundOffsets, HashedTar, Windows
from s3prl_stream.shards.tarheader import compression_of, is_header
from s3prl_stream.shards.tarwalk import Gap, Member, has_header, shown, walk
from s3prl_stream.stores.store import open_store

MAX_SUFFIXES = 100
MAX_NAMES = 10_000
"""Of metadata in one tar, and of suffixes of files: what is more is no schema."""

MAX_LEFT_OUT = 200_000
"""Of one tar: what has more that is of no use is no data set, and its list would fill the memory."""

_FIRST_HEADER_WITHIN = 16 << 20


class ScanTask(NamedTuple):
    """What a worker is asked to do."""

    base: str
    """URL or path of the folder of the tars."""
    name: str
    """Of the tar, in that folder."""
    full: bool
    """Read every byte: CRC-32C of each sample, SHA-256 of the tar."""
    scratch: str
    """File for the rows."""
    lengths: str | None = None
    """File of `table_lengths.write_lengths`."""
    split: str | None = None
    """Metadata `split` of all its samples."""
    last_dot: bool = False
    """Keys end at the last dot of a name."""


class Scan(NamedTuple):
    """What one tar holds."""

    name: str
    scratch: str
    """File with the rows."""
    num_bytes: int
    end: int
    """Of its last member."""
    sha256: str | None
    hashes: npt.NDArray[np.uint64]
    """Of the rows' keys, in the order of the scratch file."""
    crc32c: npt.NDArray[np.uint32] | None
    """Of the samples of the rows; None: not computed."""
    doubtful: frozenset[int]
    """Numbers of rows that are left out after all."""
    left_out: list[LeftOut]
    suffixes: dict[str, int]
    """Of all files, with how often each is there."""
    kinds: dict[str, set[str]]
    """Metadata name -> kinds of its values."""
    name_counts: dict[str, int]
    """Metadata name -> how many samples have it."""
    num_decoded: int
    """Clips whose length no header told."""
    num_believed: int
    """Clips whose length is the table's."""
    num_measured: int
    """Clips that were measured to check the table."""
    table_differs: str | None
    """Where it was found wrong, so that nothing of it was believed."""
    offsets: str
    """The `.tar.idx` beside the tar: "none", "used" or "wrong"."""
    glued: list[str]
    """Keys of clips behind which another lies in their file, as far as the bytes tell that were read."""


class NotATar(ShardError):
    """A file that cannot be indexed at all; `reason` is "missing", "compressed", "not_a_tar" or "unreadable"."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def kind(self) -> str:
        """As in `LeftOut`."""
        return "refused" if self.reason == "compressed" else "damaged"

    def __reduce__(self) -> tuple[object, ...]:
        return NotATar, (self.args[0], self.reason)


def scanned_rows(scan: Scan) -> Iterator[dict[str, Any]]:
    """The rows of a tar from its scratch file: key, source_key, offset, size, crc32c, codec ... and metadata."""
    with open(scan.scratch, encoding="utf-8") as scratch:
        crc32c = itertools.repeat(None) if scan.crc32c is None else scan.crc32c.tolist()
        for line, checksum in zip(scratch, crc32c, strict=False):
            yield {**json.loads(line), "crc32c": checksum}


def note_metadata(metadata: Mapping[str, Any], kinds: dict[str, set[str]], name_counts: dict[str, int]) -> None:
    """Count names and kinds of one more sample's metadata, as in `Scan`."""
    for name, found in metadata_kinds([metadata]).items():
        kinds.setdefault(name, set()).update(found)
        name_counts[name] = name_counts.get(name, 0) + 1


def scan_tar(task: ScanTask) -> Scan | NotATar:
    """Runs in a worker; an error about the tar as a whole comes back as a value, so it keeps its place in the order."""
    try:
        return _Scanner(task).scan()
    except TableDiffers as error:
        found = scan_tar(task._replace(lengths=None))
        return found if isinstance(found, NotATar) else found._replace(table_differs=str(error))
    except NotATar as error:
        return error
    except ShardError as error:  # the store cannot read it
        return NotATar(str(error), "unreadable")


class _Scanner:
    def __init__(self, task: ScanTask) -> None:
        self.task = task
        self.store = open_store(task.base)
        size = self.store.size(task.name)
        if size is None:
            raise NotATar(f"{self.store.url}/{task.name}: no such file.", "missing")
        self.num_bytes = size
        self.end = 0
        self.windows = Windows(self.store, task.name, size)
        self.left_out: list[LeftOut] = []
        self.suffixes: Counter[str] = Counter()
        self.usual: Counter[frozenset[str]] = Counter()
        self.beside_gaps: list[tuple[int, Group, dict[str, Any]]] = []
        self.kinds: dict[str, set[str]] = {}
        self.name_counts: dict[str, int] = {}
        self.num_decoded = 0
        self.audio: Member
        self.glued: dict[str, None] = {}
        self.lengths = LengthsOfTar(None if task.lengths is None else TableLengths(task.lengths))

    def scan(self) -> Scan:
        self._refuse_what_is_no_tar()
        offsets = FoundOffsets(self.store, self.task.name, self.num_bytes)
        hashes: list[int] = []
        samples: list[tuple[dict[str, Any], Member]] = []
        starts: list[int] = []
        with open(self.task.scratch, "w", encoding="utf-8") as scratch:
            for found in group(self._entries(offsets), self.task.last_dot):
                if isinstance(found, Gap):
                    message = f"bytes {found.start} to {found.end}: {found.message}"
                    self._list("", self.task.name, found.reason, message)
                    continue
                if isinstance(found, Stray):
                    self._leave_out("", found.member, found.reason, found.message)
                    continue
                starts.append(found.files[0][1].start)
                row = self._row(found)
                if row is None:
                    continue
                if found.touches_gap:
                    self.beside_gaps.append((len(hashes), found, row))
                hashes.append(key_hash(row["key"]))
                samples.append((row, self.audio))
                scratch.write(json.dumps(row) + "\n")
        crc32c, sha256 = self._read_all(samples) if self.task.full else (None, None)
        doubtful = self._doubtful()
        return Scan(
            name=self.task.name,
            scratch=self.task.scratch,
            num_bytes=self.num_bytes,
            end=self.end,
            sha256=sha256,
            hashes=np.array(hashes, dtype=np.uint64),
            crc32c=crc32c,
            doubtful=doubtful,
            left_out=self.left_out,
            suffixes=dict(self.suffixes),
            kinds=self.kinds,
            name_counts=self.name_counts,
            num_decoded=self.num_decoded,
            num_believed=self.lengths.num_believed,
            num_measured=self.lengths.num_measured,
            table_differs=None,
            offsets=offsets.verdict(starts),
            glued=list(self.glued),
        )

    def _refuse_what_is_no_tar(self) -> None:
        first = self.windows.read(0, 512)
        url = f"{self.store.url}/{self.task.name}"
        if kind := compression_of(first):
            what = f"compressed by {kind}; a sample in it has no place of its own. Unpack it to a .tar"
            raise NotATar(f"{url}: {what}.", "compressed")
        if not first:
            raise NotATar(f"{url}: the file has no bytes.", "not_a_tar")
        if any(first) and not is_header(first) and not has_header(self.windows.read, 512, _FIRST_HEADER_WITHIN):
            looked = min(self.num_bytes, _FIRST_HEADER_WITHIN)
            raise NotATar(f"{url}: not a tar (no tar header in its first {looked} bytes).", "not_a_tar")

    def _entries(self, offsets: FoundOffsets) -> Iterator[Member | Gap]:
        for entry in walk(self.windows.read, 0, self.num_bytes):
            if isinstance(entry, Member):
                self.end = max(self.end, entry.end)
                offsets.fetch_ahead(entry.end)
                if entry.kind == "file":
                    suffix = entry.name.rpartition("/")[2].partition(".")[2].lower()[:40]
                    suffix = suffix if suffix.isprintable() else ascii(suffix)[1:-1]
                    known = suffix in self.suffixes or len(self.suffixes) < MAX_SUFFIXES
                    self.suffixes[suffix if known else "..."] += 1
            yield entry

    def _row(self, found: Group) -> dict[str, Any] | None:
        """What the index says of a sample; None: it is left out."""
        try:
            parts = parts_of(found)
            metadata = metadata_of(parts, lambda member: self.windows.read(member.content, member.size))
            if self.task.split is not None:
                metadata["split"] = self.task.split
            audio = parts.audio
            codec = codec_of(parts, self.windows.read(audio.content, min(audio.size, 64)))
            length = self.lengths.length(
                found.key,
                lambda at, size: self.windows.read(audio.content + at, min(size, audio.size - at)),
                audio.size,
                codec,
            )
        except SampleError as error:
            self._leave_out(found.key, found.files[0][1], error.reason, str(error))
            return None
        if not found.touches_gap:
            self.usual[found.suffixes] += 1
        self.num_decoded += length.was_decoded
        self.audio = audio
        if length.is_glued:
            self.glued[found.key] = None
        start, end = parts.used[0].start, parts.used[-1].end
        return {
            "key": escape_foreign_key(found.key),
            "source_key": found.key,
            "offset": start,
            "size": end - start,
            "codec": codec,
            "sample_rate": length.sample_rate,
            "frames": length.frames,
            "metadata": self._columns_of(metadata),
        }

    def _columns_of(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The scalars that an index can hold; lists, objects and odd names stay with the sample."""
        columns = {}
        for name, value in metadata.items():
            if not isinstance(value, str | int | float) or not name or not name.isprintable():
                continue
            if name not in self.name_counts and len(self.name_counts) >= MAX_NAMES:
                continue
            columns[name] = storable(value)
        note_metadata(columns, self.kinds, self.name_counts)
        return columns

    def _leave_out(self, key: str, member: Member, reason: str, message: str) -> None:
        self._list(key, f"{self.task.name}: {shown(member.name)}", reason, f"byte {member.start}: {message}")

    def _list(self, key: str, audio: str, reason: str, message: str) -> None:
        if len(self.left_out) == MAX_LEFT_OUT:
            why = f"more than {MAX_LEFT_OUT} of its entries are of no use; the first: {self.left_out[0].message}"
            raise NotATar(f"{self.store.url}/{self.task.name}: {why}.", "not_a_tar")
        self.left_out.append(LeftOut(escape_foreign_key(key), audio, kind_of(reason), reason, message))

    def _doubtful(self) -> frozenset[int]:
        """Samples beside damage that lack a kind of file which the other samples of the tar have."""
        usual = self.usual.most_common(1)[0][0] if self.usual else None
        doubtful = set()
        for number, found, row in self.beside_gaps:
            if usual is not None and found.suffixes >= usual:
                continue
            doubtful.add(number)
            message = "stands beside damage, and may have lost a file to it"
            self._leave_out(row["source_key"], found.files[0][1], "beside_damage", message)
        return frozenset(doubtful)

    def _read_all(self, samples: list[tuple[dict[str, Any], Member]]) -> tuple[npt.NDArray[np.uint32], str]:
        """CRC-32C of each (row, audio), and SHA-256 of the tar, by one reading from front to back."""
        import google_crc32c

        tar = HashedTar(self.store, self.task.name, self.num_bytes)
        crc32c = np.zeros(len(samples), dtype=np.uint32)
        try:
            for number, (row, audio) in enumerate(samples):
                tar.keep_from = row["offset"]
                data = tar.read(row["offset"], row["size"])
                crc32c[number] = google_crc32c.value(data)
                begin = audio.content - row["offset"]
                if end_of_first(memoryview(data)[begin : begin + audio.size]) is not None:
                    self.glued[row["source_key"]] = None
        except SampleError as error:
            raise ShardError(str(error)) from None
        sha256 = tar.finish()
        if sha256 is None:
            raise ShardError(f"{self.store.url}/{self.task.name}: the disk cannot read all of it.")
        return crc32c, sha256
