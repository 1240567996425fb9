"""Who goes first on a busy machine, as its system has it of the processes of a stack that runs."""

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

import pytest
from tests.e2e.stacks import Up
from tests.producer.bus import eventually

from dtolbus_producer.priority import SLICE_NS

if sys.platform != "linux":
    pytest.skip("a thread's turns are Linux's", allow_module_level=True)

_GET_ATTRIBUTES = {"x86_64": 315, "aarch64": 275}.get(platform.machine())
"""Number of the system call `sched_getattr`."""
_BEFORE_A_RUN = 2
"""Threads: its main one, and a library's."""
_SINCE = (6, 12)
"""Linux that lets a thread choose its turns."""


def test_acquisition_goes_first_with_all_its_threads_and_in_short_turns(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--sinks", "sqlite") as up:
        pids = up.wait_for_pids("gateway", "acquisition-sim0", "sink-sqlite")
        eventually(lambda: len(threads_of(pids["acquisition-sim0"])) > _BEFORE_A_RUN)
        threads = {name: threads_of(pids[name]) for name in ("gateway", "acquisition-sim0", "sink-sqlite")}
        nice = {name: {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads[name]} for name in threads}
        assert all(len(found) == 1 for found in nice.values()), nice
        first, middle, last = (nice[name].pop() for name in ("acquisition-sim0", "sink-sqlite", "gateway"))
        assert first <= middle < last
        if can_choose_turns():
            assert {turn_ns(thread) for thread in threads["acquisition-sim0"]} == {SLICE_NS}
            assert {turn_ns(thread) for thread in threads["sink-sqlite"]} == {turn_ns(0)}


def threads_of(pid: int) -> list[int]:
    return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]


def can_choose_turns() -> bool:
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    return _GET_ATTRIBUTES is not None and sys.maxsize > 1 << 32 and release >= _SINCE


def turn_ns(thread: int) -> int:
    """Return how long a thread's turn is, 0 being our own."""
    said = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(_GET_ATTRIBUTES, thread, said, len(said), 0) == 0
    return int(struct.unpack("IIQiIQQQ", said)[5])
