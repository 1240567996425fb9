"""The wall clock beside the monotonic one: a run keeps the offset of its start; when the clock is set, that is told."""

import logging
import time
from typing import NamedTuple

log = logging.getLogger(__name__)

_LOOK_EVERY_NS = 1_000_000_000
_STEP_NS = 5_000_000
_TICKS = 2
_SLEW_PPM = 500
"""How fast NTP slews a clock at most; what moves faster was set (Mills, RFC 5905, section 12)."""


class Step(NamedTuple):
    """The wall clock was set: UTC less the monotonic clock before and after, ns."""

    before_ns: int
    after_ns: int

    @property
    def message(self) -> str:
        """What the run's event says."""
        return (
            f"the wall clock was set by {(self.after_ns - self.before_ns) / 1e9:+.6f} s: UTC less the monotonic clock "
            f"was {self.before_ns} ns, is {self.after_ns} ns; the times of this run go on as if it had not been"
        )


def utc_offset_ns() -> int:
    """Return UTC less the monotonic clock, ns, from the closest of a few pairs of readings."""
    pairs = []
    for _ in range(5):
        before_ns, utc_ns, after_ns = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
        pairs.append((after_ns - before_ns, utc_ns - (before_ns + after_ns) // 2))
    return min(pairs)[1]


def is_step(moved_ns: int, elapsed_ns: int, tick_ns: int) -> bool:
    """Tell a clock that was set from one that is slewed, or only read to its tick."""
    return abs(moved_ns) > max(_STEP_NS, _TICKS * tick_ns) + elapsed_ns * _SLEW_PPM // 1_000_000


class WallClock:
    """Looks at the wall clock once a second. Used by one thread."""

    def __init__(self) -> None:
        self._tick_ns = round(time.get_clock_info("time").resolution * 1e9)
        self._looked_ns = time.perf_counter_ns()
        self.base_ns = utc_offset_ns()
        """UTC less the monotonic clock at the start, ns: the run's, to its end."""
        self.offset_ns = self.base_ns
        """The same when it was looked at last."""

    def look(self) -> Step | None:
        """Look, where it is time to; return the step where the clock was set since."""
        now_ns = time.perf_counter_ns()
        elapsed_ns = now_ns - self._looked_ns
        if elapsed_ns < _LOOK_EVERY_NS:
            return None
        before_ns, self.offset_ns, self._looked_ns = self.offset_ns, utc_offset_ns(), now_ns
        moved_ns = self.offset_ns - before_ns
        if not is_step(moved_ns, elapsed_ns, self._tick_ns):
            return None
        log.warning("wall clock set", extra={"by_s": moved_ns / 1e9, "offset_ns": self.offset_ns})
        return Step(before_ns, self.offset_ns)

    def moved_ns(self) -> int:
        """Return how far the wall clock is now off the run's own UTC, ns."""
        return utc_offset_ns() - self.base_ns
