"""The id of a journal, made once and kept in it. A copy of the data folder has the same."""

import logging
import os
import uuid
from pathlib import Path

import msgspec

from dtolbus import files
from dtolbus.errors import CannotStartError
from dtolbus.jsonreading import read_json

log = logging.getLogger(__name__)

IDENTITY_FILE = ".journal.json"
"""No device's folder: a quoted name begins with no dot."""


class _File(msgspec.Struct, frozen=True):
    journal_id: str


def journal_id(journal: Path) -> str:
    """Return the journal's id, and make it where there is none; empty, which is logged, where that cannot be."""
    path = journal / IDENTITY_FILE
    try:
        return _known(path) or _made(path)
    except (OSError, CannotStartError) as error:
        log.warning("the journal has no id", extra={"file": str(path), "cause": str(error)})
        return ""


def _known(path: Path) -> str | None:
    try:
        found: _File = read_json(files.read(path), _File)
        return found.journal_id
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("not the id of a journal, made anew", extra={"file": str(path), "cause": str(error)})
        path.unlink()
        return None


def _made(path: Path) -> str:
    """Make it; where another process is first, its id is the journal's."""
    made = str(uuid.uuid4())
    temp = path.with_name(f"{path.name}.{os.getpid()}.{made}")
    try:
        files.replace(temp, msgspec.json.encode(_File(made)) + b"\n")
        files.publish_new(temp, path)
    except FileExistsError:
        return _known(path) or made
    finally:
        temp.unlink(missing_ok=True)
    files.sync_dir(path.parent)
    return made
