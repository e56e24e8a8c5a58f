"""Imported first by the tools in Python: they go on with the Python of `.venv` where theirs has no libraries.

`tools/bench` and the like begin with `/usr/bin/env python3`, which on most machines lacks them. Where it has them (an
activated environment, a container) nothing happens.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent

if any(find_spec(name) is None for name in ("torch", "pyarrow", "miniaudio")):
    python = ROOT / ".venv" / "bin" / "python"
    if Path(sys.prefix).resolve() == ROOT / ".venv" or not python.exists():
        print(f"{sys.argv[0]}: {sys.executable} lacks the libraries. Run {ROOT}/tools/setup first.", file=sys.stderr)
        sys.exit(2)
    os.execv(python, [str(python), *sys.argv])

sys.path.insert(0, str(ROOT))


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the status of `main`; an error that the package raises on purpose is one line and status 2."""
    from s3prl_stream.errors import StreamError

    try:
        status = main()
    except StreamError as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)
