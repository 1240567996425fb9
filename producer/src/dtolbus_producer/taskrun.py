"""One run of one task: from what the board delivers to records with their times, in order, to the intake."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dtolbus.errors import BoardError
from dtolbus.records import DaqReading, ErrorInfo, Record, RunEnd, RunInfo, RunKind, block_of_run, utc_from_ns
from dtolbus_producer.boards import BlockSource, Buffer, End, Fault, PolledSource, Readout, TaskPlan
from dtolbus_producer.clockfit import ClockFit
from dtolbus_producer.intake import Intake
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.runid import new_run_id

log = logging.getLogger(__name__)

_READ_TIMEOUT_S = 0.1
_DRAIN_S = 10.0
"""How long a stopped board may go on giving what it had, s."""
_MISSED_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run needs to know beside its source."""

    device: str
    task: str
    kind: RunKind
    samples_asked: int | None
    """Samples a channel (polls) after which it is over."""
    meta: Mapping[str, Any]
    queue_s: float
    """How long the disk may stall."""
    open_writer: Callable[[RunInfo], RunWriter]
    full: Callable[[], str | None] = lambda: None
    """Tells why the run must end for want of room."""


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    end: Literal["done", "halted", "lost"]
    """Finished by itself; told to stop; the board went away."""
    samples: int
    """Samples a channel (polls) that are over, lost ones included."""
    reason: str = ""


def run_blocks(source: BlockSource, request: RunRequest, halt: threading.Event) -> Outcome:
    """Run a clocked task until it is done, `halt` is set, or the board is lost. Raises what the journal raises."""
    before_ns = time.perf_counter_ns()
    try:
        source.start()
    except BoardError as error:
        source.stop()
        return Outcome("lost", 0, str(error))
    bracket_ns = (before_ns, time.perf_counter_ns())
    run = _ClockedRun(source.plan, request, bracket_ns)
    outcome = Outcome("lost", 0, "it was not run")
    try:
        outcome = run.follow(source, halt)
    finally:
        source.stop()
        run.intake.finish(_end_of(outcome))
    return outcome


def run_readings(source: PolledSource, request: RunRequest, halt: threading.Event) -> Outcome:
    """Poll a task until it is done, `halt` is set, or the board is lost. Raises what the journal raises."""
    run = _PolledRun(source.plan, request)
    outcome = Outcome("lost", 0, "it was not run")
    try:
        outcome = run.follow(source, halt)
    finally:
        run.intake.finish(_end_of(outcome))
    return outcome


def utc_offset_ns() -> int:
    """Return UTC less the monotonic clock, ns, from the closest of a few pairs of readings."""
    pairs = []
    for _ in range(5):
        before_ns, utc_ns, after_ns = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
        pairs.append((after_ns - before_ns, utc_ns - (before_ns + after_ns) // 2))
    return min(pairs)[1]


def _end_of(outcome: Outcome) -> RunEnd:
    return "interrupted" if outcome.end == "lost" else "ended"


def _bracket_of_trigger(armed_ns: int, arrived_ns: int, samples: int, rate_hz: float) -> tuple[int, int]:
    """Return a bracket of the first sample of a triggered run, told by its first buffer.

    Its middle is where that sample was if the callback was not late.
    """
    first_ns = max(arrived_ns - round(samples * 1e9 / rate_hz), armed_ns)
    return armed_ns, 2 * first_ns - armed_ns


def _run_info(plan: TaskPlan, request: RunRequest, started_mono_ns: int, offset_ns: int) -> RunInfo:
    return RunInfo(
        run_id=new_run_id(),
        device=request.device,
        task=request.task,
        kind=request.kind,
        channels=plan.channels,
        rate_hz=plan.rate_hz,
        started_utc_ns=started_mono_ns + offset_ns,
        started_mono_ns=started_mono_ns,
        dtype=plan.dtype,
        block_samples=plan.block_samples,
        samples_asked=request.samples_asked,
        board=plan.board,
        meta={**plan.meta, **request.meta},
    )


def _queue_size(plan: TaskPlan, queue_s: float) -> int:
    """Return how many records may wait for the disk; of a board that can wait, a few."""
    records = math.ceil(queue_s * plan.rate_hz / plan.block_samples)
    return 16 if plan.can_wait else min(max(records, 4), 100_000)


def _intake(info: RunInfo, offset_ns: int, plan: TaskPlan, request: RunRequest) -> Intake:
    return Intake(info, offset_ns, request.open_writer, _queue_size(plan, request.queue_s), request.full)


class _ClockedRun:
    """Counts the samples, fits the clock, cuts the last block; knows the source only through what it delivered."""

    def __init__(self, plan: TaskPlan, request: RunRequest, bracket_ns: tuple[int, int]) -> None:
        self._offset_ns = utc_offset_ns()
        self._info = _run_info(plan, request, sum(bracket_ns) // 2, self._offset_ns)
        self._plan = plan
        self._armed_ns = bracket_ns[0]
        self._fit = self._fit_from(bracket_ns)
        self._next = 0
        self.intake = _intake(self._info, self._offset_ns, plan, request)

    def follow(self, source: BlockSource, halt: threading.Event) -> Outcome:
        """Read the source to its end; once `halt` is set stop it, and read what it had delivered."""
        asked = self._info.samples_asked
        stopped_ns: int | None = None
        while stopped_ns is None or time.perf_counter_ns() - stopped_ns < _DRAIN_S * 1e9:
            if halt.is_set() and stopped_ns is None:
                source.stop()
                stopped_ns = time.perf_counter_ns()
            found = _read(source)
            if found is End.END:
                return Outcome("done" if stopped_ns is None else "halted", self._next)
            if isinstance(found, Fault):
                self._take_fault(found)
                if found.fatal:
                    return Outcome("lost", self._next, found.message)
            elif isinstance(found, Buffer):
                self._take(found)
            if asked is not None and self._next >= asked:
                return Outcome("done", self._next)
        log.warning("board does not stop", extra={"run": self._info.run_id, "after_s": _DRAIN_S})
        return Outcome("halted", self._next)

    def _fit_from(self, bracket_ns: tuple[int, int]) -> ClockFit:
        return ClockFit(self._plan.rate_hz, bracket_ns, self._offset_ns, keeps_time=self._plan.keeps_time)

    def _within_asked(self, count: int) -> int:
        asked = self._info.samples_asked
        return count if asked is None else min(count, asked - self._next)

    def _take_fault(self, fault: Fault) -> None:
        lost = self._within_asked(fault.lost_samples)
        self.intake.event(fault.kind, fault.message, self._next, lost)
        self._next += lost

    def _take(self, buffer: Buffer) -> None:
        info, first = self._info, self._next
        delivered = buffer.codes.shape[1]
        count = self._within_asked(delivered)
        if self._plan.is_triggered and first == 0:
            trigger = _bracket_of_trigger(self._armed_ns, buffer.arrived_mono_ns, delivered, self._plan.rate_hz)
            self._fit = self._fit_from(trigger)
        self._fit.anchor(first + delivered, buffer.arrived_mono_ns)
        t_mono_ns, clock = self._fit.stamp(first, count)
        self._next = first + count

        def make(index: int) -> Record:
            return block_of_run(
                info,
                index=index,
                first_sample=first,
                codes=buffer.codes[:, :count],
                t_mono_ns=t_mono_ns,
                clock=clock,
                read_started_at=utc_from_ns(buffer.asked_mono_ns + self._offset_ns),
                read_finished_at=utc_from_ns(buffer.arrived_mono_ns + self._offset_ns),
                sensor_status={name: status[:count] for name, status in buffer.sensor_status.items()},
            )

        if self._plan.can_wait:
            self.intake.put(make)
        else:
            self.intake.offer(make, first, count)


def _read(source: BlockSource) -> Buffer | Fault | End | None:
    try:
        return source.read(_READ_TIMEOUT_S)
    except BoardError as error:
        return Fault("sdk_error", str(error), fatal=True)


class _PolledRun:
    """Polls in step with the start: slot n is due at start + n / rate, whatever the polls before it took."""

    def __init__(self, plan: TaskPlan, request: RunRequest) -> None:
        self._offset_ns = utc_offset_ns()
        self._start_ns = time.perf_counter_ns()
        self._info = _run_info(plan, request, self._start_ns, self._offset_ns)
        self._missed = 0
        self._missed_from = 0
        self._missed_told_ns = 0
        self._is_failing = False
        self.intake = _intake(self._info, self._offset_ns, plan, request)

    def follow(self, source: PolledSource, halt: threading.Event) -> Outcome:
        """Poll the source to its end."""
        asked = math.inf if self._info.samples_asked is None else self._info.samples_asked
        slot = 0
        while slot < asked:
            wait_ns = self._due_ns(slot) - time.perf_counter_ns()
            if halt.wait(max(wait_ns, 0) / 1e9):
                self._tell_missed(slot)
                return Outcome("halted", slot)
            requested_ns = time.perf_counter_ns()
            found = self._poll(source, slot)
            if found is End.END:
                break
            if isinstance(found, Fault):
                if found.fatal:
                    self._tell_missed(slot)
                self.intake.event(found.kind, found.message, slot, found.lost_samples)
                if found.fatal:
                    return Outcome("lost", slot, found.message)
            else:
                self._take(found, slot, requested_ns, time.perf_counter_ns())
            slot = self._next_slot(slot, asked)
        self._tell_missed(slot)
        return Outcome("done", slot)

    def _due_ns(self, slot: int) -> int:
        return self._start_ns + round(slot * 1e9 / self._info.rate_hz)

    def _poll(self, source: PolledSource, slot: int) -> Readout | Fault | End | ErrorInfo:
        try:
            found = source.poll(slot)
        except Exception as error:  # whatever a board raises is this reading's error, and the next poll is due
            if not self._is_failing:
                log.warning("poll failed", extra={"run": self._info.run_id, "slot": slot, "error": repr(error)})
            self._is_failing = True
            return ErrorInfo.of(error)
        self._is_failing = False
        return found

    def _take(self, found: Readout | ErrorInfo, slot: int, requested_ns: int, received_ns: int) -> None:
        info, offset_ns = self._info, self._offset_ns
        midpoint_ns = (requested_ns + received_ns) // 2
        readout = Readout({}) if isinstance(found, ErrorInfo) else found

        def make(index: int) -> Record:
            return DaqReading(
                device=info.device,
                task=info.task,
                values=readout.values,
                units=info.units,
                requested_at=utc_from_ns(requested_ns + offset_ns),
                received_at=utc_from_ns(received_ns + offset_ns),
                t_utc=utc_from_ns(midpoint_ns + offset_ns),
                t_mono_ns=requested_ns,
                t_midpoint_mono_ns=midpoint_ns,
                latency_s=(received_ns - requested_ns) / 1e9,
                sensor_status=dict(readout.sensor_status),
                error=found if isinstance(found, ErrorInfo) else None,
                run_id=info.run_id,
                reading_index=index,
            )

        self.intake.offer(make, slot, 1)

    def _next_slot(self, slot: int, asked: float) -> int:
        """Return the next slot that is not over yet; those skipped are counted, and told once a second."""
        now_ns = time.perf_counter_ns()
        current = math.floor((now_ns - self._start_ns) * self._info.rate_hz / 1e9)
        following = int(min(max(slot + 1, current), asked))
        if following > slot + 1:
            self._missed_from = self._missed_from if self._missed else slot + 1
            self._missed += following - slot - 1
        if self._missed and now_ns - self._missed_told_ns >= _MISSED_EVERY_S * 1e9:
            self._tell_missed(following)
        return following

    def _tell_missed(self, slot: int) -> None:
        if self._missed:
            message = f"{self._missed} of the polls {self._missed_from} to {slot} were missed: the board took too long"
            self.intake.event("overrun", message, self._missed_from, self._missed)
            self._missed, self._missed_told_ns = 0, time.perf_counter_ns()
