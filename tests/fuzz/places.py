"""Where what is tried may write: one folder in memory, and a file beside it that nobody may touch."""

import atexit
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_SHM = Path("/dev/shm")


@lru_cache(maxsize=1)
def _top() -> Path:
    made = Path(tempfile.mkdtemp(prefix="dtolbus-fuzz-", dir=_SHM if os.access(_SHM, os.W_OK) else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    (made / "canary").write_bytes(b"untouched")
    return made


def fresh(name: str) -> Path:
    """Return an empty folder of this process."""
    folder = _top() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def canary() -> Path:
    return _top() / "canary"


def check_canary() -> None:
    """Nothing was cut, written or removed outside of the folder."""
    assert canary().read_bytes() == b"untouched"
    assert not any(path.name.startswith("escaped") for path in _top().iterdir())


def inside(root: Path, path: Path, depth: int) -> None:
    """Raise AssertionError unless the path is exactly so many plain names below the root, on every system."""
    names = path.relative_to(root).parts
    assert len(names) == depth, names
    assert os.path.normpath(path) == str(path)
    for name in names:
        assert name not in (".", "..")
        assert len(name.encode()) <= 255
        assert name.isascii()
        assert not set(name) & set('/\\:*?"<>|\0')
        assert name.isprintable()
        assert name[-1] not in ". "
        assert name.split(".")[0].casefold().strip() not in _RESERVED
