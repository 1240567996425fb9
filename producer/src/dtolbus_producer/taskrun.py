"""One run of one clocked task: from what the board delivers to records with their times, in order, to the intake."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dtolbus.channels import status_of_codes
from dtolbus.errors import BoardError
from dtolbus.records import Anchor, Record, RunEnd, RunInfo, RunKind
from dtolbus.runblocks import block_of_run
from dtolbus.runs import RunClock
from dtolbus.topics import stream_name
from dtolbus_producer.arriving import pieces_of
from dtolbus_producer.attending import Attendance
from dtolbus_producer.boards import Buffer, End, Fault, TaskPlan
from dtolbus_producer.boards.guarding import GuardedBlocks
from dtolbus_producer.clockfit import ClockFit, Stamp
from dtolbus_producer.intake import Intake
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.receiving import Reception
from dtolbus_producer.resuming import Before
from dtolbus_producer.runid import new_run_id
from dtolbus_producer.sensing import merged
from dtolbus_producer.storable import plain, text
from dtolbus_producer.tasks import OnError
from dtolbus_producer.wallclock import WallClock

log = logging.getLogger(__name__)

_DRAIN_S = 10.0
"""How long a stopped board may go on giving what it had, s."""
_CALLBACK_LATE_NS = 100_000_000
"""So late may a triggered run's first callback be."""


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
    why_cut_off: Callable[[], str | None] = lambda: None
    """Tells why a run that is told to stop was not to end there; None: it was."""
    on_error: OnError = "return"
    """What becomes of a poll that fails."""
    before: Before | None = None
    """What it goes on from."""
    attendance: Attendance
    """Who looks after it."""


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    end: Literal["done", "halted", "cut off", "lost", "failed"]
    """Finished by itself; told to stop; not told, but stopped; the board went away; a poll failed where none may."""
    samples: int
    """Samples a channel (polls) that are over, lost ones included."""
    reason: str = ""


def run_blocks(source: GuardedBlocks, request: RunRequest, halt: threading.Event) -> Outcome:
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
        try:
            run.stop(source)
        finally:
            run.intake.finish(end_of(outcome), run.clock())
    return outcome


def end_of(outcome: Outcome) -> RunEnd:
    """Return how the journal is to say that the run ended."""
    return "ended" if outcome.end in ("done", "halted") else "interrupted"


def halted(intake: Intake, samples: int, request: RunRequest) -> Outcome:
    """Return the outcome of a run that was told to stop; where it was cut off, an event says why."""
    why = request.why_cut_off()
    if why is None:
        return Outcome("halted", samples)
    intake.event("stopped", why, samples)
    return Outcome("cut off", samples, why)


def _bracket_of_trigger(armed_ns: int, arrived_ns: int, samples: int, rate_hz: float) -> tuple[int, int]:
    """Return within which instants the first sample of a triggered run lies, told by its first buffer's callback."""
    latest_ns = arrived_ns - round(samples * 1e9 / rate_hz)
    return max(latest_ns - _CALLBACK_LATE_NS, armed_ns), max(latest_ns, armed_ns)


def run_info(plan: TaskPlan, request: RunRequest, started_mono_ns: int, offset_ns: int) -> RunInfo:
    """Return the header of a new run."""
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
        board=text(plan.board),
        meta=plain({**plan.meta, **request.meta}),
        goes_on_from=None if request.before is None else request.before.run_id,
        samples_before=0 if request.before is None else request.before.samples,
    )


def _queue_size(plan: TaskPlan, queue_s: float) -> int:
    """Return how many records may wait for the disk; of a board that can wait, a few."""
    records = math.ceil(queue_s * plan.rate_hz / plan.block_samples)
    return 16 if plan.can_wait else min(max(records, 4), 100_000)


def intake_of(info: RunInfo, offset_ns: int, plan: TaskPlan, request: RunRequest) -> Intake:
    """Return the intake of a new run; it starts its thread."""
    names, stream = ", ".join(info.channel_names), stream_name(info.device, info.task)
    log.info(
        "recording",
        extra={"stream": stream, "board": info.board, "rate_hz": info.rate_hz, "channels": names, "run": info.run_id},
    )
    return Intake(info, offset_ns, request.open_writer, _queue_size(plan, request.queue_s), request.full)


class _ClockedRun:
    """Counts the samples, fits the clock, cuts the last block; knows the source only through what it delivered."""

    def __init__(self, plan: TaskPlan, request: RunRequest, bracket_ns: tuple[int, int]) -> None:
        self._wall = WallClock()
        self._offset_ns = self._wall.base_ns
        self._info = run_info(plan, request, sum(bracket_ns) // 2, self._offset_ns)
        self._plan = plan
        self._request = request
        self._armed_ns = bracket_ns[0]
        self._fit = self._fit_from(bracket_ns)
        self._next = 0
        self._stamp: Stamp | None = None
        self.intake = intake_of(self._info, self._offset_ns, plan, request)
        self._reception = Reception(plan, bracket_ns, request.attendance.heard, self._tell)
        request.attendance.began(self.intake, plan, lambda: self._next, self.clock)

    def follow(self, source: GuardedBlocks, halt: threading.Event) -> Outcome:
        """Read the source to its end; once `halt` is set stop it, and read what it had delivered."""
        asked = self._info.samples_asked
        stopped_ns: int | None = None
        while stopped_ns is None or time.perf_counter_ns() - stopped_ns < _DRAIN_S * 1e9:
            if halt.is_set() and stopped_ns is None:
                self.stop(source)
                stopped_ns = time.perf_counter_ns()
            step = self._wall.look()
            if step is not None:
                self.intake.event("clock_step", step.message, self._next)
            found = self._reception.read(source, self._next)
            if found is End.END:
                return self._ended() if stopped_ns is None else self._halted()
            if isinstance(found, Fault):
                self._take_fault(found)
                if found.fatal:
                    return Outcome("lost", self._next, found.message)
            elif isinstance(found, Buffer):
                self._take(found)
            if asked is not None and self._next >= asked:
                return Outcome("done", self._next)
        log.warning("board does not stop", extra={"run": self._info.run_id, "after_s": _DRAIN_S})
        return self._halted()

    def stop(self, source: GuardedBlocks) -> None:
        """Stop the source; what goes wrong there is an event, and costs nothing."""
        problem = source.stop()
        if problem is not None:
            self._reception.tell_once("stop", problem)

    def clock(self) -> RunClock:
        """Return how the run's clock went, and log it."""
        moved_ns, rate = self._wall.moved_ns(), self._fit.mean_rate()
        if rate is None or self._stamp is None:
            return RunClock(moved_ns)
        found = RunClock(moved_ns, *rate, self._stamp.uncertainty_ns)
        log.info("clock", extra={"run": self._info.run_id, **msgspec.structs.asdict(found)})
        return found

    def _tell(self, message: str) -> None:
        log.warning("board odd", extra={"run": self._info.run_id, "cause": message})
        self.intake.event("sdk_error", message, self._next)

    def _halted(self) -> Outcome:
        return halted(self.intake, self._next, self._request)

    def _fit_from(self, bracket_ns: tuple[int, int]) -> ClockFit:
        return ClockFit(self._plan.rate_hz, bracket_ns, self._offset_ns, keeps_time=self._plan.keeps_time)

    def _within_asked(self, count: int) -> int:
        asked = self._info.samples_asked
        return count if asked is None else min(count, asked - self._next)

    def _take_fault(self, fault: Fault) -> None:
        lost = self._within_asked(fault.lost_samples)
        self.intake.event(fault.kind, fault.message, self._next, lost)
        self._next += lost

    def _ended(self) -> Outcome:
        """Return the outcome of a run whose board has no more to give; what is no recording has more."""
        asked = self._info.samples_asked
        if asked is None or self._plan.can_wait:
            return Outcome("done", self._next)
        why = f"{self._plan.board}: the board ended by itself after {self._next} of {asked} samples"
        self.intake.event("sdk_error", why, self._next)
        return Outcome("lost", self._next, why)

    def _take(self, buffer: Buffer) -> None:
        delivered, plan = buffer.codes.shape[1], self._plan
        if plan.is_triggered and self._next == 0:
            trigger = _bracket_of_trigger(self._armed_ns, buffer.arrived_mono_ns, delivered, plan.rate_hz)
            self._fit = self._fit_from(trigger)
        if self._reception.tells_time:
            self._fit.callback(self._next + delivered, buffer.arrived_mono_ns)
        pieces, at = pieces_of(self._within_asked(delivered), plan), 0
        for count in pieces:
            self._take_piece(buffer, at, count, can_wait=plan.can_wait or len(pieces) > 1)
            at += count

    def _take_piece(self, buffer: Buffer, at: int, count: int, *, can_wait: bool) -> None:
        """Journal `count` samples of the buffer from `at` on."""
        info, first = self._info, self._next
        stamp = self._stamp = self._fit.stamp(first, count)
        earliest, anchor = self._fit.take_earliest(), None
        if earliest is not None:
            samples, mono_ns = earliest
            anchor = Anchor(samples, mono_ns, mono_ns + self._wall.offset_ns, stamp.uncertainty_ns)
        self._next = first + count

        def make(index: int) -> Record:
            codes = buffer.codes[:, at : at + count]
            told = {name: status[at : at + count] for name, status in buffer.sensor_status.items()}
            return block_of_run(
                info,
                index=index,
                first_sample=first,
                codes=codes,
                t_mono_ns=stamp.t_mono_ns,
                clock=stamp.clock,
                anchor=anchor,
                read_started_at=buffer.asked_mono_ns + self._offset_ns,
                read_finished_at=buffer.arrived_mono_ns + self._offset_ns,
                sensor_status=merged(told, status_of_codes(codes, info.channels)),
                told_status=told,
            )

        if can_wait:
            self.intake.put(make)
        else:
            self.intake.offer(make, first, count)
