"""Between a board's thread and the disk: a bounded queue, and the thread that journals what comes out of it."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from dtolbus.errors import DtolbusError
from dtolbus.records import DaqBlock, DaqEvent, Record, RunEnd, RunInfo
from dtolbus.runs import RunClock
from dtolbus_producer.journal import JournalFullError, RunWriter
from dtolbus_producer.remarking import RemarksFile
from dtolbus_producer.signals import Signals

log = logging.getLogger(__name__)

MakeRecord = Callable[[int], Record]
"""Gives the record, told its index."""

_WAIT_S = 0.1


class Intake:
    """Takes one run's records; its thread makes the journal and writes them. For the board's thread, and one beside it.

    A board that cannot wait `offer`s: what finds the queue full is lost, and an overrun event in its place tells which
    samples. What goes wrong with the journal is raised by the next call. Once `full` tells why there is no room, an
    event says so, and the run ends.
    """

    def __init__(
        self,
        info: RunInfo,
        utc_offset_ns: int,
        open_writer: Callable[[RunInfo], RunWriter],
        size: int,
        full: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._info = info
        self._utc_offset_ns = utc_offset_ns
        self._open_writer = open_writer
        self._why_full = full
        self._queue: queue.Queue[MakeRecord | None] = queue.Queue(maxsize=size)
        self._held: deque[MakeRecord] = deque()
        self._lost = (0, 0)
        self._end: RunEnd = "interrupted"
        self._clock: RunClock | None = None
        self._error: DtolbusError | None = None
        self._is_drained = False
        self._is_finished = False
        self.overruns = self.lost_samples = 0
        """How often the queue was full, and how many samples a channel that cost."""
        self._turn = threading.RLock()
        self._thread = threading.Thread(target=self._write_all, name=f"journal {info.device}/{info.task}", daemon=True)
        self._thread.start()

    @property
    def fill(self) -> float:
        """How full the queue is, from 0 to 1. May be asked from any thread, as what counts may."""
        return self._queue.qsize() / self._queue.maxsize

    def offer(self, make: MakeRecord, first_sample: int, count: int) -> None:
        """Queue a record of samples [first_sample, first_sample + count), or note them as lost; never waits."""
        with self._turn:
            self._raise_error()
            if self._queue.full():
                self._lose(first_sample, count)
                return
            self._hold_loss()
            self._held.append(make)
            self._flush()
            if self._held and self._held[-1] is make:
                self._held.pop()
                self._lose(first_sample, count)

    def put(self, make: MakeRecord) -> None:
        """Queue a record, waiting for room."""
        with self._turn:
            self._hold_loss()
            self._held.append(make)
            while self._held:
                self._raise_error()
                try:
                    self._queue.put(self._held[0], timeout=_WAIT_S)
                except queue.Full:
                    continue
                self._held.popleft()

    def event(self, kind: str, message: str, sample_index: int, lost_samples: int = 0) -> None:
        """Queue an event, here and now; never waits. Where there is no room it comes before the next record."""
        with self._turn:
            self._raise_error()
            self._hold_loss()
            self._held.append(self._event_maker(kind, message, sample_index, lost_samples))
            self._flush()

    def note(self, kind: str, message: str, sample_index: int) -> bool:
        """Queue an event as `event` does, for whoever must not wait for the board's thread; return whether it was.

        It is not where that thread is at it, where the run is over, or where the journal cannot be written.
        """
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._error is not None or self._is_finished:
                return False
            self.event(kind, message, sample_index)
        finally:
            self._turn.release()
        return True

    def finish(self, end: RunEnd, clock: RunClock) -> None:
        """Write everything and close the run, once. Raises what went wrong with the journal."""
        with self._turn:
            if self._is_finished:
                return
            self._is_finished = True
            self._hold_loss()
            self._end, self._clock = end, clock
            while self._held and self._error is None:
                try:
                    self._queue.put(self._held[0], timeout=_WAIT_S)
                except queue.Full:
                    continue
                self._held.popleft()
            self._queue.put(None)
            self._thread.join()
            if self._error is not None:
                raise self._error

    def _lose(self, first_sample: int, count: int) -> None:
        start, lost = self._lost
        self._lost = (start, lost + count) if lost else (first_sample, count)
        self.overruns += 0 if lost else 1
        self.lost_samples += count

    def _hold_loss(self) -> None:
        first_sample, lost = self._lost
        if lost:
            self._lost = (0, 0)
            message = f"the journal stalled: {lost} samples from number {first_sample} on were not stored"
            log.warning("overrun", extra={"run": self._info.run_id, "first_sample": first_sample, "samples": lost})
            self._held.append(self._event_maker("overrun", message, first_sample, lost))

    def _flush(self) -> None:
        while self._held:
            try:
                self._queue.put_nowait(self._held[0])
            except queue.Full:
                return
            self._held.popleft()

    def _event_maker(self, kind: str, message: str, sample_index: int, lost_samples: int) -> MakeRecord:
        t_mono_ns = time.perf_counter_ns()

        def make(index: int) -> DaqEvent:
            return DaqEvent(
                device=self._info.device,
                task=self._info.task,
                run_id=self._info.run_id,
                record_index=index,
                kind=kind,
                message=message,
                sample_index=sample_index,
                lost_samples=lost_samples,
                t_mono_ns=t_mono_ns,
                t_utc_ns=t_mono_ns + self._utc_offset_ns,
            )

        return make

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_finished:
            raise DtolbusError(f"the run {self._info.run_id} is over: its board came back too late")

    def _write_all(self) -> None:
        try:
            self._write_until_end()
        except DtolbusError as error:
            self._error = error
        except Exception as error:
            log.exception("the journal's thread ends")
            self._error = DtolbusError(f"the journal's thread ended: {error!r}; this is a fault of dtolbus")
        while not self._is_drained:  # so that the board's thread never waits for room
            self._is_drained = self._queue.get() is None

    def _write_until_end(self) -> None:
        writer = self._open_writer(self._info)
        watch = _Watch(self._info, writer)
        end_sample = 0
        try:
            while (make := self._queue.get()) is not None:
                why_full = self._why_full()
                if why_full is not None:
                    writer.append(self._event_maker("stopped", why_full, end_sample, 0)(writer.next_index))
                    raise JournalFullError(why_full)
                record = make(writer.next_index)
                if watch.look(record):
                    record = make(writer.next_index)
                writer.append(record)
                end_sample = record.end_sample_index if isinstance(record, DaqBlock) else record.index + 1
            self._is_drained = True
            watch.end()
        except BaseException:
            self._end = "interrupted"
            raise
        finally:
            writer.close(self._end, self._clock)


class _Watch:
    """Journals what there is to say of a run's signals, and keeps it beside the run."""

    def __init__(self, info: RunInfo, writer: RunWriter) -> None:
        self._writer = writer
        self._signals = Signals(info)
        self._file = RemarksFile(writer.path)
        self._has_failed = False

    def look(self, record: Record) -> bool:
        """Append what belongs before the record; return whether that was anything, so that its index is another."""
        told = self._safely(lambda: self._signals.look(record, self._writer.next_index))
        self._file.keep(self._signals.remarks)
        return self._append(told)

    def end(self) -> None:
        """Append what was not told yet."""
        self._append(self._safely(lambda: self._signals.rest(self._writer.next_index)))
        self._file.keep(self._signals.remarks, now=True)

    def _append(self, events: list[DaqEvent]) -> bool:
        for event in events:
            self._writer.append(event)
        return bool(events)

    def _safely(self, found: Callable[[], list[DaqEvent]]) -> list[DaqEvent]:
        """Return what was found; a fault of the looking is logged, once, and costs no record."""
        try:
            return [] if self._has_failed else found()
        except Exception:
            self._has_failed = True
            log.exception("the signals are not looked at any more")
            return []
