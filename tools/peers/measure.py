"""One measurement of one loader in a process of its own; prints a line of JSON.

python measure.py CASE PEER FOLDER DECODER WORKERS [STATE-FILE or PACKED-SET]
"""

from __future__ import annotations

import json
import pickle
import resource
import sys
import time
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers import clips
from peers.loaders import PEERS, Peer

SHARES = (0.1, 0.5, 0.9)
"""Of an epoch, at which it is interrupted."""
TIMED_EPOCHS = 4
TIMED_EPOCHS_OF_THE_REST = 2
"""With workers, and with the slower decoder: nothing a percent apart is read off those, and a run is to end in time."""
SETTLING_SECONDS = 0.5
"""After the last batch: what a loader reads ahead in threads is not to count as decoding."""


def cpu_seconds() -> float:
    """User and system, all threads, and of all processes that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def decode_alone(folder: Path, decoder: str, epochs: int) -> float:
    """The floor, CPU seconds an audio hour: each clip in memory, decoded by the same function, nothing else."""
    all_clips = list(clips.read_clips(folder))
    hours = sum(clip.seconds for clip in all_clips) / 3600

    def once() -> None:
        for clip in all_clips:
            clips.decode(clip.flac, decoder)

    once()
    began = cpu_seconds()
    for _ in range(epochs):
        once()
    return (cpu_seconds() - began) / hours / epochs


def speed(peer: Peer, packed: Path | None, epochs: int) -> dict[str, Any]:
    """CPU seconds an audio hour, hours a second, memory: over whole epochs after a first one.

    With workers, their CPU counts when they have ended: so the epochs are told apart by their number. Hours a second
    are those from the first batch of an epoch to its last: most loaders start their workers anew for each epoch, which
    is much of an hour and nothing of a thousand.

    Args:
        packed: the packed set, for the floor: what decoding its clips alone takes afterwards, in this process. One
            process is a few percent faster than the next, which is as much as what a good loader adds. None: no floor.
        epochs: how many are timed.
    """
    started = time.perf_counter()
    first_batch = None
    for batch in peer.batches(0):
        first_batch = first_batch or time.perf_counter() - started
        del batch
    began, hours = cpu_seconds(), 0.0
    timed_hours, timed_seconds = 0.0, 0.0
    for epoch in range(1, 1 + epochs):
        last = None
        for batch in peer.batches(epoch):
            now = time.perf_counter()
            some = sum(batch.seconds) / 3600
            if last is not None:
                timed_hours, timed_seconds = timed_hours + some, timed_seconds + now - last
            hours, last = hours + some, now
            del batch
    found = {
        "cpu_s_per_hour": (cpu_seconds() - began) / hours,
        "hours_per_second": timed_hours / timed_seconds,
        "first_batch_s": first_batch,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if packed is not None:
        time.sleep(SETTLING_SECONDS)
        found["decode_cpu_s_per_hour"] = decode_alone(packed, peer.decoder, epochs)
    return found


def order(peer: Peer) -> dict[str, Any]:
    """Keys and lengths of the batches of two epochs."""
    return {"epochs": [[(batch.keys, batch.seconds) for batch in peer.batches(epoch)] for epoch in (0, 1)]}


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
        rest = int(workers) or decoder == "soundfile"
        found = speed(peer, path, TIMED_EPOCHS_OF_THE_REST if rest else TIMED_EPOCHS)
    else:
        assert path is not None
        found = WITH_STATE[case](peer, path)
    print("\n" + json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
