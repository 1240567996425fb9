"""Word of a file that is written, where the system gives it (Linux: inotify); elsewhere it must be looked at."""

import contextlib
import logging
import sys
from pathlib import Path

if sys.platform == "linux":
    from inotify_simple import INotify, flags

log = logging.getLogger(__name__)


class HeadWatch:
    """Watches any number of files; `fd` is readable once one was written, until `heard`."""

    def __init__(self) -> None:
        self.fd: int | None = None
        """To be waited for; None where the system gives no word."""
        if sys.platform == "linux":
            try:
                self._inotify = INotify()
                self.fd = self._inotify.fileno()
            except OSError as error:  # so many users of it as the system allows
                log.debug("no word of heads: looked at every ms", extra={"cause": str(error)})

    def add(self, path: Path) -> int | None:
        """Return the number by which the file is watched from now on; None where it cannot be, or is not there yet."""
        if sys.platform == "linux" and self.fd is not None:
            with contextlib.suppress(OSError):
                return int(self._inotify.add_watch(path, flags.MODIFY))
        return None

    def drop(self, number: int) -> None:
        """Watch a file no longer. One that went is not watched any more."""
        if sys.platform == "linux" and self.fd is not None:
            with contextlib.suppress(OSError):
                self._inotify.rm_watch(number)

    def heard(self) -> None:
        """Take the word that is there."""
        if sys.platform == "linux" and self.fd is not None:
            self._inotify.read(timeout=0)

    def close(self) -> None:
        """Watch nothing any more."""
        if sys.platform == "linux" and self.fd is not None:
            self._inotify.close()
            self.fd = None
