"""An index without audio, of any size, as `tools/make_index` makes it."""

from __future__ import annotations

from pathlib import Path

from tool_modules import load_tool

make_synthetic_index = load_tool(Path(__file__).parents[1], "make_index").make_synthetic_index
