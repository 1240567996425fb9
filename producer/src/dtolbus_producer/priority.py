"""Who goes first on a machine that has too much to do: acquisition, then the sinks, then the gateway."""

import contextlib
import os
import sys
from pathlib import Path

_FIRST, _LAST = -5, 5
"""Steps of nice, from where the whole stack was started."""
_ABOVE_NORMAL, _BELOW_NORMAL = 0x8000, 0x4000


def go_first() -> None:
    """Have this process go before others, where its user may ask for that; to be called before it has threads."""
    _set(_FIRST, _ABOVE_NORMAL)


def stand_back() -> None:
    """Have this process leave the processor to others; to be called before it has threads."""
    _set(_LAST, _BELOW_NORMAL)


def _set(steps: int, windows_class: int) -> None:
    with contextlib.suppress(OSError):  # not allowed: things go on as they are
        if sys.platform == "win32":
            import ctypes  # noqa: PLC0415  # its windll is Windows' alone

            kernel = ctypes.windll.kernel32
            kernel.SetPriorityClass(kernel.GetCurrentProcess(), windows_class)
            return
        nice = os.nice(steps)
        # Linux weighs sessions against each other first; nice counts within one
        if sys.platform == "linux" and os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(nice))
