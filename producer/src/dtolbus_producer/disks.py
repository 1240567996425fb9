"""The disks that folders are on, also of folders that do not exist yet."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple


class Room(NamedTuple):
    """How much room a disk has, bytes."""

    total: int
    free: int


def existing(path: Path) -> Path:
    """Return the path, or its nearest parent that is there."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), path)


def room(path: Path) -> Room:
    """Return the room on the disk of a path that need not exist yet. Raises OSError."""
    usage = shutil.disk_usage(existing(path))
    return Room(usage.total, usage.free)


def disk_number(path: Path) -> int:
    """Return which disk the path is on. Raises OSError."""
    return existing(path).stat().st_dev


def folder_problem(folder: Path) -> str | None:
    """Return why files cannot be made in a folder, which need not exist yet; None where they can."""
    there = existing(folder)
    if not there.is_dir():
        return f"{there} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"the folder {there} cannot be written"
    return None
