"""One measurement of one loader in a process of its own; prints a line of JSON.

python measure.py CASE PEER FOLDER DECODER WORKERS [STATE-FILE or PACKED-SET]
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers import clips
from peers.loaders import PEERS, Peer

SHARES = (0.1, 0.5, 0.9)
"""Of an epoch, at which it is interrupted."""
TIMED_EPOCHS = (1, 2)
PAIRED_EPOCHS = (3, 4)
"""In which each batch is decoded bare once more."""
QUIET_SECONDS = 0.01
"""Without work: a loader's threads have read ahead what they will."""


def cpu_seconds() -> float:
    """User and system, all threads, and of all processes that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def wait_until_quiet() -> None:
    """Return when the process has done nothing for a moment."""
    before = -1.0
    while cpu_seconds() - before > QUIET_SECONDS / 10:
        before = cpu_seconds()
        time.sleep(QUIET_SECONDS)


class Floor:
    """Bare decoding of clips of a packed set: each in memory, decoded by the same function, nothing else."""

    def __init__(self, packed: Path, decoder: str) -> None:
        self._clips = clips.places(packed)
        self._decoder = decoder
        self.keys = list(self._clips)
        # glibc gives what is freed back to the system, page by page, until it has once seen as large a block freed:
        # most loaders' batches are, ours are used again, and the floor of all is to be the same
        large = bytearray(31 << 20)
        del large

    def decode(self, keys: Sequence[str]) -> float:
        """Decode these clips one by one, and keep none: CPU seconds, without those of reading."""
        taken = 0.0
        for key in keys:
            flac = self._clips[key].read()
            began = time.thread_time()
            clips.decode(flac, self._decoder)
            taken += time.thread_time() - began
        return taken


def speed(peer: Peer) -> dict[str, Any]:
    """Time to the first batch, hours a second, and memory, over whole epochs after a first one.

    Hours a second are those from the first batch of an epoch to its last: most loaders start their workers anew for
    each epoch, which is much of an hour and nothing of a thousand.
    """
    started = time.perf_counter()
    first_batch = None
    for batch in peer.batches(0):
        first_batch = first_batch or time.perf_counter() - started
        del batch
    hours, seconds = 0.0, 0.0
    for epoch in TIMED_EPOCHS:
        last = None
        for batch in peer.batches(epoch):
            now = time.perf_counter()
            if last is not None:
                hours, seconds = hours + sum(batch.seconds) / 3600, seconds + now - last
            last = now
            del batch
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"first_batch_s": first_batch, "hours_per_second": hours / seconds, "peak_mb": peak_mb}


def stay_on_one_cpu() -> None:
    """All threads of this process: other work on the machine slows its CPUs down unequally."""
    last = max(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {last})


def cpu(peer: Peer, floor: Floor, epochs: Iterable[int]) -> dict[str, Any]:
    """CPU seconds an audio hour of the loader, without workers, and of decoding the same clips alone.

    Each batch is decoded bare as soon as it has come. Other work on a machine makes the same decoding take half as much
    again a second later or on another CPU, and one process is some percent faster than the next; a good loader adds
    less than that. A loader's threads decode the next batch before, not meanwhile: two on one core take more each.

    Args:
        epochs: that count; the peer has given those before.
    """
    stay_on_one_cpu()
    wait_until_quiet()
    loading = decoding = hours = 0.0
    for epoch in epochs:
        began = cpu_seconds()
        for batch in peer.batches(epoch):
            hours += sum(batch.seconds) / 3600
            keys = batch.keys
            del batch
            wait_until_quiet()
            loading += cpu_seconds() - began
            decoding += floor.decode(keys)
            began = cpu_seconds()
        loading += cpu_seconds() - began
    return {"cpu_s_per_hour": loading / hours, "decode_cpu_s_per_hour": decoding / hours}


def cpu_by_usual_decoder(peer: Peer, packed: Path, epoch: int) -> dict[str, Any]:
    """The same by soundfile, which users of the peers write; one epoch, as it is not what loaders are compared by."""
    peer.decoder = "soundfile"
    floor = Floor(packed, peer.decoder)
    floor.decode(floor.keys[:1])  # who decodes first imports it
    return cpu(peer, floor, [epoch])


def order(peer: Peer) -> dict[str, Any]:
    """Keys and lengths of the batches of two epochs; of one where workers load, which is asked for its clips alone."""
    epochs = (0,) if peer.num_workers else (0, 1)
    return {"epochs": [[(batch.keys, batch.seconds) for batch in peer.batches(epoch)] for epoch in epochs]}


def first_half(peer: Peer, state_file: Path) -> dict[str, Any]:
    """Batches until half of the clips are handed over, then the state."""
    handed: list[str] = []
    state = None
    for batch in peer.batches(0):
        handed += batch.keys
        if len(handed) >= peer.num_clips / 2:
            state = peer.state()  # here: behind the loop, the loader has been told to end
            break
    state_file.write_bytes(pickle.dumps(state))
    return {"keys": handed, "state_bytes": len(json.dumps(state, default=str))}


def second_half(peer: Peer, state_file: Path) -> dict[str, Any]:
    """What comes after loading the state, and what was decoded before the first batch came."""
    clips.decoded = []
    state = pickle.loads(state_file.read_bytes())
    handed: list[str] = []
    decoded = None
    for batch in peer.batches(0, state):
        decoded = list(clips.decoded) if decoded is None else decoded
        handed += batch.keys
    return {"keys": handed, "decoded_before_first": decoded or []}


def from_store(peer: Peer, states: Path) -> dict[str, Any]:
    """One epoch, and the state at each of `SHARES` of its clips, in files beside `states`."""
    handed: list[str] = []
    due = [share for share in SHARES if peer.resumes]
    done: dict[str, list[str]] = {}
    for batch in peer.batches(0):
        handed += batch.keys
        while due and len(handed) >= due[0] * peer.num_clips:
            share = due.pop(0)
            done[str(share)] = list(handed)
            states.with_name(f"{states.name}-{share}").write_bytes(pickle.dumps(peer.state()))
    return {"keys": handed, "done": done}


def rest_from_store(peer: Peer, state_file: Path) -> dict[str, Any]:
    """What a state leaves of the epoch."""
    handed: list[str] = []
    for batch in peer.batches(0, pickle.loads(state_file.read_bytes())):
        handed += batch.keys
    return {"keys": handed}


WITH_STATE = {"half": first_half, "rest": second_half, "store": from_store, "store-rest": rest_from_store}
"""Cases that leave a state in a file, or go on from one."""


def main() -> int:
    """One case."""
    case, name, folder, decoder, workers = sys.argv[1:6]
    if case == "prepare":
        all_clips = list(clips.read_clips(Path(decoder)))
        PEERS[name].prepare(all_clips, Path(folder))
        about = {clip.key: (clip.seconds, clip.speaker, zlib.crc32(clip.flac), len(clip.flac)) for clip in all_clips}
        (Path(folder).parent / "clips.json").write_text(json.dumps(about))
        print("{}")
        return 0
    peer = PEERS[name](Path(folder), decoder, int(workers))
    path = Path(sys.argv[6]) if len(sys.argv) > 6 else None
    if case == "order":
        found = order(peer)
    elif case == "speed":
        found = speed(peer)
    elif case in ("speed-cpu", "speed-cpu-usual"):
        assert path is not None
        found = speed(peer)
        found |= cpu(peer, Floor(path, decoder), PAIRED_EPOCHS)
        if case == "speed-cpu-usual":
            found["soundfile"] = cpu_by_usual_decoder(peer, path, PAIRED_EPOCHS[-1] + 1)
    else:
        assert path is not None
        found = WITH_STATE[case](peer, path)
    print("\n" + json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
