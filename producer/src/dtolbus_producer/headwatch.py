"""Word of a file that is written, where the system gives it (Linux: inotify); elsewhere it must be looked at."""

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

if sys.platform == "linux":
    from inotify_simple import INotify, flags

log = logging.getLogger(__name__)

_WORD_BYTES = 64 * 1024


class HeadWatch:
    """Watches any number of files; `fd` is readable once one was written, until `heard`."""

    def __init__(self) -> None:
        self._inotify = _inotify()
        self.fd: int | None = None if self._inotify is None else self._inotify.fileno()
        """To be waited for; None where the system gives no word."""

    def add(self, path: Path) -> int | None:
        """Return the number by which the file is watched from now on; None where it cannot be, or is not there yet."""
        if self._inotify is not None:
            with contextlib.suppress(OSError):
                return int(self._inotify.add_watch(path, flags.MODIFY))
        return None

    def drop(self, number: int) -> None:
        """Watch a file no longer. One that went is not watched any more."""
        if self._inotify is not None:
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(number)

    def heard(self) -> None:
        """Take the word that is there; of which file is not asked."""
        if self.fd is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self.fd, _WORD_BYTES)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._inotify is not None:
            self._inotify.close()
            self.fd = None


def _inotify() -> Any:
    if sys.platform != "linux":
        return None
    try:
        return INotify(nonblocking=True)
    except OSError as error:  # the system has a bound on them, and on descriptors
        log.debug("no word of heads: looked at every ms", extra={"cause": str(error)})
        return None
