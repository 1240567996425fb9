"""Files and folders that only their owner can read, from their first byte on."""

import contextlib
import os
import stat
import subprocess
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

from dtolbus import files
from dtolbus.errors import CannotStartError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Set by systemd for a service with `LoadCredential=`: a folder that only this service can enter."""


def make_folder(folder: Path) -> None:
    """Make a folder for its owner alone, durably. One that is there stays as it is."""
    files.make_folder(folder.parent)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    _protect(folder)
    if _is_root():
        above = folder.parent.stat()
        os.chown(folder, above.st_uid, above.st_gid, follow_symlinks=False)
    files.sync_dir(folder.parent)


def create(path: Path, data: bytes) -> None:
    """Make a file for its owner alone, whole and durable; FileExistsError where there is one. Raises OSError.

    What root makes belongs to the folder's owner: the gateway may be another user's.
    """
    _make(path, data, files.publish_new)


def replace(path: Path, data: bytes) -> None:
    """Do the same in the place of what has the name, if anything has."""
    _make(path, data, files.put)


def _make(path: Path, data: bytes, name: Callable[[Path, Path], None]) -> None:
    temp = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    fd = files.open_private(temp)
    try:
        try:
            _protect(temp)  # while it is empty
            if _is_root():
                folder = path.parent.stat()
                os.fchown(fd, folder.st_uid, folder.st_gid)
            files.append(fd, [data])
            files.sync(fd)
        finally:
            os.close(fd)
        name(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    files.sync_dir(path.parent)


def read(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, at most so many.

    Raises OSError as `files.open_read`, and CannotStartError where others than its owner can read it.
    """
    fd = files.open_read(path)
    try:
        if os.name != "nt" and os.fstat(fd).st_mode & (_OTHERS & ~_granted_there(path)):
            raise CannotStartError(f"{path} is secret, and others can read it: chmod 600 '{path}'")
        return files.read_at(fd, size, 0)
    finally:
        os.close(fd)


def _granted_there(path: Path) -> int:
    """Return the bits of the mode that say nothing there.

    systemd lets the service's user read a credential by an ACL, and that shows as the group's bit.
    """
    folder = os.environ.get(_CREDENTIALS)
    return stat.S_IRGRP if folder and path.parent == Path(folder) else 0


def check_folder(folder: Path) -> None:
    """Raise CannotStartError where others than its owner can write in the folder."""
    if os.name != "nt" and folder.stat().st_mode & _OTHERS_WRITE:
        raise CannotStartError(f"others can write in {folder}, and so allow keys: chmod 700 '{folder}'")


def owner_only(path: PurePath, *, is_folder: bool, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the command that leaves a file or folder to its owner alone on Windows."""
    user, domain = environment.get("USERNAME", ""), environment.get("USERDOMAIN", "")
    owner = f"{domain}\\{user}" if domain else user
    rights = "(OI)(CI)F" if is_folder else "F"
    return ["icacls", str(path), "/inheritance:r", "/grant:r", f"{owner}:{rights}"]


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _protect(path: Path) -> None:
    """Do on Windows what the mode does elsewhere. Raises CannotStartError."""
    if os.name != "nt":
        return
    command = owner_only(path, is_folder=path.is_dir())
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # a list, no shell
    if done.returncode != 0:
        why = " ".join((done.stderr or done.stdout).split())
        raise CannotStartError(f"{path} cannot be left to its owner alone: {why}")
