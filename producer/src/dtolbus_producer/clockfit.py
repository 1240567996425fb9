"""When a sample was taken: the line through what the callbacks tell, published without a step. Pure."""

from collections import deque
from typing import NamedTuple

from dtolbus.records import Clock
from dtolbus_producer.envelope import Callback, Line, expected_line

WINDOW_S = 300.0
"""How far back callbacks count, s: long enough for a good slope, short against a board's warming up."""
LEAST_KEPT = 30
"""So many callbacks count however old they are, where blocks are long."""
BUCKET_S = 1.0
"""Of the callbacks in so much time only the earliest callback is kept, s."""
SLEW_S = 2.0
"""Time over which the published line approaches a better fit, s."""
MAX_SLEW_PPM = 500.0
"""How much the published rate may differ from the fitted one."""
WARMING_PPM_S = 1 / 60
"""How fast a board's rate is taken to change at most, ppm a second."""
SIGMAS = 4.0
"""So many standard deviations of the line count as its uncertainty."""


class Stamp(NamedTuple):
    """When a block was taken."""

    t_mono_ns: int
    """Monotonic instant of the first sample, ns."""
    clock: Clock
    uncertainty_ns: int
    """How far off the block's instants may be on the monotonic clock, ns."""


class Rate(NamedTuple):
    """A board's mean rate over a run, against the monotonic clock."""

    rate_hz: float
    drift_ppm: float
    """How far it is off the nominal one; positive: the board is fast."""
    uncertainty_ppm: float


class ClockFit:
    """The clock of one run: callbacks in, stamps out; each block begins where the one before it ended.

    `started_mono_ns` is the bracket of the start (before the call, after it): sample 0 lies within it. Where
    `keeps_time` is false callbacks are ignored and the nominal rate holds.
    """

    def __init__(
        self, rate_hz: float, started_mono_ns: tuple[int, int], utc_offset_ns: int, *, keeps_time: bool = True
    ) -> None:
        self._nominal_hz = rate_hz
        self._nominal_ns = 1e9 / rate_hz
        self._origin_ns, end_ns = started_mono_ns
        self._bracket_ns = end_ns - self._origin_ns
        self._utc_offset_ns = utc_offset_ns
        self._keeps_time = keeps_time
        self._bucket_samples = max(1, round(BUCKET_S * rate_hz))
        self._window_samples = round(WINDOW_S * rate_hz)
        self._slew_samples = SLEW_S * rate_hz
        self._best: deque[Callback] = deque([Callback(0, self._bracket_ns)])
        self._line = Line(0, self._bracket_ns / 2, self._nominal_ns, self._bracket_ns**2 / 12)
        self._start = (self._bracket_ns / 2, self._bracket_ns / 2)
        """Instant of sample 0 as known best, and its uncertainty, ns."""
        self._published: tuple[int, float] | None = None
        self._earliest: Callback | None = None

    def callback(self, samples: int, arrived_mono_ns: int) -> None:
        """Take in that `samples` of each channel were over at the monotonic instant `arrived_mono_ns`."""
        if not self._keeps_time or samples <= 0:
            return
        new = Callback(samples, arrived_mono_ns - self._origin_ns)
        last = self._best[-1]
        if last.samples > 0 and samples // self._bucket_samples == last.samples // self._bucket_samples:
            if self._lateness_ns(new) >= self._lateness_ns(last):
                return
            self._best.pop()
        else:
            self._earliest = last if last.samples > 0 else new
        self._best.append(new)
        # one at a time: behind a long loss the rate is known from before it
        if len(self._best) > LEAST_KEPT and samples - self._best[0].samples > self._window_samples:
            self._best.popleft()
        self._fit()

    def take_earliest(self) -> tuple[int, int] | None:
        """Return the earliest callback of each second once: how many samples were over, and its monotonic instant."""
        found, self._earliest = self._earliest, None
        return None if found is None else (found.samples, self._origin_ns + found.since_start_ns)

    def stamp(self, first_sample: int, count: int) -> Stamp:
        """Return when a block was taken. Blocks come in order; samples between them (lost ones) are passed over."""
        if not self._keeps_time:
            t_mono_ns = self._origin_ns + round(self._bracket_ns / 2 + first_sample * 1e9 / self._nominal_hz)
            clock = Clock(t_mono_ns + self._utc_offset_ns, self._nominal_ns)
            return Stamp(t_mono_ns, clock, self._bracket_ns // 2)
        at, published_ns = self._published or (0, self._line.at(0))
        end = first_sample + count
        period_ns = self._slewed_period_ns(at, published_ns, end)
        first_ns = published_ns + (first_sample - at) * period_ns
        end_ns = first_ns + count * period_ns
        self._published = (end, end_ns)
        t_mono_ns = self._origin_ns + round(first_ns)
        off_ns = max(abs(first_ns - self._line.at(first_sample)), abs(end_ns - self._line.at(end)))
        uncertainty_ns = round(off_ns + self._uncertainty_ns(end))
        return Stamp(t_mono_ns, Clock(t_mono_ns + self._utc_offset_ns, period_ns), uncertainty_ns)

    def mean_rate(self) -> Rate | None:
        """Return the mean rate since the start; None before the first callback, and where the board keeps no time."""
        samples = self._line.samples
        start_ns, uncertainty_ns = self._start
        elapsed_ns = self._line.at(samples) - start_ns
        if samples == 0 or elapsed_ns <= 0:
            return None
        rate_hz = 1e9 * samples / elapsed_ns
        share = (uncertainty_ns + self._uncertainty_ns(samples)) / elapsed_ns
        return Rate(rate_hz, (rate_hz / self._nominal_hz - 1) * 1e6, share * 1e6)

    def _lateness_ns(self, callback: Callback) -> float:
        return callback.since_start_ns - self._line.at(callback.samples)

    def _fit(self) -> None:
        has_start = self._best[0].samples == 0
        self._line = expected_line(list(self._best), self._nominal_ns, self._bracket_ns if has_start else None)
        if has_start:
            found = (self._line.at(0), self._uncertainty_ns(0))
            self._start = min(self._start, found, key=lambda start: start[1])

    def _uncertainty_ns(self, samples: int) -> float:
        """Return how far the line may be off where so many samples are over: its spread, and the board's warming."""
        middle = (self._best[0].samples + self._line.samples) / 2
        away_s = (samples - middle) / self._nominal_hz
        return SIGMAS * self._line.sigma_ns(samples) + 500 * WARMING_PPM_S * away_s**2

    def _slewed_period_ns(self, at: int, published_ns: float, end: int) -> float:
        """Return the period that leads the published line back to the fit, not beyond it, and within the limit."""
        error_ns = self._line.at(at) - published_ns
        limit_ns = self._nominal_ns * MAX_SLEW_PPM * 1e-6
        return self._line.period_ns + min(max(error_ns / max(self._slew_samples, end - at), -limit_ns), limit_ns)
