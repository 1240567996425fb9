"""Whether files that a worker holds open, or counts on, are still those that lie under their names."""

from pathlib import Path

from dtolbus.errors import DtolSinkError


class Presence:
    """Files as they were when this was made, told by device and inode: a name alone may be another file by now."""

    def __init__(self, *paths: Path) -> None:
        self._files = {path: _identity(path) for path in paths}

    def check(self) -> None:
        """Raise DtolSinkError where one was deleted, moved or replaced: what is stored in it would be lost."""
        for path in self._files:
            if not self.has(path):
                raise DtolSinkError(
                    f"{path} was deleted, moved or replaced while its worker had it open; nothing of this batch counts "
                    f"as stored: start the worker again, it stores anew what is not there"
                )

    def has(self, path: Path) -> bool:
        """Return whether a file is as it was: the same, or still none; so is one not asked about."""
        return path not in self._files or _identity(path) == self._files[path]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
