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
from typing import Any

from elastic import store as uploading

from peers.measure import SHARES
from peers.remote import VARIABLE, Remote
from s3prl_stream.chaos import ChaosProxy

Run = Callable[..., dict[str, Any]]
"""(case, name, file for states, variables of the environment) -> what the measurement printed."""


def measure(
    names: Sequence[str], folders: dict[str, Path], clips: dict[str, Any], work: Path, run: Run
) -> dict[str, dict[str, Any]]:
    """Name -> figures, or {"why_not": ...} where there are none.

    Args:
        names: of the loaders.
        folders: of those that read from a store, what is put there.
        clips: key -> (seconds, speaker, CRC-32, bytes).
        work: folder for the store.
        run: starts a measurement.
    """
    found: dict[str, dict[str, Any]] = {name: {"why_not": "reads no store"} for name in names}
    with _gateway(work / "server") as state:
        if state is None:
            return {name: {"why_not": "no gateway here"} for name in names}
        with ChaosProxy(state["endpoint"]) as proxy:
            variables = {k: v.replace(state["endpoint"], proxy.url) for k, v in state["environment"].items()}
            for number, name in enumerate(name for name in names if name in folders):
                bucket = f"{state['public_bucket']}/{number}"
                _upload(folders[name], f"s3://{bucket}", state["environment"])
                place = Remote(f"s3://{bucket}", f"{proxy.url}/{bucket}", proxy.url, "")
                try:
                    found[name] = _figures(name, place, variables, proxy, clips, work, run)
                except SystemExit as error:  # a peer that fails is a result
                    print(error, file=sys.stderr)
                    found[name] = {"why_not": "failed"}
                print(f"from a store: {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def _figures(
    name: str,
    place: Remote,
    variables: dict[str, str],
    proxy: ChaosProxy,
    clips: dict[str, Any],
    work: Path,
    run: Run,
) -> dict[str, Any]:
    states = work / name / "store-state"

    def counted(case: str, file: Path) -> tuple[dict[str, Any], int, float]:
        """What came, requests, and megabytes."""
        requests, sent = proxy.num_requests, sum(proxy.bytes_by_path.values())
        cache = work / "cache"  # of the same name each time: a state of LitData's names it
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        told = {**variables, VARIABLE: json.dumps(place._replace(cache=str(cache))._asdict())}
        came = run(case, name, file, told)
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
def _gateway(folder: Path) -> Iterator[dict[str, Any] | None]:
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
