"""Tools without a suffix, as modules."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any


def load_tool(repository: Path, name: str) -> Any:
    """The module of `tools/NAME`, with the import path as it was."""
    loader = SourceFileLoader(name, str(repository / "tools" / name))
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module, path, writes = module_from_spec(spec), list(sys.path), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # tools/ has no __pycache__
    sys.path.insert(0, str(repository / "tools"))  # as Python does for a script
    loader.exec_module(module)
    sys.path[:], sys.dont_write_bytecode = path, writes
    return module
