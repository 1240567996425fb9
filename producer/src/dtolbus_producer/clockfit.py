"""When a sample was taken: a line through what the callbacks tell, published without a step. Pure.

A callback comes when its last sample is over, or later, never earlier; so the true line runs below all anchors. Among
the lines below all anchors the one nearest to them is the edge of their lower convex hull above their mean (Moon,
Skelly, Towsley: "Estimation and removal of clock skew from network delay measurements", INFOCOM 1999). While the start
is in the window and known well, the line begins there, and its slope is the expected one: see `period_from_start`.
"""

import itertools
import math
from collections import deque
from typing import NamedTuple

from dtolbus.records import Clock

WINDOW_S = 300.0
"""How far back anchors count, s: long enough for a good slope, short against a board's warming up."""
BUCKET_S = 1.0
"""Of the anchors in so much time only the earliest callback is kept, s."""
PRIOR_PPM = 200.0
"""How far a board's rate may be off its nominal one."""
TYPICAL_PPM = 50.0
"""How far a crystal usually is off: one standard deviation."""
SLEW_S = 2.0
"""Time over which the published line approaches a better fit, s."""
SHARP_START_NS = 1_000_000
"""A start bracketed as closely as this counts as known, ns."""
MAX_SLEW_PPM = 500.0
"""How much the published rate may differ from the fitted one."""


class Anchor(NamedTuple):
    """So many samples of each channel were over when the callback came."""

    samples: int
    since_start_ns: int
    """Monotonic instant of the callback, ns since the fit's origin."""


def lower_hull(anchors: list[Anchor]) -> list[Anchor]:
    """Return the lower convex hull of anchors that are sorted by samples."""
    hull: list[Anchor] = []
    for anchor in anchors:
        while len(hull) > 1 and not _turns_up(hull[-2], hull[-1], anchor):
            hull.pop()
        hull.append(anchor)
    return hull


def _turns_up(a: Anchor, b: Anchor, c: Anchor) -> bool:
    along = (b.samples - a.samples) * (c.since_start_ns - a.since_start_ns)
    return along > (b.since_start_ns - a.since_start_ns) * (c.samples - a.samples)


def line_below(anchors: list[Anchor], nominal_ns: float) -> tuple[float, float]:
    """Return (instant of sample 0, period), in ns, of the line below all anchors that is nearest to them.

    The period is held within PRIOR_PPM of `nominal_ns`; `anchors` are sorted by samples, at least one.
    """
    hull = lower_hull(anchors)
    mean = sum(anchor.samples for anchor in anchors) / len(anchors)
    period_ns = nominal_ns
    for left, right in itertools.pairwise(hull):
        if right.samples >= mean and right.samples > left.samples:
            period_ns = (right.since_start_ns - left.since_start_ns) / (right.samples - left.samples)
            break
    period_ns = _plausible(period_ns, nominal_ns)
    return min(anchor.since_start_ns - period_ns * anchor.samples for anchor in hull), period_ns


def period_from_start(anchors: list[Anchor], nominal_ns: float) -> float:
    """Return the expected period, ns, of a line that begins at the first anchor, which is not late.

    No slope from there to an anchor is below the true one; near the least, slopes lie as densely as `spread` says. So
    the true slope is the least one less an exponentially distributed excess, and beforehand it is normally distributed
    around the nominal one: the mean of the two together is that of a truncated normal distribution.
    """
    start, *rest = anchors
    slopes = sorted((anchor.since_start_ns - start.since_start_ns) / anchor.samples for anchor in rest)[:5]
    if len(slopes) < 3:
        return _plausible(min(slopes[0], nominal_ns), nominal_ns) if slopes else nominal_ns
    sigma = nominal_ns * TYPICAL_PPM * 1e-6
    spread = max(sum(slope - slopes[0] for slope in slopes) / math.comb(len(slopes), 2), sigma * 1e-4)
    least = slopes[0] - nominal_ns
    pull = sigma**2 / spread
    z = (least - pull) / sigma
    if z < -8:
        return _plausible(slopes[0] - spread, nominal_ns)
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    below = math.erfc(-z / math.sqrt(2)) / 2
    return _plausible(nominal_ns + pull - sigma * density / below, nominal_ns)


def _plausible(period_ns: float, nominal_ns: float) -> float:
    slack = nominal_ns * PRIOR_PPM * 1e-6
    return min(max(period_ns, nominal_ns - slack), nominal_ns + slack)


class ClockFit:
    """The clock of one run: anchors in, stamps out; each block begins where the one before it ended.

    `started_mono_ns` is the bracket of the start (before the call, after it): sample 0 lies within it. Where
    `keeps_time` is false anchors are ignored and the nominal rate holds.
    """

    def __init__(
        self, rate_hz: float, started_mono_ns: tuple[int, int], utc_offset_ns: int, *, keeps_time: bool = True
    ) -> None:
        self._nominal_ns = 1e9 / rate_hz
        self._origin_ns, end_ns = started_mono_ns
        self._bracket_ns = end_ns - self._origin_ns
        self._utc_offset_ns = utc_offset_ns
        self._keeps_time = keeps_time
        self._bucket_samples = max(1, round(BUCKET_S * rate_hz))
        self._slew_samples = SLEW_S * rate_hz
        self._best: deque[Anchor] = deque([Anchor(0, self._bracket_ns)])
        self._start_ns = self._bracket_ns / 2
        self._period_ns = self._nominal_ns
        self._published = (0, self._start_ns)

    @property
    def rate_hz(self) -> float:
        """The fitted true rate."""
        return 1e9 / self._period_ns

    def anchor(self, samples: int, arrived_mono_ns: int) -> None:
        """Take in that `samples` of each channel were over at the monotonic instant `arrived_mono_ns`."""
        if not self._keeps_time or samples <= 0:
            return
        new = Anchor(samples, arrived_mono_ns - self._origin_ns)
        last = self._best[-1]
        if last.samples > 0 and samples // self._bucket_samples == last.samples // self._bucket_samples:
            if self._lateness_ns(new) >= self._lateness_ns(last):
                return
            self._best.pop()
        self._best.append(new)
        while samples - self._best[0].samples > WINDOW_S / BUCKET_S * self._bucket_samples:
            self._best.popleft()
        self._fit()

    def stamp(self, first_sample: int, count: int) -> tuple[int, Clock]:
        """Return the monotonic instant of a block's first sample, ns, and the block's clock.

        Blocks are stamped in order; samples between them (lost ones) are passed over.
        """
        at, published_ns = self._published
        period_ns = self._slewed_period_ns()
        first_ns = published_ns + (first_sample - at) * period_ns
        self._published = (first_sample + count, first_ns + count * period_ns)
        t_mono_ns = self._origin_ns + round(first_ns)
        return t_mono_ns, Clock(t_mono_ns + self._utc_offset_ns, period_ns)

    def _lateness_ns(self, anchor: Anchor) -> float:
        return anchor.since_start_ns - self._period_ns * anchor.samples

    def _fit(self) -> None:
        anchors = list(self._best)
        if anchors[0].samples == 0 and self._bracket_ns <= SHARP_START_NS:
            self._start_ns, self._period_ns = self._bracket_ns / 2, period_from_start(anchors, self._nominal_ns)
            return
        start_ns, self._period_ns = line_below(anchors, self._nominal_ns)
        # sample 0 cannot lie before start() was called
        self._start_ns = max(start_ns, 0.0) if anchors[0].samples == 0 else start_ns

    def _slewed_period_ns(self) -> float:
        """Return the period that leads the published line back to the fit, within the limit."""
        if not self._keeps_time:
            return self._nominal_ns
        at, published_ns = self._published
        error_ns = self._start_ns + self._period_ns * at - published_ns
        limit_ns = self._nominal_ns * MAX_SLEW_PPM * 1e-6
        return self._period_ns + min(max(error_ns / self._slew_samples, -limit_ns), limit_ns)
