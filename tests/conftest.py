"""What all tests share: where the repository is, the sample set, and real recordings where there are some."""

from __future__ import annotations

from pathlib import Path

import pytest
from apart import child  # noqa: F401  # a fixture
from integration.servers import azurite, nginx, obstore_child, rgw  # noqa: F401  # fixtures

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked `gpu` says why it did not run on a machine without one."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def sample_set() -> Path:
    """The packed set that ships with the repository."""
    return ROOT / "shards" / "sample"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real recordings beside the checkout; users need not have them."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real recordings at ../shared/data beside the checkout")
    return folder
