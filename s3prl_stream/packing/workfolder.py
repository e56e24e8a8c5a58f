"""The hidden folder of a set that is being packed: the plan, and what is known of every finished shard.

    .packing/plan.json, plan.arrow, plan.jsonl     see `packplan.py`
    .packing/shards/PLAN/000012.parquet            index rows of shard 12, with what else is known of it, and a hash
    .packing/shards/PLAN/000012.nothing.parquet    nothing of it was left
    .packing/claims/, .packing/alive/              see `shards/claims.py`
    .packing/scratch-OWNER/                        half-written files, of a set on a disk

A shard is finished when its rows are here and its tar is in its place. The rows are written first. They lie under the
digest of their plan: what a killed restart has left, or a pack of the old plan that was only asleep, is nobody's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from s3prl_stream.errors import MissingFile, ShardError
from s3prl_stream.packing.packplan import CLIPS, LEFT_OUT_BEFORE, PLAN, PLAN_ANEW, PackPlan
from s3prl_stream.shards.claims import is_known_dead
from s3prl_stream.shards.layout import INDEX_FOLDER, LEFT_OUT, MANIFEST, REPORT, WORK_FOLDER, shard_name
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.manifest import MAX_MANIFEST_BYTES
from s3prl_stream.shards.scratch import SCRATCH, download, publish, remove_scratch_of_the_dead, writing_in
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import Store
from s3prl_stream.stores.whole_files import PARTIAL, sync

if TYPE_CHECKING:
    import pyarrow as pa

_SHARDS = f"{WORK_FOLDER}/shards"
_ABOUT = b"s3prl_stream"
_MAX_ROWS_BYTES = 4 << 30
_HASH_BYTES = 16


class FinishedShard(NamedTuple):
    """What is known of a shard when all its clips have been looked at."""

    description: dict[str, Any] | None
    """For the manifest; None: nothing was left."""
    left_out: list[tuple[int, LeftOut]]
    """With the position of each utterance in the corpus."""
    reencoded: int
    """Clips whose bytes did not fit as they were, under codec="original"."""


def read_plan(store: Store) -> PackPlan | None:
    """The plan of the pack that has begun here; None: none has."""
    name = f"{WORK_FOLDER}/{PLAN}"
    try:
        content = store.read_whole(name, at_most=MAX_MANIFEST_BYTES)
    except MissingFile:
        return None
    return PackPlan.from_json(content, f"{store.url}/{name}")


def write_plan(store: Store, plan: PackPlan, folder: Path) -> None:
    """Install a plan that was made in `folder`."""
    for name in (CLIPS, LEFT_OUT_BEFORE):
        sync(folder / name)
        publish(folder / name, store, f"{WORK_FOLDER}/{name}")
    writing_in(folder, store).write(f"{WORK_FOLDER}/{PLAN}", plan.to_json())


def local_clips(store: Store, scratch: Path) -> str:
    """The path of `plan.arrow` on this machine; fetched first if the set is in a store."""
    name = f"{WORK_FOLDER}/{CLIPS}"
    if isinstance(store, LocalStore):
        return str(store.folder / name)
    path = scratch / CLIPS
    if not path.exists():
        download(store, name, path)
    return str(path)


def left_out_before(store: Store, plan: PackPlan) -> Iterator[tuple[int, LeftOut]]:
    """What the plan left out, in the order of the corpus."""
    name = f"{WORK_FOLDER}/{LEFT_OUT_BEFORE}"
    try:
        lines = [json.loads(line) for line in store.read_whole(name, at_most=_MAX_ROWS_BYTES).splitlines()]
        if len(lines) != plan.left_out:
            raise ValueError(f"{len(lines)} lines, {plan.left_out} were written")
        yield from ((position, LeftOut(*one)) for position, one in lines)
    except (MissingFile, ValueError, TypeError) as error:
        what = "not there" if isinstance(error, MissingFile) else f"damaged ({error})"
        raise ShardError(f"{store.url}/{name}: {what}. {PLAN_ANEW}") from None


def rows_file(plan: str, number: int, *, nothing: bool = False) -> str:
    """Where the rows of a shard lie until the set is finished; `plan` is the plan's digest."""
    return f"{_SHARDS}/{plan}/{number:06d}{'.nothing' if nothing else ''}.parquet"


def write_finished(store: Store, plan: str, number: int, table: pa.Table, shard: FinishedShard, scratch: Path) -> None:
    """Note what is known of a shard, before its tar is put in its place."""
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    about = {_ABOUT: json.dumps(shard._asdict()).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(about), sink, compression="zstd")
    name = rows_file(plan, number, nothing=shard.description is None)
    content = sink.getvalue().to_pybytes()
    writing_in(scratch, store).write(name, content + _hash(content))


def read_finished(store: Store, plan: str, number: int) -> tuple[pa.Table, FinishedShard]:
    """Index rows of a finished shard, and what else is known of it.

    Raises:
        ShardError: they are gone, or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    name = rows_file(plan, number)
    try:
        content = store.read_whole(name, at_most=_MAX_ROWS_BYTES)
    except MissingFile:
        nothing = rows_file(plan, number, nothing=True)
        if store.size(nothing) is None:
            raise ShardError(f"{store.url}/{name}: not there any more. The same command makes it anew.") from None
        name, content = nothing, store.read_whole(nothing, at_most=_MAX_ROWS_BYTES)
    written, said = content[:-_HASH_BYTES], content[-_HASH_BYTES:]
    if said != _hash(written):
        raise ShardError(
            f"{store.url}/{name}: not the rows of a shard as they were written. Remove it, and the same command makes "
            "it anew."
        )
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(written), use_threads=False)
    about = json.loads(table.schema.metadata[_ABOUT])
    left_out = [(position, LeftOut(*one)) for position, one in about["left_out"]]
    return table.replace_schema_metadata(None), FinishedShard(about["description"], left_out, about["reencoded"])


def _hash(content: bytes) -> bytes:
    """Which Parquet has not of all its bytes: what is damaged here must not become the index."""
    return hashlib.blake2b(content, digest_size=_HASH_BYTES).digest()


def finished_shards(store: Store, plan: PackPlan) -> set[int]:
    """Numbers of the shards that need no work any more."""
    there, digest = {file for file, _ in store.list()}, plan.digest
    numbers = range(len(plan.clips))
    return {number for number in numbers if _is_finished(plan.name, digest, number, there.__contains__)}


def is_finished(store: Store, name: str, plan: str, number: int) -> bool:
    """The same of one shard of the set `name`; `plan` is the plan's digest."""
    return _is_finished(name, plan, number, lambda file: store.size(file) is not None)


def _is_finished(name: str, plan: str, number: int, is_there: Callable[[str], bool]) -> bool:
    if is_there(rows_file(plan, number)):
        return is_there(shard_name(name, number))
    return is_there(rows_file(plan, number, nothing=True))


def remove_work(store: Store) -> None:
    """The work folder, apart from what belongs to packs that may be alive."""
    for name, _ in store.list(f"{WORK_FOLDER}/"):
        kind, _, owner = name.removeprefix(f"{WORK_FOLDER}/").partition("/")
        if not kind.startswith(SCRATCH) and (kind != "alive" or is_known_dead(owner)):
            store.delete(name)
    if isinstance(store, LocalStore):
        remove_scratch_of_the_dead(store.folder / WORK_FOLDER)
        for folder in ("claims", "alive"):  # half-written by one who was killed; a list leaves those out
            for old in (store.folder / WORK_FOLDER / folder).glob(f"*{PARTIAL}"):
                old.unlink(missing_ok=True)
    remove_empty_folders(store)


def remove_empty_folders(store: Store) -> None:
    """Of the work folder, on a disk, and the folder of the set if nothing is in it; none while a pack is alive."""
    if isinstance(store, LocalStore):
        work = store.folder / WORK_FOLDER
        of_plans = work.glob("shards/*")
        for folder in (work / "alive", *of_plans, work / "shards", work / "claims", work, store.folder):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return


def remove_unfinished(store: Store, name: str) -> None:
    """Everything that a pack of the set `name` has put there which was not finished; nobody else's files."""
    shards = rf"{re.escape(name)}-\d{{6,}}\.tar(\.idx|\.parquet)?"
    parts = rf"{INDEX_FOLDER}/part-\d{{5,}}\.parquet"
    ours = re.compile("|".join([shards, parts, *map(re.escape, (LEFT_OUT, REPORT, MANIFEST))]))
    for file, _ in store.list():
        if ours.fullmatch(file):
            store.delete(file)
    remove_work(store)
