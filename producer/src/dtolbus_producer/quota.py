"""Keeps the journal within its size, and the disk from filling, while a device is acquired."""

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from dtolbus.errors import CannotStartError, RawFormatError
from dtolbus.registrations import read_registrations
from dtolbus_producer.deletion import delete, deleting, set_aside_room
from dtolbus_producer.disks import room
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_producer.journalfacts import each_run, run_facts
from dtolbus_producer.pruning import had
from dtolbus_producer.quantities import show_size
from dtolbus_producer.retention import Policy, Removal, RunFacts, Stay, plan

log = logging.getLogger(__name__)

DEFAULT_MIN_FREE_BYTES = 1 << 30
_DEFAULT_SHARE = 20
"""Where `min_free` is not given, this part of the disk is enough: 1/20."""
_CHECK_S = 1.0
_PAUSE_FOR_SCAN = 50
"""After a scan of the journal, so many times its own duration pass before the next: 2 % of one core at most."""


class Shortage(NamedTuple):
    """By how much the journal is too large."""

    over_bytes: int
    """Beyond `max_size`."""
    lacking_bytes: int
    """Below `min_free`."""
    limit: str
    """Which limit it is, for people."""


def free_bytes_asked(asked: int | None, disk_bytes: int) -> int:
    """Return how much of a disk of that size is to stay free."""
    return min(DEFAULT_MIN_FREE_BYTES, disk_bytes // _DEFAULT_SHARE) if asked is None else asked


def way_out(data: Path, most_bytes: int, stays: Sequence[Stay], settings: JournalConfig) -> str:
    """Return the commands that bring a journal down to `most_bytes`; `stays` is what cannot go yet."""
    place = f'"{data}"' if " " in str(data) else str(data)
    prune = f"`dtolbus prune --data {place} --max-size {most_bytes // 1024}K`"
    behind = sorted({holder.name for stay in stays for holder in stay.holders})
    if behind:
        prune = f"let {', '.join(behind)} catch up by `dtolbus up --data {place} --catch-up` and call {prune}"
    else:
        prune = f"call {prune}"
    if settings.summaries_suffice:
        prune = f"{prune[:-1]} --summaries-suffice`"
    elif any(stay.is_summarised for stay in stays):
        prune += " with --summaries-suffice, or add a sink that keeps samples, as only summaries are stored"
    return f"make room, or {prune}"


class Quota:
    """Looks at the journal's size and the disk's room about once a second, on a thread of its own.

    What every sink has goes where `max_size` or `gap-oldest` is set; then `gap-oldest` lets the oldest go that a sink
    lacks, and `stop` sets `full`.
    """

    def __init__(self, data: Path, settings: JournalConfig) -> None:
        self._data = data
        self._settings = settings
        self._may_delete = settings.max_size is not None or settings.when_full == "gap-oldest"
        self._full: str | None = None
        self._scan_at = 0.0
        self._warned: set[str] = set()
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._watch, name="quota", daemon=True)

    def __enter__(self) -> Self:
        """Look once, and go on looking. Raises CannotStartError where there is no room to begin with."""
        with contextlib.suppress(OSError):  # whoever writes the journal tells what is wrong with the folder
            set_aside_room(self._data)
        self._check_safely()
        if self._full is not None:
            raise CannotStartError(self._full)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop = True
        self._wake.set()
        self._thread.join()

    def full(self) -> str | None:
        """Return why recording must stop; None while there is room."""
        return self._full

    def rolled(self) -> None:
        """Look now: a segment is full."""
        self._wake.set()

    def check(self) -> None:
        """Look now, and do what is due. Raises OSError, DtolbusError."""
        shortage = self._shortage()
        if shortage is None:
            return
        if not self._may_delete:
            self._end(shortage)
            return
        try:
            with deleting(self._data, wait_s=0):
                left = self._make_room(shortage)
        except CannotStartError:  # another process is making room
            return
        if left is not None:
            self._end(left)

    def _watch(self) -> None:
        while not self._stop:
            self._wake.wait(_CHECK_S)
            self._wake.clear()
            if not self._stop and self._full is None:
                self._check_safely()

    def _check_safely(self) -> None:
        try:
            self.check()
        except Exception as error:  # what cannot be looked at must not end the watch
            self._warn_once("quota not checked", str(error))

    def _shortage(self) -> Shortage | None:
        """Return by how much the journal is too large; None where it is not, as far as can be told now."""
        disk = room(self._data / "journal")
        asked = free_bytes_asked(self._settings.min_free_bytes, disk.total)
        if disk.free < asked:
            free = f"{show_size(disk.free)} are free on its disk, and {show_size(asked)} are to stay so (min_free)"
            return Shortage(0, asked - disk.free, free)
        most, now = self._settings.max_bytes, time.monotonic()
        if most is None or now < self._scan_at:
            return None
        size = sum(run.bytes for run in self._facts())
        self._scan_at = time.monotonic() + _PAUSE_FOR_SCAN * (time.monotonic() - now)
        if size <= most:
            return None
        return Shortage(size - most, 0, f"it is {show_size(size)} large, and {show_size(most)} are allowed (max_size)")

    def _make_room(self, shortage: Shortage) -> Shortage | None:
        """Delete what may go; return what is still too much."""
        facts, sinks = self._facts(), read_registrations(self._data)
        policy = Policy(
            max_bytes=self._settings.max_bytes,
            free_bytes=shortage.lacking_bytes,
            unacknowledged=self._settings.when_full == "gap-oldest",
            summaries_suffice=self._settings.summaries_suffice,
        )
        found = plan(facts, sinks, policy, time.time_ns())
        gone = delete(self._data, found.removals, lambda removal: _cause(removal, shortage))
        for removal in gone:
            _tell_if_lost(removal, self._settings.summaries_suffice)
        stuck = sum(removal.segment.bytes for removal in found.removals) - sum(one.segment.bytes for one in gone)
        return shortage if found.excess_bytes + stuck > 0 else None

    def _facts(self) -> list[RunFacts]:
        """Return what the journal holds; what is left out is told once."""
        found, left_out = each_run(self._data / "journal", run_facts)
        for run in left_out:
            self._warn_once(f"left out of the journal's size: {run.path}", run.cause)
        return found

    def _way_out(self, shortage: Shortage) -> str:
        """Return what makes room, as far as can be told."""
        try:
            facts, sinks = self._facts(), read_registrations(self._data)
        except (RawFormatError, OSError) as error:
            return f"make room ({error})"
        most = max(0, sum(run.bytes for run in facts) - max(shortage.over_bytes, shortage.lacking_bytes))
        policy = Policy(max_bytes=most, summaries_suffice=self._settings.summaries_suffice)
        return way_out(self._data, most, plan(facts, sinks, policy, time.time_ns()).stays, self._settings)

    def _warn_once(self, what: str, cause: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            log.warning(what, extra={"data": str(self._data), "cause": cause})

    def _end(self, shortage: Shortage) -> None:
        """Stop the recording; not for a size alone where gaps are wanted rather than a stop."""
        if self._settings.when_full == "gap-oldest" and not shortage.lacking_bytes:
            self._warn_once("the journal stays too large", shortage.limit)
            return
        self._full = (
            f"the journal in {self._data} is full: {shortage.limit}; {self._way_out(shortage)}, and start again"
        )
        log.error("recording stops", extra={"data": str(self._data), "cause": self._full})


def _tell_if_lost(removal: Removal, summaries_suffice: bool) -> None:
    if removal.is_unclaimed:
        what = "segment deleted that nobody else has"
    elif removal.lost_to:
        what = "segment deleted that a sink lacks"
    elif removal.is_summarised and not summaries_suffice:
        what = "segment deleted whose samples nobody else has"
    else:
        return
    log.warning(
        what,
        extra={
            "run": removal.run.run_id,
            "from_index": removal.segment.first_index,
            "to_index": removal.segment.end_index,
            "sinks": [holder.name for holder in removal.lost_to],
        },
    )


def _cause(removal: Removal, shortage: Shortage) -> str:
    limit = "the disk was full" if shortage.lacking_bytes else "it was larger than max_size"
    if removal.is_unclaimed:
        return f"{limit}, and no sink was registered for this run"
    if removal.lost_to:
        return f"{limit}, before {', '.join(holder.name for holder in removal.lost_to)} had it"
    return f"{limit}; {had(removal)}"
