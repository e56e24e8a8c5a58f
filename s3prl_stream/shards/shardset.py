"""`open_shards`: one set or several as one collection of shards, numbered through."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Item, Sample
from s3prl_stream.shards.extra_files import read_extra_file
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.member import Rows, SetMember
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.weights import Weights, by_temperature, normalised
from s3prl_stream.stores.at_once import at_once
from s3prl_stream.stores.braces import existing_or_expanded
from s3prl_stream.stores.store import NOTHING_AHEAD, Ahead, is_remote, local_path, paths_in

if TYPE_CHECKING:
    import pyarrow as pa


class ShardSet:
    """Shards of one or several sets under one numbering.

    Args:
        members: sets with different names, because a sample's identity is (set, key).
        weights: shares of the delivered audio, one a set, summing to 1; None: every clip once an epoch.

    Raises:
        UsageError: two sets of one name, or none at all.
    """

    def __init__(self, members: Sequence[SetMember], weights: Weights | None = None) -> None:
        self.members = list(members)
        self.weights = weights
        names = [member.name for member in self.members]
        if not names:
            raise UsageError("no shard sets given")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(
                f"two of the sets are called {twice!r}; a sample's identity is (set, key). Pack one of "
                "them with another name= (--name), of samples in memory give MemoryShards(samples, name); a part that "
                "`subset` made is called like the whole"
            )
        self.name = "+".join(names)
        self.shard_samples = np.concatenate([member.shard_samples for member in self.members])
        self.shard_seconds = np.concatenate([member.shard_seconds for member in self.members])
        self._first_shard = np.cumsum([0, *(len(member.shard_names) for member in self.members)])
        text = "\n".join(map(name_and_fingerprint, self.members))
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return int(self.shard_samples.sum())

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return float(self.shard_seconds.sum()) / 3600

    @property
    def num_shards(self) -> int:
        """Number of shards over all sets."""
        return len(self.shard_samples)

    def locate(self, shard: int) -> tuple[int, int]:
        """Global shard number -> (which set, shard number in that set)."""
        member = int(np.searchsorted(self._first_shard, shard, side="right")) - 1
        return member, shard - int(self._first_shard[member])

    def shard_name(self, shard: int) -> str:
        """File name of a shard by its global number."""
        member, local = self.locate(shard)
        return self.members[member].shard_names[local]

    def rows(self, shard: int) -> Rows:
        """Index rows of a shard by its global number."""
        member, local = self.locate(shard)
        return self.members[member].rows(local)

    def rows_of(self, shards: Sequence[int]) -> list[Rows]:
        """Index rows of some shards by their global numbers."""
        return list(at_once(self.rows, shards, is_remote=self.is_remote))

    def read(self, item: Item) -> Sample:
        """One sample's metadata and audio."""
        return self.members[item.set_index].read(item)

    @property
    def is_remote(self) -> bool:
        """True where bytes of any set come over a network."""
        return any(member.is_remote for member in self.members)

    @property
    def default_run(self) -> int:
        """Neighbours that a stream keeps together if it is not told: a run is one request, so local sets need none."""
        return min(member.run for member in self.members) if self.is_remote else 1

    def read_ahead(self, items: Sequence[Item]) -> Ahead:
        """Begin to read samples whose `read` will follow; until closed. Local sets leave that to the system."""
        if not self.is_remote:
            return NOTHING_AHEAD
        of_set: dict[int, list[Item]] = {}
        for item in items:
            of_set.setdefault(item.set_index, []).append(item)
        ahead = contextlib.ExitStack()
        for set_index, some in of_set.items():
            ahead.callback(self.members[set_index].read_ahead(some).close)
        return ahead

    def columns(self) -> dict[str, str]:
        """Index columns that every set has, with their Arrow types."""
        first, *others = self._columns_of_each().values()
        return {name: kind for name, kind in first.items() if all(name in other for other in others)}

    def where_is(self, column: str) -> str:
        """Of several sets, which have a column that some lack: "in a, not in b"; else nothing."""
        columns = self._columns_of_each()
        having = [name for name, of_set in columns.items() if column in of_set]
        lacking = [name for name in columns if name not in having]
        return f"in {', '.join(having)}, not in {', '.join(lacking)}" if having and lacking else ""

    def _columns_of_each(self) -> dict[str, dict[str, str]]:
        """By the name of the set."""
        found = at_once(lambda member: (member.name, member.columns()), self.members, is_remote=self.is_remote)
        return dict(found)

    def known_columns(self, missing: str) -> str:
        """What a message says about a column that is not among `columns`: where it is, and what there is."""
        found = self.where_is(missing)
        owner = f"it is {found}; all have" if found else "the index has" if len(self.members) == 1 else "all sets have"
        return f"{owner} {', '.join(self.columns())}"

    def extra_file(self, name: str) -> bytes:
        """A small file that goes with the set, such as trials.txt.

        Raises:
            UsageError: these are several sets, or samples in memory, or the set has no such file.
            ShardError: the file is missing or not as it was packed.
        """
        member = self.members[0]
        if len(self.members) != 1 or not isinstance(member, ShardFolder):
            raise UsageError(f"{self.name}: extra files are those of one packed set; open it alone.")
        return read_extra_file(member.store, member.manifest, name)

    def table(self) -> pa.Table:
        """The whole index as one table: the rows of every set, with the set's name in `set`."""
        import pyarrow

        tables = []
        for member in self.members:
            names = list(member.columns())
            table = pyarrow.Table.from_batches(list(member.batches(names)))
            tables.append(table.append_column("set", pyarrow.array([member.name] * table.num_rows)))
        return pyarrow.concat_tables(tables, promote_options="permissive")

    def __repr__(self) -> str:
        return f"{self.name}: {len(self)} samples, {self.hours:.2f} h in {self.num_shards} shards"


def open_shards(
    url: str | Path | Sequence[str | Path] | Mapping[str, float], *, temperature: float | None = None
) -> ShardSet:
    """Open a packed set, or several as one.

    Args:
        url: folder of a set, or a list of them (an epoch delivers every clip of all sets once), in which braces stand
            for several ("sets/{en,de}"); or a mix, {url: weight}: the sets' shares of the delivered audio; each set has
            its own epochs then.
        temperature: mixes a list of sets by hours ** (1 / temperature): 1 in proportion to their hours, more favours
            small sets, infinity is uniform.

    Nothing can be selected by a column that only some of several sets have, or learned from it, and no stage can be
    told to need it. Samples of those that have it carry it all the same; in a batch it is None for the others.

    Raises:
        UsageError: no set there, or tars in place of their folder; weights or temperature out of range, or both.
        ShardError: a damaged manifest.
    """
    if isinstance(url, Mapping):
        if temperature is not None:
            raise UsageError("weights are given, and temperature= computes weights: use one of them")
        folders = paths_in(url)
        weights = normalised(url)
        return ShardSet(_opened(folders), weights)
    members = _opened([folder for one in paths_in(url) for folder in _folders(one)])
    if temperature is None:
        return ShardSet(members)
    return ShardSet(members, by_temperature([float(member.shard_seconds.sum()) for member in members], temperature))


def _opened(folders: Sequence[str | Path]) -> list[ShardFolder]:
    return list(at_once(ShardFolder, folders, is_remote=any(map(is_remote, folders))))


def _folders(url: str | Path) -> list[str]:
    """The folders that a name with braces stands for."""
    folders = existing_or_expanded(str(url))
    tars = (one for one in folders if one.endswith(".tar") and (is_remote(one) or not local_path(one).is_dir()))
    tar = next(tars, None)
    if tar is not None:
        raise UsageError(
            f"{tar}: a tar is opened by the folder of its index. Make one with `s3prl-stream index` (or index_shards), "
            "and open that folder."
        )
    return folders


def name_and_fingerprint(shards: ShardSet | SetMember) -> str:
    """What a run or a set writes down of other sets, to know them again."""
    return f"{shards.name} {shards.fingerprint}"


def as_shard_set(shards: Any) -> ShardSet:
    """What a stream accepts: a ShardSet, what `open_shards` takes, MemoryShards, lists of these, samples in memory."""
    if isinstance(shards, ShardSet):
        return shards
    if isinstance(shards, MemoryShards | ShardFolder):
        return ShardSet([shards])
    if isinstance(shards, str | Path):
        return open_shards(shards)
    if isinstance(shards, Mapping):
        weighted = shards and not any(isinstance(value, Mapping) for value in shards.values())
        return open_shards(shards) if weighted else ShardSet([MemoryShards(shards)])
    if isinstance(shards, Sequence) and shards:
        if all(isinstance(one, str | Path) for one in shards):
            return open_shards(shards)
        if all(isinstance(one, Mapping) for one in shards):
            return ShardSet([MemoryShards(shards)])
        if all(isinstance(one, ShardSet | MemoryShards | ShardFolder | str | Path) for one in shards):
            sets = [as_shard_set(one) for one in shards]
            if any(one.weights is not None for one in sets):
                raise UsageError("a mix by weights is no part of a list of sets: mix them all, {folder: weight, ...}")
            return ShardSet([member for one in sets for member in one.members])
    raise UsageError(f"{shards!r:.200} is no shard set: give open_shards(...), a folder, or samples in memory")
