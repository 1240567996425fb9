"""One run of one polled task: a reading in each slot of an even cadence, to the intake."""

import logging
import math
import threading
import time
from typing import Any

import numpy as np

from dtolbus.records import DaqReading, ErrorInfo, Record, utc_from_ns
from dtolbus.runs import RunClock
from dtolbus_producer.boards import End, Fault, Readout, TaskPlan
from dtolbus_producer.boards.guarding import GuardedReadings, words_of
from dtolbus_producer.taskrun import Outcome, RunRequest, end_of, halted, intake_of, run_info
from dtolbus_producer.wallclock import WallClock

log = logging.getLogger(__name__)


def run_readings(source: GuardedReadings, request: RunRequest, halt: threading.Event) -> Outcome:
    """Poll a task until it is done, `halt` is set, or the board is lost. Raises what the journal raises."""
    run = _PolledRun(source.plan, request)
    outcome = Outcome("lost", 0, "it was not run")
    try:
        outcome = run.follow(source, halt)
    finally:
        run.intake.finish(end_of(outcome), run.clock())
    return outcome


class _PolledRun:
    """Polls in step with the start: slot n is due at start + n / rate, whatever the polls before it took."""

    def __init__(self, plan: TaskPlan, request: RunRequest) -> None:
        self._wall = WallClock()
        self._offset_ns = self._wall.base_ns
        self._start_ns = time.perf_counter_ns()
        self._info = run_info(plan, request, self._start_ns, self._offset_ns)
        self._request = request
        self._is_failing = False
        self._slot = 0
        self.intake = intake_of(self._info, self._offset_ns, plan, request)
        request.attendance.began(self.intake, plan, lambda: self._slot, self.clock)

    def follow(self, source: GuardedReadings, halt: threading.Event) -> Outcome:
        """Poll the source to its end."""
        asked = math.inf if self._info.samples_asked is None else self._info.samples_asked
        slot = 0
        while slot < asked:
            wait_ns = self._due_ns(slot) - time.perf_counter_ns()
            if halt.wait(max(wait_ns, 0) / 1e9):
                return halted(self.intake, slot, self._request)
            self._look(slot)
            requested_ns = time.perf_counter_ns()
            self._slot = slot
            found = self._poll(source, slot)
            self._request.attendance.heard()
            if found is End.END:
                break
            if isinstance(found, Fault):
                self.intake.event(found.kind, found.message, slot, found.lost_samples if found.fatal else 1)
                if found.fatal:
                    return Outcome("lost", slot, found.message)
            elif isinstance(found, ErrorInfo) and self._request.on_error != "return":
                self.intake.event("poll_failed", f"{found.type}: {found.message}", slot, 1)
                if self._request.on_error == "raise":
                    return Outcome("failed", slot, f"poll {slot} failed: {found.type}: {found.message}")
            else:
                self._take(found, slot, requested_ns, time.perf_counter_ns())
            slot = self._next_slot(slot, asked)
        return Outcome("done", slot)

    def clock(self) -> RunClock:
        """Return how the run's clock went."""
        return RunClock(self._wall.moved_ns())

    def _look(self, slot: int) -> None:
        step = self._wall.look()
        if step is not None:
            self.intake.event("clock_step", step.message, slot)

    def _due_ns(self, slot: int) -> int:
        return self._start_ns + round(slot * 1e9 / self._info.rate_hz)

    def _poll(self, source: GuardedReadings, slot: int) -> Readout | Fault | End | ErrorInfo:
        try:
            found = source.poll(slot)
        except Exception as error:  # whatever a board raises is this reading's error, and the next poll is due
            if not self._is_failing:
                log.warning("poll failed", extra={"run": self._info.run_id, "slot": slot, "error": words_of(error)})
            self._is_failing = True
            return _info_of(error)
        self._is_failing = False
        return found

    def _take(self, found: Readout | ErrorInfo, slot: int, requested_ns: int, received_ns: int) -> None:
        info, offset_ns = self._info, self._offset_ns
        midpoint_ns = (requested_ns + received_ns) // 2
        readout = Readout({}) if isinstance(found, ErrorInfo) else _storable(found)

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
        """Return the next slot that is not over yet; those skipped are an event."""
        current = math.floor((time.perf_counter_ns() - self._start_ns) * self._info.rate_hz / 1e9)
        following = int(min(max(slot + 1, current), asked))
        missed = following - slot - 1
        if missed:
            message = f"{missed} polls from number {slot + 1} on were missed: the board took too long"
            self.intake.event("overrun", message, slot + 1, missed)
        return following


def _info_of(error: Exception) -> ErrorInfo:
    """Return the error as a value; one whose text cannot be had by its type."""
    try:
        return ErrorInfo.of(error)
    except Exception:  # its own code
        return ErrorInfo(type(error).__qualname__, words_of(error))


def _storable(readout: Readout) -> Readout:
    """Return what a poll gave in Python's own numbers, without the values that the board says are none.

    Those are NaN, and None for a text.
    """
    values = {
        name: (None if isinstance(value, str) else math.nan) if readout.sensor_status.get(name) else _plain(value)
        for name, value in readout.values.items()
    }
    return Readout(values, {name: int(status) for name, status in readout.sensor_status.items()})


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
