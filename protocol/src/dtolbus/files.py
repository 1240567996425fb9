"""The file calls on which durability rests: append, sync, positioned reads, publishing under a new name.

Everything here works on descriptors: a buffered Python file may write twice after an error, and serves stale bytes of a
file that was cut back.
"""

import contextlib
import ctypes
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dtolbus.errors import CannotStartError

T = TypeVar("T")
Bytes = bytes | memoryview

_BINARY: int = getattr(os, "O_BINARY", 0)
_NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)
"""A pipe that stands in the place of a file is opened at once, and refused."""
_SHARING_VIOLATION = 32
_RENAME_NOREPLACE = 1
_NO_FILE = "not a regular file"
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EROFS}
"""Says that a folder is not one to sync; that of a folder above the data is no fault of theirs."""


def open_new(path: Path) -> int:
    """Create a file for appending; FileExistsError where there is one."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o644)


def open_private(path: Path) -> int:
    """Create a file for appending that only its owner can read, from its first byte on; FileExistsError as above."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o600)


def open_existing(path: Path) -> int:
    """Open a file for appending and reading; FileNotFoundError where there is none, OSError where it is no file."""
    return _regular(path, os.O_RDWR | os.O_APPEND)


def open_in_place(path: Path) -> int:
    """Open a file, made where there is none, for writing at its start. Raises OSError where it is no file."""
    return _regular(path, os.O_RDWR | os.O_CREAT)


def open_read(path: Path) -> int:
    """Open a file for reading. Raises OSError where there is none, or a pipe, a socket, a device has its name."""
    return _regular(path, os.O_RDONLY)


def read(path: Path) -> bytes:
    """Return all that a file holds. Raises OSError as `open_read` does."""
    with os.fdopen(open_read(path), "rb") as file:
        return file.read()


def read_start(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, at most so many. Raises OSError as `open_read` does."""
    fd = open_read(path)
    try:
        return read_at(fd, size, 0)
    finally:
        os.close(fd)


def append(fd: int, parts: Sequence[Bytes]) -> int:
    """Append the parts, all of them, and return how many bytes they were. Raises OSError (ENOSPC, EIO)."""
    total = 0
    for part in parts:
        total += len(part) if isinstance(part, bytes) else part.nbytes
    written = _write(fd, parts) if total else 0
    if written < total:
        _append_rest(fd, [memoryview(part).cast("B") for part in parts if len(part)], written)
    return total


def _append_rest(fd: int, views: list[memoryview], written: int) -> None:
    """Append what is left after a call that took only `written` bytes."""
    while views:
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if views:
            views[0] = views[0][written:]
            written = _write(fd, views)


def _write(fd: int, parts: Sequence[Bytes]) -> int:
    return os.writev(fd, parts) if hasattr(os, "writev") else os.write(fd, b"".join(parts))


def write_at_start(fd: int, data: bytes) -> None:
    """Overwrite the first bytes of the file, with one call unless the disk takes only a part of them."""
    done = 0
    while done < len(data):
        if hasattr(os, "pwrite"):
            done += os.pwrite(fd, data[done:], done)
        else:
            os.lseek(fd, done, os.SEEK_SET)
            done += os.write(fd, data[done:])


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Return up to `size` bytes from `offset` on; fewer only at the end of the file."""
    if hasattr(os, "pread"):
        data = os.pread(fd, size, offset)
        while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
            data += more
        return data
    os.lseek(fd, offset, os.SEEK_SET)  # the descriptor is its reader's own
    data = os.read(fd, size)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def sync(fd: int) -> None:
    """Return once what was written is on the medium. Raises OSError; the file must not be trusted after that."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415  # Unix only

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_dir(folder: Path) -> None:
    """Make the folder's entries durable (Windows does so by itself)."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def truncate(fd: int, size: int) -> None:
    """Cut the file back to `size` bytes."""
    os.ftruncate(fd, size)


def publish_new(temp: Path, final: Path) -> None:
    """Give a finished temporary file its final name; FileExistsError where that is taken, and nothing changes.

    Raises CannotStartError where the file system has neither hard links nor a rename that refuses existing names.
    """
    if os.name == "nt":
        _retried(lambda: os.rename(temp, final))
        return
    try:
        os.link(temp, final)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_noreplace(temp, final)
    else:
        os.unlink(temp)


def put(temp: Path, final: Path) -> None:
    """Give a finished temporary file its final name, in the place of what had it."""
    _retried(lambda: os.replace(temp, final))


def replace(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Replace the file's content whole and durably: a reader sees the old or the new, also after a power cut.

    Not `synced`: at once, for what can be told anew; a power cut may leave anything.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o644)
    try:
        append(fd, [data])
        if synced:
            sync(fd)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    os.close(fd)
    _retried(lambda: os.replace(temp, path))
    if synced:
        sync_dir(path.parent)


def make_folder(folder: Path) -> None:
    """Make the folder and its parents, durably; also those that a killed process made and did not come to sync."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    while not os.path.ismount(folder) and os.access(folder.parent, os.W_OK):
        try:
            sync_dir(folder.parent)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        folder = folder.parent


def sync_folders(top: Path, levels: int) -> None:
    """Make durable the entries of the folder, and of the folders so many levels below it."""
    level = [top]
    for _ in range(levels + 1):
        for folder in level:
            sync_dir(folder)
        level = [entry for folder in level for entry in folder.iterdir() if entry.is_dir()]


def _regular(path: Path, flags: int) -> int:
    """Open what must be a regular file: whoever reads a pipe waits for ever, a device may have no end."""
    try:
        fd = _retried(lambda: os.open(path, flags | _BINARY | _NO_WAIT, 0o644))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(errno.EINVAL, _NO_FILE, str(path)) from error
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, _NO_FILE, str(path))


def _rename_noreplace(temp: Path, final: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise CannotStartError(
            f"{final.parent}: this file system has no hard links, and this system no renameat2; choose another folder"
        )
    at_cwd = -100
    if libc.renameat2(at_cwd, os.fsencode(temp), at_cwd, os.fsencode(final), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        if code in {errno.EINVAL, errno.ENOSYS}:
            raise CannotStartError(
                f"{final.parent}: this file system has neither hard links nor a rename that refuses existing names; "
                f"choose another folder"
            )
        raise OSError(code, os.strerror(code), str(final))


def _retried(call: Callable[[], T]) -> T:
    """Call again for up to a second while a virus scanner or an indexer holds the file (Windows)."""
    if os.name != "nt":
        return call()
    deadline = time.monotonic() + 1.0
    while True:
        try:
            return call()
        except OSError as error:
            if getattr(error, "winerror", None) != _SHARING_VIOLATION or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
