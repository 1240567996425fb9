"""Locks that say who may do what in a data folder; they free themselves when their process ends, however it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dtolbus.errors import CannotStartError
from dtolbus.files import make_folder


@contextmanager
def locked(path: Path, taken: str) -> Iterator[None]:
    """Hold the lock file. Raises CannotStartError: `taken`, or that the folder cannot be written."""
    lock = FileLock(path, blocking=False)
    try:
        make_folder(path.parent)
        lock.acquire()
    except Timeout as error:
        raise CannotStartError(taken) from error
    except OSError as error:
        raise CannotStartError(
            f"the folder {path.parent} cannot be written ({error.strerror or error}): choose another with --data"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock file; the file is not made. Raises OSError where that cannot be told."""
    if not path.exists():
        return False
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False
