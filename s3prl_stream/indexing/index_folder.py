"""Where an index of tars made elsewhere goes, and what is replaced there: an earlier index, and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from s3prl_stream.errors import MissingFile, UsageError
from s3prl_stream.indexing.scan import Scan
from s3prl_stream.json_files import json_object
from s3prl_stream.shards.layout import INDEXING, LEFT_OUT, MANIFEST, rows_name
from s3prl_stream.shards.manifest import MAX_MANIFEST_BYTES
from s3prl_stream.shards.new_set import refuse_no_folder
from s3prl_stream.shards.scratch import scratch_of_one
from s3prl_stream.stores.store import is_remote, local_path, open_store
from s3prl_stream.stores.whole_files import explaining_writes

_SCRATCH = ".indexing"


class IndexFolder:
    """Where an index goes.

    Args:
        url: of the folder.
        base: of the folder of the tars.
        names: of the tars in it.

    Raises:
        UsageError: it cannot be written, or holds something else.
    """

    def __init__(self, url: str, base: str, names: Sequence[str]) -> None:
        if is_remote(url) or is_remote(base):
            self.is_beside = url.rstrip("/") == base.rstrip("/")
        else:
            self.is_beside = local_path(url).resolve() == local_path(base).resolve()
        self.out = open_store(url)
        refuse_no_folder(self.out)
        self._ours = self._previous()
        if self._ours is None:
            in_the_way = next(
                (name for name in (LEFT_OUT, *map(rows_name, names)) if self.out.size(name) is not None), None
            )
            if in_the_way is not None:
                raise UsageError(f"{self.out.url}: {in_the_way} is in the way, of no index. Remove it or give out=.")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for what the scans find; in that of the index, since it may be as large."""
        again = "give the same command again, or another out="
        with explaining_writes(self.out.url, again=again), scratch_of_one(self.out, _SCRATCH) as path:
            yield path

    @contextlib.contextmanager
    def being_written(self, scans: Sequence[Scan]) -> Iterator[None]:
        """From here on an earlier index is gone; a marker says so, and what is ours, until the new one is complete."""
        ours = [{"name": scan.name, "offsets": "written"} for scan in scans if self.writes_offsets(scan)]
        self.out.write(INDEXING, json.dumps({"indexed": True, "shards": ours}).encode())
        self.out.delete(MANIFEST)
        yield
        self.out.delete(INDEXING)

    def writes_offsets(self, scan: Scan) -> bool:
        """False where offsets lie beside the tar that are not ours to replace."""
        return not self.is_beside or scan.offsets == "none" or scan.name in (self._ours or ())

    def _previous(self) -> set[str] | None:
        """Shards whose offsets an earlier index has written here, be it complete or killed; None: there is none."""
        for name in (MANIFEST, INDEXING):
            with contextlib.suppress(MissingFile):
                try:
                    earlier = json_object(self.out.read_whole(name, at_most=MAX_MANIFEST_BYTES))
                    shards = earlier["indexed"] and earlier["shards"]
                    return {shard["name"] for shard in shards if shard["offsets"] == "written"}
                except (ValueError, KeyError, TypeError):
                    raise UsageError(
                        f"{self.out.url}: {name} there is of no index. A packed set is opened as it is; "
                        "otherwise give out=, another folder."
                    ) from None
        return None
