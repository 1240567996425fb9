"""How much memory the gateway has, and when peers made it too much.

libzmq bounds how many messages it queues, and how long each frame is, but no message's number of frames: one whose
last frame never comes grows without bound. Nor does it count bytes: subscribers that take nothing, each since another
instant, keep each their own thousand messages.
"""

import ctypes
import mmap
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path

MOST_MB = 150.0
"""Beside what is queued for one subscriber that takes nothing. In peace it is 50."""
_MORE_MB = 60.0
"""Above what it came back to, where that is more."""
_LOOK_S = 0.01
_STATM = Path("/proc/self/statm")


class MemoryWatch:
    """Tells when it is too much; whoever asks cuts everybody off then, and asks again. Linux only."""

    def __init__(self) -> None:
        # kept open: it is needed where no descriptor is left, too
        self._statm = _STATM.open("rb", buffering=0) if sys.platform == "linux" else None
        self._looked_at = 0.0
        self._most_mb = MOST_MB
        self._rests_until: float | None = None

    def is_too_much(self, now: float, queued: Callable[[], int], rest_s: float) -> bool:
        """Return whether everybody is to be cut off, for `rest_s`.

        `now` is monotonic, s; `queued` gives what one subscriber may leave lying, bytes.
        """
        if self._statm is None or now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        if self._rests_until is not None:
            if now < self._rests_until:
                return False
            self._rests_until = None
            _give_back()
            self._most_mb = max(MOST_MB, _rss_mb(self._statm) + _MORE_MB)
        if _rss_mb(self._statm) <= self._most_mb + queued() / 1e6:
            return False
        self._rests_until = now + rest_s / 2
        return True

    def close(self) -> None:
        """Look no more."""
        if self._statm is not None:
            self._statm.close()


def _rss_mb(statm: FileIO) -> float:
    statm.seek(0)
    return int(statm.read().split()[1]) * mmap.PAGESIZE / 1e6


def _give_back() -> None:
    """Have the C library return what is free to the system; one that cannot keeps it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
