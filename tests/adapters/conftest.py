"""What tests of other trainers leave behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(autouse=True)
def lazy_modules_are_forgotten() -> Iterator[None]:
    """SpeechBrain's raise an ImportError at whoever looks through sys.modules, as hypothesis does in later tests.

    Its other modules stay: they know each other's classes.
    """
    yield
    for name, module in list(sys.modules.items()):
        if name.startswith("speechbrain.") and type(module) is not ModuleType:
            del sys.modules[name]
