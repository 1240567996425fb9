"""The shim, built once, and the process that does things under it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults import shim
from tests.faults.running import Victims


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the library to preload; skips where there can be none."""
    if (reason := shim.unavailable()) is not None:
        pytest.skip(reason)
    return shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def victims(shim_library: Path) -> Iterator[Victims]:
    """A process under the shim that takes jobs."""
    with Victims(shim_library) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder where syncs take no time, if there is one: what they do is the shim's to say."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="dtolbus-faults-", dir=memory) as folder:
        yield Path(folder)
