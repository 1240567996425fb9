"""Who goes first on a machine that has too much to do: acquisition, then the sinks, then the gateway."""

import contextlib
import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

_FIRST, _LAST = -5, 5
"""Steps of nice, from where the whole stack was started."""
_ABOVE_NORMAL, _BELOW_NORMAL = 0x8000, 0x4000
SLICE_NS = 100_000
"""The shortest that Linux takes."""
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
"""Number of the system call `sched_setattr`, by machine; older C libraries have no function for it."""
_ATTRIBUTES = struct.Struct("IIQiIQQQ")
"""Its `struct sched_attr`: size, policy, flags, nice, priority, runtime, deadline, period."""


def go_first() -> None:
    """Have this process go before others, where its user may ask for that; what threads begin later do the same."""
    _set(_FIRST, _ABOVE_NORMAL)
    if sys.platform == "linux":
        for thread in _threads():
            _take_turns_of(SLICE_NS, thread)


def stand_back() -> None:
    """Have this process leave the processor to others; what threads begin later do the same."""
    _set(_LAST, _BELOW_NORMAL)


def _set(steps: int, windows_class: int) -> None:
    with contextlib.suppress(OSError):  # not allowed: things go on as they are
        if sys.platform == "win32":
            kernel = ctypes.windll.kernel32
            kernel.SetPriorityClass(kernel.GetCurrentProcess(), windows_class)
            return
        nice = os.nice(steps)
        if sys.platform != "linux":
            return
        for thread in _threads():
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        # sessions are weighed against each other first; nice counts within one
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(nice))


def _threads() -> list[int]:
    """Return this process's threads: what libraries have begun already is not Python's; nice is each thread's own."""
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _take_turns_of(slice_ns: int, thread: int) -> None:
    """Ask Linux for short turns: whoever wakes for one need not wait until another's long one is over.

    nice tells how much of a processor one gets, not how soon. Any user may ask; before 6.12 it changes nothing. What
    was started under another policy (real time, say) keeps that.
    """
    number = _SET_ATTRIBUTES.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    with contextlib.suppress(OSError):  # the thread has ended meanwhile
        if number is None or os.sched_getscheduler(thread) != os.SCHED_OTHER:
            return
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
        ctypes.CDLL(None).syscall(number, thread, asked, 0)  # refused: things go on as they are
