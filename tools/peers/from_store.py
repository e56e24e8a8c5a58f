"""What loaders ask of an object store: one in front of it counts requests and bytes, the same for all.

The store is Ceph's S3 gateway (`tools/object_store`), the counter a proxy that passes everything on. A process that
goes on from a state has an empty disk, as that of a machine that takes over from a preempted one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from elastic import store as uploading

from peers.measure import SHARES
from peers.remote import VARIABLE, Remote
from s3prl_stream.chaos import ChaosProxy

Store: TypeAlias = dict[str, Any]
"""What `tools/object_store` says of a running one."""
Run = Callable[..., dict[str, Any]]
"""(case, file for states, variables of the environment) -> what the measurement printed."""


def asked(store: Store | None, folder: Path, data: Path, clips: dict[str, Any], run: Run) -> dict[str, Any]:
    """Figures of one loader, or {"why_not": ...} where there are none.

    Args:
        store: a running one.
        folder: of the loader, for its states.
        data: what is put into the store for it.
        clips: key -> (seconds, speaker, CRC-32, bytes).
        run: starts a measurement.
    """
    if store is None:
        return {"why_not": "no gateway here"}
    bucket = f"{store['public_bucket']}/{folder.name.replace(' ', '-')}"
    _upload(data, f"s3://{bucket}", store["environment"])
    with ChaosProxy(store["endpoint"]) as proxy:
        variables = {k: v.replace(store["endpoint"], proxy.url) for k, v in store["environment"].items()}
        place = Remote(f"s3://{bucket}", f"{proxy.url}/{bucket}", proxy.url, "")
        try:
            return _figures(folder, place, variables, proxy, clips, run)
        except SystemExit as error:  # a peer that fails is a result
            print(error, file=sys.stderr)
            return {"why_not": "failed"}


def _figures(
    folder: Path,
    place: Remote,
    variables: dict[str, str],
    proxy: ChaosProxy,
    clips: dict[str, Any],
    run: Run,
) -> dict[str, Any]:
    states = folder / "store-state"

    def counted(case: str, file: Path) -> tuple[dict[str, Any], int, float]:
        """What came, requests, and megabytes."""
        requests, sent = proxy.num_requests, sum(proxy.bytes_by_path.values())
        cache = folder / "cache"  # of the same name each time: a state of LitData's names it
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        told = {**variables, VARIABLE: json.dumps(place._replace(cache=str(cache))._asdict())}
        came = run(case, file, told)
        shutil.rmtree(cache)
        return came, proxy.num_requests - requests, (sum(proxy.bytes_by_path.values()) - sent) / 1e6

    def megabytes(keys: Sequence[str]) -> float:
        return float(sum(clips[key][3] for key in keys) / 1e6)

    epoch, requests, fetched = counted("store", states)
    hours = sum(clips[key][0] for key in epoch["keys"]) / 3600
    figures: dict[str, Any] = {
        "requests_per_hour": requests / hours,
        "mb_per_hour": fetched / hours,
        "mb_per_hour_of_audio": megabytes(epoch["keys"]) / hours,
        "resumed": {},
    }
    for share in SHARES if epoch["done"] else ():
        done = set(epoch["done"][str(share)])
        _, requests, fetched = counted("store-rest", states.with_name(f"{states.name}-{share}"))
        left = [key for key in clips if key not in done]
        # what it fetched and was not left to be read, whatever it is: shards' beginnings, consumed clips, index
        figures["resumed"][f"{share:.0%}"] = {"requests": requests, "mb_read_again": fetched - megabytes(left)}
    return figures


@contextmanager
def gateway(folder: Path) -> Iterator[Store | None]:
    """A running one; None: it cannot be installed here, as `tools/object_store` has said."""
    tool = uploading.TOOL
    subprocess.run([tool, "down", folder], check=True)
    done = subprocess.run([tool, "up", folder, "--kind", "rgw"], stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(done.stdout) if done.returncode == 0 else None
    finally:
        subprocess.run([tool, "down", folder], check=True)


def _upload(folder: Path, url: str, variables: dict[str, str]) -> None:
    """In a process of its own: one that has used obstore had better start no others."""
    root = uploading.TOOL.parent.parent
    command = [sys.executable, uploading.__file__, str(folder), url]
    subprocess.run(command, check=True, env={**os.environ, **variables, "PYTHONPATH": str(root)})
