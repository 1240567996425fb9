"""Data folders that many tests damage, each anew."""

import shutil
from pathlib import Path


def as_it_was(folder: Path) -> Path:
    """Return the folder, at its own place, with what it held when this was first asked for."""
    kept = folder.with_name("kept")
    if not kept.exists():
        shutil.copytree(folder, kept)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
    return folder
