"""What tests of other trainers leave behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def speechbrain_is_forgotten() -> Iterator[None]:
    """Its lazy modules raise an ImportError at whoever looks through sys.modules, as hypothesis does in later tests."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "speechbrain":
            del sys.modules[name]
