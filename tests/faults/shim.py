"""The LD_PRELOAD library of shim.c: how it is built, what it is told, and the log that it leaves."""

import ctypes
import errno
import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")

OPEN, WRITE, TRUNCATE, SYNC, NAME, CLOSE = 1, 2, 4, 8, 16, 32
"""Kinds of calls, as a mask."""
EVERY = OPEN | WRITE | TRUNCATE | SYNC | NAME | CLOSE
COUNT, KILL, TORN, SHORT, ERROR = range(5)
"""What a rule does: nothing, end the process before the call, end it in the middle of a write, write less, refuse."""
FOR_EVER = 1 << 40

_ENTRY = struct.Struct("<iiqqqq")


class Rule(NamedTuple):
    """From the call `at` of these kinds on, counted from when the rule is set, this happens to `count` calls."""

    what: int
    kinds: int
    at: int = 0
    count: int = 1
    error: int = 0

    def __str__(self) -> str:
        name = ("count", "kill", "torn", "short", "error")[self.what]
        code = f" {errno.errorcode[self.error]}" if self.error else ""
        return f"{name}{code} at call {self.at} of kinds {self.kinds:#x}, {self.count} times"


class Call(NamedTuple):
    """One call in the log. Which of the fields mean something depends on the letter: see shim.c."""

    letter: str
    pid: int
    a: int
    b: int
    first: bytes
    second: bytes


def unavailable() -> str | None:
    """Return why there can be no shim here, or None."""
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        return "the shim interposes the calls of 64-bit Linux"
    return None if shutil.which("cc") else "no C compiler (cc) to build the shim with"


def build(folder: Path) -> Path:
    """Compile the library into the folder."""
    library = folder / "shim.so"
    flags = ["-std=gnu11", "-O1", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
    done = subprocess.run(["cc", *flags, "-o", library, SOURCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


class Shim:
    """The shim from inside the process that it was loaded into."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.shim_seen.restype = ctypes.c_long

    def begin(self, root: Path, log: Path | None) -> None:
        """Count calls below the folder from here on, and record them at the end of the log."""
        failed = self._library.shim_begin(os.fsencode(root), None if log is None else os.fsencode(log))
        assert not failed, log

    def add(self, rule: Rule) -> int:
        """Set a rule; return its number."""
        at, count = ctypes.c_long(rule.at), ctypes.c_long(rule.count)
        number: int = self._library.shim_rule(rule.what, rule.kinds, at, count, rule.error)
        assert number >= 0, "too many rules"
        return number

    def seen(self, number: int) -> int:
        """How many calls the rule has seen."""
        seen: int = self._library.shim_seen(number)
        return seen

    def heal(self) -> None:
        """From here on no rule does anything."""
        self._library.shim_heal()

    def mark(self, number: int) -> None:
        """Write into the log that this number was told to somebody: what it stands for must be durable."""
        self._library.shim_mark(ctypes.c_int64(number))


def read_log(path: Path) -> Iterator[Call]:
    """Yield the calls of a log."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        letter, pid, a, b, first, second = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        yield Call(chr(letter), pid, a, b, data[at : at + first], data[at + first : at + first + second])
        at += first + second
