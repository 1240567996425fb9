"""The data folder's disk: fast enough, room enough, of a kind that keeps what it says it keeps."""

import os
import sys
import tempfile
import time
from pathlib import Path

from dtolbus import files
from dtolbus.errors import CannotStartError
from dtolbus_producer.disks import existing, folder_problem
from dtolbus_producer.doctor.finding import Finding
from dtolbus_producer.quantities import show_age, show_size

_BLOCK = 1 << 20
_BLOCKS = 16
_SLOWEST_SYNC_S = 0.5
_MARGIN = 4
_FEW_HOURS = 24.0
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "afs",
    "lustre",
    "virtiofs",
}
_ON_NETWORK = "SQLite's WAL does not work there, and what was synced may still be lost: put the data on a local disk"


def examine_folder(data: Path, needed_bytes_s: float) -> list[Finding]:
    """Return what there is to say about a data folder, which need not exist yet; nothing is left behind."""
    problem = folder_problem(data)
    if problem is not None:
        return [Finding("data folder", "problem", f"{data}: {problem}", "choose another with --data")]
    there = existing(data)
    findings = [Finding("data folder", "ok", f"{data} can be written"), _file_system(there)]
    try:
        with tempfile.TemporaryDirectory(prefix=".dtolbus-doctor-", dir=there) as made:
            folder = Path(made)
            return [*findings, publishing(folder), speed(*_measured(folder), needed_bytes_s)]
    except OSError as error:
        what = f"a test file cannot be written: {error.strerror or error}"
        return [*findings, Finding("disk speed", "problem", what, "make room, or choose another folder with --data")]


def room_left(free_bytes: int, kept_bytes: int, hours: float | None) -> Finding:
    """Tell how long the room lasts; `hours` None: nothing is written."""
    kept = f", {show_size(kept_bytes)} of it stay so (min_free)" if kept_bytes else ""
    what = f"{show_size(free_bytes)} free{kept}"
    if free_bytes <= kept_bytes:
        return Finding("disk room", "problem", what, "nothing can be recorded: make room, or choose another disk")
    if hours is None:
        return Finding("disk room", "ok", what)
    what = f"{what}: enough for {show_age(hours * 3600)} of what is configured"
    if hours < _FEW_HOURS:
        todo = "make room, record less (`dtolbus check` tells what takes how much), or let [journal] max_size prune"
        return Finding("disk room", "warning", what, todo)
    return Finding("disk room", "ok", what)


def speed(bytes_s: float, slowest_sync_s: float, needed_bytes_s: float) -> Finding:
    """Tell whether the disk is fast enough for what is configured."""
    what = (
        f"{show_size(round(bytes_s))} a second written and synced, the slowest sync {slowest_sync_s * 1e3:.3g} ms; "
        f"{show_size(round(needed_bytes_s))} a second are needed"
    )
    if bytes_s < needed_bytes_s:
        return Finding("disk speed", "problem", what, "samples would be lost: use a faster disk, or record less")
    if bytes_s < _MARGIN * needed_bytes_s:
        return Finding("disk speed", "warning", what, f"less than {_MARGIN} times what is needed: use a faster disk")
    if slowest_sync_s > _SLOWEST_SYNC_S:
        todo = "it stalls: see what else writes to it, and raise [journal] queue_s"
        return Finding("disk speed", "warning", what, todo)
    return Finding("disk speed", "ok", what)


def _measured(folder: Path) -> tuple[float, float]:
    """Write and sync some blocks; return bytes a second and the slowest sync, s. Raises OSError."""
    block = os.urandom(_BLOCK)
    fd = files.open_new(folder / "speed")
    slowest_ns = 0
    begun_ns = time.perf_counter_ns()
    try:
        for _ in range(_BLOCKS):
            files.append(fd, [block])
            asked_ns = time.perf_counter_ns()
            files.sync(fd)
            slowest_ns = max(slowest_ns, time.perf_counter_ns() - asked_ns)
    finally:
        os.close(fd)
    return _BLOCKS * _BLOCK / ((time.perf_counter_ns() - begun_ns) / 1e9), slowest_ns / 1e9


def publishing(folder: Path) -> Finding:
    """Try whether a finished file can get its name without ever replacing another."""
    (folder / "a").write_bytes(b"1")
    (folder / "taken").write_bytes(b"2")
    try:
        files.publish_new(folder / "a", folder / "b")
    except (CannotStartError, OSError) as error:
        return Finding("new files", "problem", str(error), "the Parquet sink needs it: choose a folder on another disk")
    (folder / "c").write_bytes(b"3")
    try:
        files.publish_new(folder / "c", folder / "taken")
    except FileExistsError:
        return Finding("new files", "ok", "get their name at once, and never replace another (link or renameat2)")
    return Finding("new files", "problem", "a rename replaced another file", "choose a folder on another disk")


def _file_system(there: Path) -> Finding:
    if os.name == "nt":
        return windows_path(str(there.absolute()))
    mounts = Path("/proc/self/mounts")
    if sys.platform != "linux" or not mounts.exists():
        return Finding("file system", "ok", "its kind cannot be told here")
    return file_system(mounts.read_text(errors="replace"), there.resolve())


def file_system(mounts: str, folder: Path) -> Finding:
    """Read `/proc/self/mounts`: which kind the folder is on. The last mount over the longest path counts."""
    kind, length = "", -1
    for line in mounts.splitlines():
        _, place, found, *_ = line.split(" ")
        path = place.encode().decode("unicode_escape")
        if folder.is_relative_to(path) and len(path) >= length:
            kind, length = found, len(path)
    if kind in _NETWORK:
        return Finding("file system", "warning", f"{kind}: a network mount", _ON_NETWORK)
    if kind in ("tmpfs", "ramfs"):
        return Finding("file system", "warning", f"{kind}: in memory", "all is lost with the power: use a disk")
    return Finding("file system", "ok", kind or "its kind cannot be told here")


def windows_path(path: str) -> Finding:
    """Tell whether a Windows path names another machine."""
    if path.startswith(("\\\\", "//")) and not path.startswith(("\\\\?\\", "\\\\.\\")):
        return Finding("file system", "warning", f"{path}: on another machine", _ON_NETWORK)
    return Finding("file system", "ok", "a local drive")
