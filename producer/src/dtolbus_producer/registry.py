"""The sinks that said Hello and how far they are, kept in `<data>/sinks/<name>.json`."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from dtolbus import files
from dtolbus.errors import RawFormatError
from dtolbus.registrations import (
    SINKS_FOLDER,
    Registration,
    SinkPosition,
    encode_registration,
    read_registration,
    registration_path,
)
from dtolbus.topics import name_fault
from dtolbus.wire import Ack, Hello, Refused
from dtolbus_producer.registering import HasHad, acked, is_elsewhere, registered

log = logging.getLogger(__name__)

WRITE_EVERY_S = 0.2
MOST_SINKS = 1000
"""Of a journal; without keys, whoever reaches the gateway could register any number."""
UNKNOWN_RUN = "this journal has no such run: what is acknowledged of it does not count"
_COUNT_EVERY_S = 1.0


class _Change(NamedTuple):
    """What is to be written."""

    registration: Registration
    is_new: bool
    """Whether there was no file of it when it last spoke; else one that is gone was forgotten since."""


class _Acked(NamedTuple):
    """What a worker acknowledged of late: a registration of ten thousand runs is not made anew for each."""

    positions: dict[str, SinkPosition]
    seen_utc: str


class Registry:
    """Takes Hello and Ack; writes what changed on a thread of its own, so that a slow disk delays no publishing."""

    def __init__(self, data: Path, has_had: HasHad) -> None:
        """`has_had` tells of a run's id whether the journal has it, or had it."""
        self._data = data
        self._has_had = has_had
        self._known: dict[str, Registration] = {}
        self._acked: dict[str, _Acked] = {}
        """By worker: what it acknowledged since that was last folded into what is known of it."""
        self._told: dict[str, set[str]] = {}
        """By worker whose Hello comes in parts: the runs named so far."""
        self._changed: set[str] = set()
        self._new: set[str] = set()
        """Those whose file was never there since their Hello."""
        self._written_at = 0.0
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self._writing: Future[dict[str, str]] | None = None
        self._unwritten: dict[str, str] = {}
        """What could not be written the last time, by name, and why."""
        files.make_folder(data / SINKS_FOLDER)
        self._count, self._counted_at = self._counted(), time.monotonic()
        """Sinks at that instant, and those that came since."""

    def hello(self, hello: Hello) -> str | None:
        """Register a worker; return why not, where its name is another destination's, or cannot be a file's.

        A nameless one keeps no position and is not registered.
        """
        if not hello.worker:
            return None
        fault = name_fault(hello.worker)
        if fault:
            return f"a worker's name: {fault}"
        known = self._current(hello.worker)
        known = None if known is None else self._folded(known)
        if known is not None and is_elsewhere(known, hello):
            return (
                f"the sink {known.name!r} of this journal is {known.place}; give {hello.place} another --name (with "
                f"keys: a key of its own), or say `dtolbus sinks forget {known.name}` first"
            )
        if known is None:
            if self._is_crowded():
                return f"{MOST_SINKS} sinks are registered: `dtolbus sinks forget` those that will not come back"
            self._new.add(hello.worker)
            self._count += 1
        told = self._told.pop(hello.worker, set())
        made = registered(known, hello, _now(), None if hello.more else told, self._has_had)
        self._put(made)
        if hello.more:
            self._told[hello.worker] = (told | {said.run_id for said in hello.positions}) & made.positions.keys()
        return None

    def ack(self, ack: Ack, stream: str | None) -> Refused | None:
        """Note how far a worker is; return what to answer one that never said Hello, or was forgotten since.

        `stream` is the run's, None where the journal knows of no such run: then it counts only if it did before.
        """
        known = None if name_fault(ack.worker) else self._current(ack.worker)
        if known is None:
            return Refused(f"no sink {ack.worker!r} is registered: say Hello", is_unregistered=True)
        late = self._acked[ack.worker].positions if ack.worker in self._acked else {}
        position = acked(known, late.get(ack.run_id), ack, stream)
        if position is None:
            return Refused(UNKNOWN_RUN)
        late[ack.run_id] = position
        self._acked[ack.worker] = _Acked(late, _now())
        self._known.setdefault(ack.worker, known)
        self._changed.add(ack.worker)
        return None

    def known(self) -> dict[str, Registration]:
        """Return the sinks that said Hello and were not forgotten, as they are now. May be asked from any thread."""
        acked = self._acked.copy()  # first: what is folded meanwhile is known then
        known = {
            name: registration for name, registration in self._known.copy().items() if not self._is_forgotten(name)
        }
        for name, news in acked.items():
            if name in known:
                positions = {**known[name].positions, **news.positions.copy()}
                known[name] = msgspec.structs.replace(known[name], positions=positions)
        return known

    def unwritten(self, name: str) -> str:
        """Return why the registration of that name could not be written the last time; empty where it could."""
        return self._unwritten.get(name, "")

    def write_changed(self) -> list[str]:
        """Have what changed, or could not be written, written, at most every 0.2 s; returns at once.

        Returns the names of those that could not be written, when it begins.
        """
        now = time.monotonic()
        if now - self._written_at < WRITE_EVERY_S:
            return []
        news: list[str] = []
        if self._writing is not None:
            if not self._writing.done():
                return []
            failed, self._writing = self._writing.result(), None
            news = [name for name in failed if name not in self._unwritten]
            self._unwritten = failed
            self._changed |= failed.keys()
        if self._changed:
            self._written_at = now
            self._writing = self._writer.submit(self._write, self._take_changed())
        return news

    def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            self._changed |= self._writing.result().keys()
        self._writer.submit(self._write, self._take_changed())
        self._writer.shutdown(wait=True)

    def _take_changed(self) -> list[_Change]:
        changed = [
            _Change(self._folded(self._known[name]), name in self._new) for name in self._changed if name in self._known
        ]
        self._changed.clear()
        return changed

    def _write(self, changed: list[_Change]) -> dict[str, str]:
        """Write these, but not those that were forgotten; return the names of those that cannot be written, and why."""
        failed = {}
        for registration, is_new in changed:
            path = registration_path(self._data, registration.name)
            try:
                if not is_new and _is_gone(path):
                    continue
                files.replace(path, encode_registration(registration))
                self._new.discard(registration.name)
            except OSError as error:
                failed[registration.name] = str(error)
                if registration.name not in self._unwritten:
                    log.warning("registration not written", extra={"file": str(path), "cause": str(error)})
        return failed

    def _is_crowded(self) -> bool:
        """Return whether there are as many sinks as there may be; counts again once a second at most."""
        now = time.monotonic()
        if self._count >= MOST_SINKS and now - self._counted_at >= _COUNT_EVERY_S:
            self._counted_at, self._count = now, len(self._new) + self._counted()  # so that none is missed meanwhile
        return self._count >= MOST_SINKS

    def _counted(self) -> int:
        return sum(1 for _ in (self._data / SINKS_FOLDER).glob("*.json"))

    def _put(self, registration: Registration) -> None:
        self._known[registration.name] = registration
        self._changed.add(registration.name)

    def _folded(self, known: Registration) -> Registration:
        """Return what is known of a sink, with what it acknowledged since; that is known from now on."""
        acked = self._acked.pop(known.name, None)
        if acked is None:
            return known
        positions = {**known.positions, **acked.positions}
        folded = msgspec.structs.replace(known, positions=positions, seen_utc=acked.seen_utc)
        self._known[known.name] = folded
        return folded

    def _current(self, name: str) -> Registration | None:
        """Return what is known of a sink; None where it is not registered, or was forgotten."""
        known = self._known.get(name)
        if known is None:
            return self._read(name)
        if not self._is_forgotten(name):
            return known
        del self._known[name]
        self._acked.pop(name, None)
        self._told.pop(name, None)
        log.info("sink forgotten", extra={"sink": name})
        return None

    def _is_forgotten(self, name: str) -> bool:
        """Return whether a sink that is known has no file any more."""
        return name not in self._new and _is_gone(registration_path(self._data, name))

    def _read(self, name: str) -> Registration | None:
        path = registration_path(self._data, name)
        try:
            return read_registration(path)
        except FileNotFoundError:
            return None
        except (RawFormatError, OSError) as error:
            log.warning("registration cannot be read", extra={"file": str(path), "cause": str(error)})
            return None


def _is_gone(path: Path) -> bool:
    """Return whether there is no such file, as far as can be told."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _now() -> str:
    return datetime.now(UTC).isoformat()
