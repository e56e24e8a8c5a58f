"""Audio that is no file yet: the output of commands, bytes inside a data set. It is written into a folder of the
user's.

What is there already is kept, so a pack that was killed goes on without doing it again.
"""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
from pathlib import Path

from s3prl_stream.audio.open_source import SAID
from s3prl_stream.errors import UsageError

_CANNOT_RUN = (126, 127)  # of a shell: no such command, or not allowed


def file_for(folder: Path, name: str, suffix: str) -> Path:
    """Where audio of this name goes: readable, and different names never meet."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[-80:]
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return folder / digest[:2] / f"{plain}-{digest}{suffix}"


def unpack(folder: Path, name: str, suffix: str, content: bytes) -> Path:
    """Write bytes into a file of the folder, unless they are there."""
    path = file_for(folder, name, suffix)
    if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(content)
        partial.replace(path)
    return path


def run_pipe(folder: Path, name: str, command: str, where: str) -> Path:
    """Run a shell command and keep the WAV that it writes; where it fails there is none, and packing says why.

    Raises:
        UsageError: the command cannot be run at all.
    """
    path = file_for(folder, name, ".wav")
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, said = path.with_name(path.name + ".partial"), path.with_name(path.name + SAID)
    with partial.open("wb") as output, said.open("wb") as errors:
        shell = ["bash", "-o", "pipefail", "-c", command]
        status = subprocess.run(shell, stdout=output, stderr=errors, stdin=subprocess.DEVNULL).returncode
    if status in _CANNOT_RUN:
        reason = " ".join(said.read_text("utf-8", "replace").split())[-200:]
        partial.unlink()
        said.unlink()
        raise UsageError(f"{where}: {command!r:.100} cannot be run: {reason}. Install what it needs.")
    if status == 0:
        _set_sizes(partial)
        said.unlink()
        partial.replace(path)
    else:
        partial.unlink()
        with said.open("ab") as errors:
            errors.write(b"\nexit status %d\n" % status)
    return path


def _set_sizes(path: Path) -> None:
    """A program that writes a WAV into a pipe does not know its length and says an impossible one; we know it."""
    with path.open("r+b") as file:
        head = file.read(4096)
        num_bytes = path.stat().st_size
        position = head.find(b"data", 12) + 8
        if head[:4] != b"RIFF" or position < 20 or len(head) < position:
            return
        said, there = struct.unpack_from("<I", head, position - 4)[0], num_bytes - position
        if said > there:
            for offset, value in ((4, num_bytes - 8), (position - 4, there)):
                file.seek(offset)
                file.write(struct.pack("<I", value))
