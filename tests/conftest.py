"""What tests share: the sample set, a small one to be damaged, real recordings where there are some, one thread."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from apart import child, obstore_child  # noqa: F401  # fixtures
from integration.servers import azurite, nginx, rgw  # noqa: F401  # fixtures

ROOT = Path(__file__).resolve().parent.parent

# No test is timed: machines are slow, and busy.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked `gpu` says why it did not run on a machine without one."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_collection_finish() -> None:
    """Garbage is looked for among what tests make, and not among the half a million objects of what was imported."""
    gc.collect()
    gc.freeze()


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
    return beside_the_checkout("data", "real recordings")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Numbers that S3PRL itself computed; users need not have them."""
    return beside_the_checkout("reference", "reference numbers of S3PRL")


def beside_the_checkout(name: str, what: str) -> Path:
    folder = ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"no {what} at ../shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed set of 24 clips in four shards, which nobody changes."""
    from damage import pack_clips

    folder = tmp_path_factory.mktemp("whole") / "set"
    pack_clips(folder)
    return folder


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return shutil.copytree(whole, tmp_path / "set")


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps draw none: it takes as long as a small training, and tests/downstream/test_sweep.py has those that do."""
    from s3prl_stream.downstream.scores import Sweep

    monkeypatch.setattr(Sweep, "draw", lambda *_: None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in torch are split by the number of threads: equal losses need equal numbers, here and in processes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
