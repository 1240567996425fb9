"""Puts a run's records back in order, and says what to fetch. Pure: messages in; what is ready and what to ask out.

The live path may drop, double and come late; the catch-up path answers one Fetch at a time, in order. What the journal
no longer has comes as a gap. Every record of a run becomes ready once, in the order of its index.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dtolbus.records import DaqBlock, DaqReading, Gap, Record, RunInfo, RunStatus
from dtolbus.turns import Turns
from dtolbus.wire import Done, Fetch, Heartbeat, Message, Refused, RunGap, RunRecord, Welcome

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


class Gone(NamedTuple):
    """A run that the journal does not hold any more, before all of it was had."""

    run: RunInfo
    position: int
    head: int
    """As far as it was told."""


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
    """Whether the journal said how it ended: its head is then the truth, whatever was heard before."""
    told: bool = False
    """Whether Ended has been given out."""
    waits: bool = False
    """Whether a fetch brought nothing: the journal must claim to have more before the next."""
    lost_at: int = -1
    """Where a fetch was served of which nothing came; asked again at once, but only the first time."""
    refusal: str = ""
    """Why the last fetch was refused; logged once."""
    held: dict[int, tuple[Record, bool]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.over and self.next >= self.head

    def missing(self) -> tuple[int, int] | None:
        """Return the range to fetch: from the position to the first held record, or to the head."""
        end = min(self.held) if self.held else self.head
        return (self.next, end) if self.next < end else None


def size_of(record: Record) -> int:
    """Return about how many bytes a record takes in memory."""
    if not isinstance(record, DaqBlock):
        return 2000 + (150 * len(record.values) if isinstance(record, DaqReading) else 0)
    if record.raw_codes is None:
        codes = 8 * len(record.channels) * record.samples_per_channel
    else:
        codes = record.raw_codes.nbytes
    statuses = vars(record).get("sensor_status")  # as an attribute it would be made where there is none
    return 2000 + codes + (sum([status.nbytes for status in statuses.values()]) if statuses else 0)


def _everything(_: RunInfo) -> bool:
    return True


class Sequencer:
    """Orders the records of every run it hears of.

    `positions` says, by run_id, where to go on; other runs begin at 0. `wanted` chooses runs. Records beyond a hole are
    held up to `hold_bytes`; what is beyond that is dropped and fetched later. With `can_fetch` false a run begins with
    the first record heard, and a hole is a gap at once. Of a run that is complete only its end is kept.
    """

    def __init__(
        self,
        positions: Mapping[str, int] | None = None,
        *,
        wanted: Callable[[RunInfo], bool] = _everything,
        can_fetch: bool = True,
        hold_bytes: int = 32 << 20,
    ) -> None:
        self._positions = dict(positions or {})
        self._wanted = wanted
        self._can_fetch = can_fetch
        self._hold_bytes = hold_bytes
        self._held_bytes = 0
        self._runs: dict[str, _Run] = {}
        """The wanted runs that are not complete."""
        self._turns = Turns()
        """The same, as they take turns to be fetched."""
        self._unwanted: set[str] = set()
        self._ends: dict[str, int] = {}
        """Where each complete run ended."""
        self._fetch: Fetch | None = None
        self._number = 0
        self._last_fetched = ""
        self.duplicates = 0
        """Records that came again: they were given out, or are held."""

    @property
    def fetching(self) -> Fetch | None:
        """The Fetch that is on its way."""
        return self._fetch

    @property
    def held_bytes(self) -> int:
        """About how many bytes of records wait behind holes."""
        return self._held_bytes

    @property
    def is_stuck(self) -> bool:
        """Whether a run misses what the gateway did not give: it must tell again how far the run is."""
        if self._fetch is not None:
            return False
        return any(run.waits and run.missing() is not None for run in self._runs.values())

    def complete(self) -> bool:
        """Return whether every known run is over and all of it has become ready."""
        return all(run.is_complete for run in self._runs.values())

    def lacks_ended(self) -> bool:
        """Return whether a run that is over is not complete."""
        return any(run.over for run in self._runs.values())

    def unheard(self) -> int:
        """Return of how many runs there is a position, but no word yet that the journal holds them."""
        return len(self._positions.keys() - self._runs.keys() - self._ends.keys() - self._unwanted)

    def unfinished(self) -> list[str]:
        """Return the runs, by run_id, that are not complete. May be asked from any thread."""
        return list(self._runs)

    def records(self) -> bool:
        """Return whether a wanted run goes on, as far as heard. May be asked from any thread."""
        return any(not run.over for run in list(self._runs.values()))

    def heads(self, run_ids: Iterable[str]) -> dict[str, tuple[int, bool]]:
        """Return how many records each of these runs has, as far as heard, and whether that is all; of those known.

        May be asked from any thread.
        """
        runs, ends = self._runs.copy(), self._ends
        found = {}
        for run_id in run_ids:
            run = runs.get(run_id)
            head = run.head if run is not None else ends.get(run_id)
            if head is not None:
                found[run_id] = (head, run is None)
        return found

    def knows(self, run_id: str) -> bool:
        """Return whether the run was heard of, and is not gone."""
        return run_id in self._runs or run_id in self._ends or run_id in self._unwanted

    def lose(self, run_id: str) -> Gone | None:
        """Wait for a run no longer; if it is heard of again, it goes on where it was."""
        self._unwanted.discard(run_id)
        run = self._forget(run_id)
        if run is None:
            return None
        for index in list(run.held):
            self._drop(run, index)
        self._positions[run_id] = run.next
        return Gone(run.info, run.next, run.head)

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

    def in_order(self, message: RunRecord) -> Arrived | None:
        """Return the live record as ready, where it is the next of its run and nothing follows from it but that.

        None where anything else is to be done: then `heard` must be told, which gives the same and more.
        """
        record = message.record
        run = self._runs.get(message.run.run_id)
        if run is None or run.next != record.index or run.over or run.held:
            return None
        run.next += 1
        if run.head < run.next:
            run.head = run.next
        return Arrived(run.info, record, False)

    def fetch_lost(self) -> Step:
        """Forget the Fetch on its way, its connection being gone; return what to ask instead."""
        self._fetch = None
        step = Step()
        self._ask(step)
        return step

    def _run(self, info: RunInfo, begin: int) -> _Run | None:
        run_id = info.run_id
        known = self._runs.get(run_id)
        if known is not None or run_id in self._unwanted:
            return known
        ended = self._ends.pop(run_id, None)
        if not self._wanted(info):
            self._unwanted.add(run_id)
            return None
        start = self._positions.get(run_id, begin) if ended is None else ended
        run = self._runs[run_id] = _Run(info, start, told=ended is not None)
        self._turns.add(run_id)
        return run

    def _forget(self, run_id: str) -> _Run | None:
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._turns.remove(run_id)
        return run

    def _record(self, step: Step, info: RunInfo, record: Record, fetched: bool) -> None:
        if info.run_id in self._ends:
            self.duplicates += 1
            return
        run = self._run(info, begin=0 if self._can_fetch else record.index)
        if run is not None and record.index < run.next:
            self.duplicates += 1
            return
        if run is None or (run.over and record.index >= run.head):
            return
        run.head = max(run.head, record.index + 1)
        run.waits = run.waits and not fetched
        if record.index > run.next and not self._can_fetch:
            self._lose(step, run, record.index)
        if record.index == run.next:
            self._drop(run, record.index)
            step.ready.append(Arrived(run.info, record, fetched))
            run.next += 1
            self._release(step, run)
        elif record.index in run.held:
            self.duplicates += 1
        elif self._held_bytes + size_of(record) <= self._hold_bytes:
            run.held[record.index] = (record, fetched)
            self._held_bytes += size_of(record)

    def _status(self, step: Step, status: RunStatus) -> None:
        if status.head <= self._ends.get(status.info.run_id, -1):
            return
        run = self._run(status.info, begin=0 if self._can_fetch else status.head)
        if run is None:
            return
        if status.head > run.next:
            run.waits = False
        if status.final is not None:
            self._over(run, status.final)
        elif not run.over:
            run.head = max(run.head, status.head)
        if not self._can_fetch and run.head > run.next:
            self._lose(step, run, run.head)
        self._release(step, run)

    def _over(self, run: _Run, final: int) -> None:
        """Take what the journal says of the run's end, also where it once had more: it was rolled back, then."""
        had = max(run.next, run.head)
        if final < had:
            facts = {"run": run.info.run_id, "ends_at": final, "had": had}
            log.warning("the journal of this run was rolled back; what is stored beyond its end stays", extra=facts)
        run.over, run.head = True, final
        for index in [index for index in run.held if index >= final]:
            self._drop(run, index)

    def _gap(self, step: Step, gap: RunGap) -> None:
        if gap.number and (self._fetch is None or gap.number != self._fetch.number):
            return
        run = self._runs.get(gap.run_id)
        if run is None or not gap.from_index <= run.next < gap.to_index:
            return
        first_sample = gap.first_sample if gap.from_index == run.next else None
        lost = Gap(run.next, gap.to_index, gap.cause, first_sample, gap.end_sample)
        self._skip(step, run, lost)

    def _lose(self, step: Step, run: _Run, end: int) -> None:
        self._skip(step, run, Gap(run.next, end, "not received"))

    def _skip(self, step: Step, run: _Run, gap: Gap) -> None:
        """Give out the gap, and go on behind it."""
        step.ready.append(Missing(run.info, gap))
        run.next = gap.to_index
        for index in [index for index in run.held if index < run.next]:
            self._drop(run, index)
        self._release(step, run)

    def _drop(self, run: _Run, index: int) -> None:
        """Forget a held record, where it is held."""
        found = run.held.pop(index, None)
        if found is not None:
            self._held_bytes -= size_of(found[0])

    def _release(self, step: Step, run: _Run) -> None:
        """Give out the held records that are next, and the end of the run."""
        while run.next in run.held:
            record, fetched = run.held[run.next]
            self._drop(run, run.next)
            step.ready.append(Arrived(run.info, record, fetched))
            run.next += 1
        if run.is_complete and self._forget(run.info.run_id) is not None:
            self._ends[run.info.run_id] = run.next
            if not run.told:
                step.ready.append(Ended(run.info, run.head))

    def _answered(self, answer: Done | Refused) -> None:
        if self._fetch is None or answer.number != self._fetch.number:
            return
        run = self._runs.get(self._fetch.run_id)
        if run is not None:
            is_lost = isinstance(answer, Done) and run.next == self._fetch.from_index < answer.next
            run.waits = run.next == self._fetch.from_index and not (is_lost and run.lost_at != run.next)
            run.lost_at = run.next if is_lost else -1
            why = answer.why if isinstance(answer, Refused) else ""
            if why and why != run.refusal:
                log.warning("fetch refused", extra={"run": self._fetch.run_id, "why": why})
            run.refusal = why
        self._fetch = None

    def _ask(self, step: Step) -> None:
        """Fetch the next range that is missing, the runs taking turns."""
        if self._fetch is not None or not self._can_fetch:
            return
        for key in self._turns.behind(self._last_fetched):
            run = self._runs[key]
            missing = None if run.waits else run.missing()
            if missing is not None:
                self._last_fetched = key
                self._number += 1
                self._fetch = step.fetch = Fetch(run.info.device, run.info.task, key, *missing, self._number)
                return
