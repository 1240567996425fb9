"""One run seen from outside its own thread: whether its board gives anything, and its end where that thread hangs.

A board may fall silent, or its code may never come back. The task's thread cannot tell of what it waits for; the
session's thread looks, several times a second.
"""

import logging
import threading
import time
from collections.abc import Callable

from dtolbus.errors import DtolbusError
from dtolbus.runs import RunClock
from dtolbus_producer.boards import TaskPlan
from dtolbus_producer.intake import Intake

log = logging.getLogger(__name__)

SILENT = "silent"
"""Kind of the event of a board that gives nothing, and of the one that tells that it gives again."""
AGAIN = "the board gives again"
"""How the latter's message begins."""
_SILENT_S = 5.0
_SILENT_BLOCKS = 10
HANG_S = 10.0
"""So long may a board's code take to come back once the run is to end."""


def patience_s(plan: TaskPlan) -> float:
    """Return how long a running board may give nothing before that is told."""
    return max(_SILENT_S, _SILENT_BLOCKS * plan.block_samples / plan.rate_hz / min(plan.speed, 1.0))


class Attendance:
    """Between a task's thread, which calls `began` and `heard`, and its session's, which calls the others."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._intake: Intake | None = None
        self._begun: Intake | None = None
        """The same, also once the run is abandoned: what it counted stays."""
        self._clock: Callable[[], RunClock] = lambda: RunClock(0)
        self._over: Callable[[], int] = lambda: 0
        self._patience_ns: int | None = None
        self._heard_ns = 0
        self._is_expected = False
        self._is_told = False

    @property
    def intake(self) -> Intake | None:
        """That of the run, once it began; also after it was abandoned. May be asked from any thread."""
        return self._begun

    @property
    def is_silent(self) -> bool:
        """Whether the board gives nothing although it runs. May be asked from any thread."""
        return self._is_told

    def began(self, intake: Intake, plan: TaskPlan, over: Callable[[], int], clock: Callable[[], RunClock]) -> None:
        """Note the run that is to be attended; `over` tells how many samples are, `clock` how the run's went.

        One that waits for its trigger is not expected to give anything; one that can be kept waiting never is.
        """
        with self._lock:
            self._intake = self._begun = intake
            self._over, self._clock = over, clock
            self._patience_ns = None if plan.can_wait else round(patience_s(plan) * 1e9)
            self._heard_ns, self._is_expected, self._is_told = time.perf_counter_ns(), not plan.is_triggered, False

    def heard(self) -> None:
        """Note that the board gave something, before that is journaled. Raises what went wrong with the journal."""
        with self._lock:
            silent_s = (time.perf_counter_ns() - self._heard_ns) / 1e9
            was_told, self._is_told = self._is_told, False
            self._heard_ns, self._is_expected = time.perf_counter_ns(), True
            intake = self._intake
        if was_told and intake is not None:
            log.warning("board gives again", extra={"stream": self._stream, "after_s": round(silent_s, 1)})
            intake.event(SILENT, f"{AGAIN}, after {silent_s:.1f} s of nothing", self._over())

    def look(self) -> None:
        """Tell of a board that has given nothing for too long, once. Never waits."""
        with self._lock:
            silent_ns = time.perf_counter_ns() - self._heard_ns
            if self._intake is None or self._patience_ns is None or not self._is_expected or self._is_told:
                return
            if silent_ns < self._patience_ns:
                return
            message = f"the board has given nothing for {silent_ns / 1e9:.1f} s, although it runs"
            self._is_told = self._intake.note(SILENT, message, self._over())
            is_told = self._is_told
        if is_told:
            log.warning("board silent", extra={"stream": self._stream, "for_s": round(silent_ns / 1e9, 1)})

    def abandon(self, why: str) -> None:
        """End the run as interrupted, with what is there, without its thread. Raises what the journal raises."""
        with self._lock:
            intake, self._intake = self._intake, None
        log.error("board hangs", extra={"stream": self._stream, "cause": why})
        if intake is None:
            return
        try:
            intake.event("sdk_error", why, self._over())
        except DtolbusError:
            log.debug("not told", extra={"stream": self._stream})  # finish says why
        intake.finish("interrupted", self._clock())
