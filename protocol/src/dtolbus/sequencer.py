"""Puts a run's records back in order, and says what to fetch. Pure: messages in; what is ready and what to ask out.

The live path may drop, double and come late; the catch-up path answers one Fetch at a time, in order. What the journal
no longer has comes as a gap. Every record of a run becomes ready once, in the order of its index.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dtolbus.records import DaqBlock, Gap, Record, RunInfo, RunStatus
from dtolbus.wire import Done, Fetch, Heartbeat, Message, Refused, RunGap, RunPosition, RunRecord, Welcome

log = logging.getLogger(__name__)


class Arrived(NamedTuple):
    """The next record of a run."""

    run: RunInfo
    record: Record
    fetched: bool
    """Whether it came through catch-up."""


class Missing(NamedTuple):
    """The next records of a run cannot be had any more."""

    run: RunInfo
    gap: Gap


class Ended(NamedTuple):
    """A run is over and everything of it has become ready."""

    run: RunInfo
    final: int


Item = Arrived | Missing | Ended


@dataclass
class Step:
    """What a message brought about."""

    ready: list[Item] = field(default_factory=list)
    fetch: Fetch | None = None
    """To be sent now; there is never more than one on the way."""


@dataclass
class _Run:
    info: RunInfo
    next: int
    head: int = 0
    over: bool = False
    told: bool = False
    """Whether Ended has been given out."""
    waits: bool = False
    """Whether a fetch brought nothing: the next word about the run must come first."""
    held: dict[int, tuple[Record, bool]] = field(default_factory=dict)

    def missing(self) -> tuple[int, int] | None:
        """Return the range to fetch: from the position to the first held record, or to the head."""
        end = min(self.held) if self.held else self.head
        return (self.next, end) if self.next < end else None


def size_of(record: Record) -> int:
    """Return about how many bytes a record takes in memory."""
    if isinstance(record, DaqBlock) and record.raw_codes is not None:
        return record.raw_codes.nbytes + 2000
    return 2000


def _everything(_: RunInfo) -> bool:
    return True


class Sequencer:
    """Orders the records of every run it hears of.

    `positions` says, by run_id, where to go on; other runs begin at 0. `wanted` chooses runs. Records beyond a hole are
    held up to `hold_bytes`; what is beyond that is dropped and fetched later. With `can_fetch` false a run begins with
    the first record heard, and a hole is a gap at once.
    """

    def __init__(
        self,
        positions: Mapping[str, int] | None = None,
        *,
        wanted: Callable[[RunInfo], bool] = _everything,
        can_fetch: bool = True,
        hold_bytes: int = 64 << 20,
    ) -> None:
        self._positions = dict(positions or {})
        self._wanted = wanted
        self._can_fetch = can_fetch
        self._hold_bytes = hold_bytes
        self._held_bytes = 0
        self._runs: dict[str, _Run | None] = {}
        self._fetch: Fetch | None = None
        self._number = 0
        self._last_fetched = ""

    @property
    def fetching(self) -> Fetch | None:
        """The Fetch that is on its way."""
        return self._fetch

    def complete(self) -> bool:
        """Return whether every known run is over and all of it has become ready."""
        return all(run.told for run in self._runs.values() if run is not None)

    def heads(self) -> dict[str, tuple[RunInfo, int, int]]:
        """Return (run header, position, head) of each run, by run_id."""
        return {key: (run.info, run.next, run.head) for key, run in self._runs.items() if run is not None}

    def positions(self) -> tuple[RunPosition, ...]:
        """Return how far each run is."""
        return tuple(RunPosition(r.info.device, r.info.task, key, r.next) for key, r in self._runs.items() if r)

    def heard(self, message: Message, *, fetched: bool = False) -> Step:
        """Take a message; `fetched` if it came through catch-up. Return what is ready now and what to ask."""
        step = Step()
        match message:
            case RunRecord(run, record):
                self._record(step, run, record, fetched)
            case Heartbeat(status):
                self._status(step, status)
            case Welcome(runs=runs):
                for status in runs:
                    self._status(step, status)
            case RunGap():
                self._gap(step, message)
            case Done() | Refused():
                self._answered(message)
        self._ask(step)
        return step

    def fetch_lost(self) -> Step:
        """Forget the Fetch on its way, its connection being gone; return what to ask instead."""
        self._fetch = None
        step = Step()
        self._ask(step)
        return step

    def _run(self, info: RunInfo, begin: int) -> _Run | None:
        if info.run_id not in self._runs:
            start = self._positions.get(info.run_id, begin)
            self._runs[info.run_id] = _Run(info, start) if self._wanted(info) else None
        return self._runs[info.run_id]

    def _record(self, step: Step, info: RunInfo, record: Record, fetched: bool) -> None:
        run = self._run(info, begin=0 if self._can_fetch else record.index)
        if run is None or record.index < run.next:
            return
        run.head = max(run.head, record.index + 1)
        run.waits = run.waits and not fetched
        if record.index > run.next and not self._can_fetch:
            self._lose(step, run, record.index)
        if record.index == run.next:
            step.ready.append(Arrived(run.info, record, fetched))
            run.next += 1
            self._release(step, run)
        elif record.index not in run.held and self._held_bytes + size_of(record) <= self._hold_bytes:
            run.held[record.index] = (record, fetched)
            self._held_bytes += size_of(record)

    def _status(self, step: Step, status: RunStatus) -> None:
        run = self._run(status.info, begin=0 if self._can_fetch else status.head)
        if run is None:
            return
        run.waits = False
        if status.final is not None and not run.over:
            run.over, run.head = True, status.final
        run.head = max(run.head, status.head)
        if not self._can_fetch and run.head > run.next:
            self._lose(step, run, run.head)
        self._release(step, run)

    def _gap(self, step: Step, gap: RunGap) -> None:
        run = self._runs.get(gap.run_id)
        if run is None or not gap.from_index <= run.next < gap.to_index:
            return
        step.ready.append(Missing(run.info, Gap(run.next, gap.to_index, gap.cause)))
        run.next = gap.to_index
        self._release(step, run)

    def _lose(self, step: Step, run: _Run, end: int) -> None:
        step.ready.append(Missing(run.info, Gap(run.next, end, "not received")))
        run.next = end

    def _release(self, step: Step, run: _Run) -> None:
        """Give out the held records that are next, forget those that are behind, and the end of the run."""
        while run.next in run.held:
            record, fetched = run.held.pop(run.next)
            self._held_bytes -= size_of(record)
            step.ready.append(Arrived(run.info, record, fetched))
            run.next += 1
        for index in [index for index in run.held if index < run.next]:
            self._held_bytes -= size_of(run.held.pop(index)[0])
        if run.over and run.next >= run.head and not run.told:
            run.told = True
            step.ready.append(Ended(run.info, run.head))

    def _answered(self, answer: Done | Refused) -> None:
        if self._fetch is None or answer.number != self._fetch.number:
            return
        run = self._runs.get(self._fetch.run_id)
        if run is not None and run.next == self._fetch.from_index:
            run.waits = True
        if isinstance(answer, Refused):
            log.warning("fetch refused", extra={"run": self._fetch.run_id, "why": answer.why})
        self._fetch = None

    def _ask(self, step: Step) -> None:
        """Fetch the next range that is missing, the runs taking turns."""
        if self._fetch is not None or not self._can_fetch:
            return
        missing = {key: run.missing() for key, run in self._runs.items() if run is not None and not run.waits}
        due = [key for key, gap in missing.items() if gap is not None]
        if not due:
            return
        later = [key for key in due if key > self._last_fetched]
        self._last_fetched = key = min(later or due)
        run, found = self._runs[key], missing[key]
        assert run is not None
        assert found is not None
        self._number += 1
        info = run.info
        self._fetch = step.fetch = Fetch(info.device, info.task, key, found[0], found[1], self._number)
