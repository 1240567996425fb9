"""The journal as the gateway follows it: every run and how far it is; what is to be published now."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dtolbus.bounds import can_be_announced
from dtolbus.errors import DtolbusError, WireError
from dtolbus.records import RunInfo, RunStatus
from dtolbus.runs import RUN_FILE, RunFolder, run_path
from dtolbus.topics import name_fault, stream_name, unquote
from dtolbus.wire import Heartbeat
from dtolbus_producer.catalog import Catalog
from dtolbus_producer.following import FollowedRun, Outgoing
from dtolbus_producer.headwatch import HeadWatch
from dtolbus_producer.serving import Held

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.1
_ENDED_HEARTBEAT_S = 1.0
_ENDED_FOR_S = 30.0
"""Heartbeats of a run go on for this long after its end."""
_ENDED_BEFORE_S = 3600.0
"""Runs that ended this long before the gateway's start have heartbeats too: their end may not have been heard."""
_DISCOVER_S = 0.05
_STILL_S = 1.0
"""A run whose head stands still this long may have lost its producer."""
_BROKEN_S = 1.0
"""A run that cannot be read is tried again after this long."""
_SLICE_RECORDS = 64
_AHEAD_RECORDS = 32
"""Made ready in one turn."""
_AHEAD_BYTES = 4 << 20
"""Made ready at any time; a record more, where that is larger."""

Recover = Callable[[Path], object]


class RunHead(NamedTuple):
    """How far a run of the journal is."""

    info: RunInfo
    head: int
    is_over: bool


@dataclass
class _Known:
    """A run of the journal: followed while it grows, else only its status is kept."""

    path: Path
    status: RunStatus
    followed: FollowedRun | None = None
    beat_at: float = 0.0
    beat_until: float = 0.0
    check_at: float = 0.0
    """When to look whether its producer is still there."""
    broken_until: float = 0.0
    is_logged: bool = False

    @property
    def status_now(self) -> RunStatus:
        """How far it is, between heartbeats too."""
        return self.status if self.followed is None else self.followed.status


class JournalTail:
    """Follows all runs of a journal; `recover` ends a run whose producer is gone, and raises where it is not."""

    def __init__(self, journal: Path, recover: Recover) -> None:
        self._journal = journal
        self.watch = HeadWatch()
        """Of the heads of the runs that are being written."""
        self._catalog = Catalog(journal)
        self._recover = recover
        self._recovering: threading.Thread | None = None
        self._known: dict[str, _Known] = {}
        self._lively: dict[str, _Known] = {}
        self._lost: dict[str, str] = {}
        """By run_id: the stream of one whose folder went."""
        self._discover_at = 0.0
        self._waiting: list[RunFolder] = []
        """Runs that could not be begun, for want of descriptors, say: they are tried again."""
        self._is_first = True

    @property
    def is_running(self) -> bool:
        """Whether any run is being written."""
        return any(known.followed is not None for known in self._lively.values())

    @property
    def is_watched(self) -> bool:
        """Whether there is word when the head of any run moves that is being written."""
        return all(known.followed is None or known.followed.is_watched for known in self._lively.values())

    @property
    def has_more(self) -> bool:
        """Whether durable records wait to be published."""
        return any(k.followed is not None and k.followed.published < k.followed.head for k in self._lively.values())

    def statuses(self) -> list[RunStatus]:
        """Return how far every run is: the running ones first, then the newest."""
        return sorted(
            (known.status_now for known in self._known.values()),
            key=lambda status: (status.state == "running", status.info.run_id),
            reverse=True,
        )

    def held(self, run_id: str) -> Held | None:
        """Return how far a run can be served; None where the journal has no such run."""
        known = self._known.get(run_id)
        if known is None:
            return None
        head = known.followed.head if known.followed is not None else known.status.head
        return Held(known.status.info, known.path, head)

    def heads(self) -> list[RunHead]:
        """Return how far every run is. May be asked from any thread."""
        found = []
        for known in self._known.copy().values():
            followed, status = known.followed, known.status
            head = status.head if followed is None else followed.head
            found.append(RunHead(status.info, head, status.state != "running"))
        return found

    def problems(self, now: float) -> list[str]:
        """Return which runs cannot be read now; `now` is monotonic, s. May be asked from any thread."""
        broken = [known.path for known in self._lively.copy().values() if now < known.broken_until]
        return [f"the run {path} cannot be read" for path in (*broken, *(run.path for run in list(self._waiting)))]

    def has_had(self, run_id: str) -> bool:
        """Return whether the journal has the run, or lost it since this tails."""
        return run_id in self._known or run_id in self._lost

    def stream_of(self, device: str, task: str, run_id: str) -> str | None:
        """Return the stream of a run that the journal has, or had since this tails; None of any other.

        One that is not known by its id may be there under these names all the same, unreadable for the moment.
        """
        known = self._known.get(run_id)
        if known is not None:
            return stream_name(known.status.info.device, known.status.info.task)
        if run_id in self._lost:
            return self._lost[run_id]
        if any(name_fault(name) for name in (device, task, run_id)):
            return None
        return stream_name(device, task) if run_path(self._journal, device, task, run_id).is_dir() else None

    def step(self, now: float) -> Iterator[Outgoing | Heartbeat]:
        """Yield what is to be published now: new records, then heartbeats that are due; `now` is monotonic, s."""
        if now >= self._discover_at:
            self._discover_at = now + _DISCOVER_S
            self._discover(now)
        for known in list(self._lively.values()):
            if now < known.broken_until:
                continue
            try:
                if known.followed is not None:
                    yield from self._follow(known, known.followed, now)
            except (DtolbusError, OSError) as error:
                self._broken(known, now, error)
            if now >= known.beat_at:
                yield self._heartbeat(known, now)
        if not self.has_more:
            self._prepare(now)

    def last_words(self) -> list[Heartbeat]:
        """Return a heartbeat of each run that had any."""
        return [Heartbeat(known.status_now) for known in self._lively.values()]

    def close(self) -> None:
        """Close all files; waits for a recovery that is under way."""
        if self._recovering is not None:
            self._recovering.join()
        for known in self._lively.values():
            if known.followed is not None:
                known.followed.close()
        self.watch.close()

    def _discover(self, now: float) -> None:
        before, self._waiting = self._waiting, []
        found = self._catalog.discover()
        gone = self._catalog.gone()
        for path in gone:
            self._lose(path)
        for folder in (*(folder for folder in before if folder.path not in gone), *found):
            try:
                known = self._begun(folder, now)
            except (DtolbusError, OSError) as error:
                folder.close()
                if folder not in before:
                    log.warning("run cannot be read", extra={"run": str(folder.path), "cause": str(error)})
                if isinstance(error, OSError):
                    self._waiting.append(folder)
                continue
            self._known[folder.info.run_id] = known
            if known.followed is not None or known.beat_until > now:
                self._lively[folder.info.run_id] = known
        self._is_first = False

    def _lose(self, path: Path) -> None:
        """Announce and serve a run no longer whose folder went."""
        known = self._known.pop(unquote(path.name), None)
        if known is None:
            return
        info = known.status.info
        self._lively.pop(info.run_id, None)
        self._lost[info.run_id] = stream_name(info.device, info.task)
        if known.followed is not None:
            known.followed.close()
        log.warning(
            "run is gone from the journal, served no longer: put its folder back, or sinks that lack it never have it",
            extra={"run": str(path), "head": known.status.head},
        )

    def _begun(self, folder: RunFolder, now: float) -> _Known:
        if not can_be_announced(folder.info):
            raise WireError("a message cannot hold its header, by its size or a number in it: no sink can have the run")
        status = folder.status()
        if status.state != "running":
            # one that came while this tails is recent, whatever the wall clock did
            age_s = time.time() - (folder.path / RUN_FILE).stat().st_mtime
            is_recent = not self._is_first or age_s < _ENDED_BEFORE_S
            folder.close()
            return _Known(folder.path, status, beat_until=now + _ENDED_FOR_S if is_recent else 0.0)
        followed = FollowedRun(folder, status.head if self._is_first else 0, self.watch)
        return _Known(folder.path, followed.status, followed, check_at=now if self._is_first else now + _STILL_S)

    def _follow(self, known: _Known, followed: FollowedRun, now: float) -> Iterator[Outgoing]:
        info: RunInfo = followed.info
        followed.look(now)
        if followed.head > followed.published:
            yield from followed.take(_SLICE_RECORDS)
        if followed.is_over:
            known.status = followed.status
            known.followed = None
            known.beat_at, known.beat_until = now, now + _ENDED_FOR_S
            followed.close()
            log.info("run over", extra={"run": info.run_id, "state": known.status.state, "final": known.status.head})
        elif now >= max(known.check_at, followed.moved_at + _STILL_S):
            known.check_at = now + _STILL_S
            self._start_recovery(known.path)

    def _prepare(self, now: float) -> None:
        """Have some of what is not durable yet ready, of all runs together so little that nobody waits for it."""
        runs = [k.followed for k in self._lively.values() if k.followed is not None and now >= k.broken_until]
        records, size = _AHEAD_RECORDS, _AHEAD_BYTES - sum(run.ready_bytes for run in runs)
        for run in runs:
            if records <= 0 or size <= 0:
                break
            before = run.ready_bytes
            records -= run.prepare(records, size)
            size -= run.ready_bytes - before

    def _heartbeat(self, known: _Known, now: float) -> Heartbeat:
        if known.followed is not None:
            known.status = known.followed.status
            known.beat_at = now + HEARTBEAT_S
        else:
            known.beat_at = now + _ENDED_HEARTBEAT_S
            if now > known.beat_until:
                del self._lively[known.status.info.run_id]
        return Heartbeat(known.status)

    def _broken(self, known: _Known, now: float, error: Exception) -> None:
        known.broken_until = now + _BROKEN_S
        if not known.is_logged and known.path.exists():  # a folder that went is told as such
            known.is_logged = True
            log.warning("run cannot be followed", extra={"run": str(known.path), "cause": str(error)})

    def _start_recovery(self, path: Path) -> None:
        """Recover on a thread of its own: reading a whole segment must not hold up the others."""
        if self._recovering is not None and self._recovering.is_alive():
            return
        self._recovering = threading.Thread(target=self._try_recovery, args=(path,), name="recovery", daemon=True)
        self._recovering.start()

    def _try_recovery(self, path: Path) -> None:
        try:
            self._recover(path)
        except (DtolbusError, OSError) as error:
            log.debug("not recovered", extra={"run": str(path), "cause": str(error)})
