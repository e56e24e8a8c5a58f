"""Which files of a folder this process has open.

Not how many files it has open in all: others come and go, such as those of an earlier test, which a ring of objects
holds until it is collected. (The first training of a process leaves one: an import that torch tries and that fails.)
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """Their names below the folder, once for each time that they are open; of one that was deleted too."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.startswith(f"{folder}/"):
                names.append(path.removeprefix(f"{folder}/"))
    return names
