"""The line below all callbacks: what they tell about one clock, and how far that may be off. Pure.

A callback comes when its last sample is over, or later, never earlier: the true line runs below all callbacks. Taken
for exponentially late, they make a line below them the likelier the higher it runs above their middle; the likeliest is
the edge of their lower convex hull there (Moon, Skelly, Towsley: "Estimation and removal of clock skew from network
delay measurements", INFOCOM 1999). What is returned is the mean of all such lines, weighed by that likelihood and by
how far crystals usually are off; how they spread is its uncertainty. `docs/time.md` derives it.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LIMIT_PPM = 1000.0
"""A rate further off its nominal one is not followed."""
TYPICAL_PPM = 50.0
"""How far a crystal usually is off: one standard deviation."""
_FEW, _MANY = 4, 16
"""So many of the least late callbacks, half of all, tell how densely callbacks lie above the line."""
_SPARSER = 1.5
"""So much sparser they are taken to lie right above the line than a little higher."""
_UNKNOWN_NS = 50e6
"""How late a callback is taken to be while there are too few to tell, ns."""
_LEAST_ROOM_NS = 1000.0
"""A start is known no better than this, ns."""
_NEGLIGIBLE = 25.0
"""Lines less likely than the likeliest by this power of e are left out."""
_GRID = 48
_ZOOMS = 12


class Callback(NamedTuple):
    """So many samples of each channel were over when the callback came."""

    samples: int
    since_start_ns: int
    """Monotonic instant of the callback, ns since the fit's origin."""


class Line(NamedTuple):
    """The instants of samples, through a pivot, with the variances of what is not known about them."""

    samples: int
    """The pivot."""
    pivot_ns: float
    """Instant of the pivot, ns since the fit's origin."""
    period_ns: float
    pivot_variance: float = 0.0
    covariance: float = 0.0
    """Of the pivot's instant and the period."""
    period_variance: float = 0.0

    def at(self, samples: int) -> float:
        """Return the instant when so many samples are over, ns since the fit's origin."""
        return self.pivot_ns + (samples - self.samples) * self.period_ns

    def sigma_ns(self, samples: int) -> float:
        """Return the standard deviation of that instant, ns."""
        x = samples - self.samples
        return math.sqrt(max(self.pivot_variance + x * (2 * self.covariance + x * self.period_variance), 0.0))


def lower_hull(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the lower convex hull of callbacks that are sorted by samples."""
    hull: list[Callback] = []
    for one in callbacks:
        while len(hull) > 1 and not _turns_up(hull[-2], hull[-1], one):
            hull.pop()
        hull.append(one)
    return hull


def _turns_up(a: Callback, b: Callback, c: Callback) -> bool:
    along = (b.samples - a.samples) * (c.since_start_ns - a.since_start_ns)
    return along > (b.since_start_ns - a.since_start_ns) * (c.samples - a.samples)


def expected_line(known: Sequence[Callback], nominal_ns: float, start_bracket_ns: int | None = None) -> Line:
    """Return the expected line below callbacks sorted by samples, at least one; its pivot is the last of them.

    With `start_bracket_ns` the first of them is the end of the start's bracket, which is so wide: sample 0 lies in it.
    """
    pivot, callbacks = known[-1], known if start_bracket_ns is None else known[1:]
    x, y = _about(lower_hull(known), pivot, nominal_ns)
    all_x, all_y = _about(callbacks, pivot, nominal_ns)
    middle = float(all_x.mean()) if callbacks else 0.0
    slack = nominal_ns * LIMIT_PPM * 1e-6
    spread_ns = _spread_ns(all_y - all_x * _likeliest(x, y, middle, slack))
    low, high = -slack, slack
    for _ in range(_ZOOMS):
        q = np.linspace(low, high, _GRID)
        top: Floats = np.min(y - np.outer(q, x), axis=1)
        room = np.full(_GRID, np.inf)
        if start_bracket_ns is not None:
            room = top - (y[0] - max(start_bracket_ns, _LEAST_ROOM_NS) - q * x[0])
        log_weight = (top + q * middle) / spread_ns - (q / (nominal_ns * TYPICAL_PPM * 1e-6)) ** 2 / 2
        log_weight += _log_share(room, spread_ns)
        near = np.flatnonzero(log_weight > log_weight.max() - _NEGLIGIBLE)
        if len(near) >= _GRID // 2:
            break
        low, high = q[max(near[0] - 1, 0)], q[min(near[-1] + 1, _GRID - 1)]
    weight = np.exp(log_weight - log_weight.max())
    depth, variance = _below_top(room, spread_ns)
    return _mean_line(pivot, nominal_ns, weight / weight.sum(), q, top - depth, variance)


def _about(callbacks: Sequence[Callback], pivot: Callback, nominal_ns: float) -> tuple[Floats, Floats]:
    """Return samples and instants (ns) counted from the pivot, the nominal rate taken out, so that both are small."""
    x = np.array([one.samples - pivot.samples for one in callbacks], dtype=np.float64)
    y = np.array([one.since_start_ns - pivot.since_start_ns for one in callbacks], dtype=np.float64)
    return x, y - x * nominal_ns


def _likeliest(x: Floats, y: Floats, middle: float, slack: float) -> float:
    """Return the slope of the hull's edge above the middle, within the slack."""
    for (x1, y1), (x2, y2) in itertools.pairwise(zip(x, y, strict=True)):
        if x2 >= middle and x2 > x1:
            return float(np.clip((y2 - y1) / (x2 - x1), -slack, slack))
    return 0.0


def _spread_ns(lateness: Floats) -> float:
    """Return the mean distance of neighbouring callbacks right above the line, ns.

    Of n exponentially late ones the i-th is n / (n - i) such distances above the one before it (Rényi 1953); the line
    fits one of them away. Callbacks that come in order wait for each other, and lie the sparser the less late they are.
    """
    n = len(lateness)
    count = min(max(n // 2, _FEW), _MANY)
    if n < count:
        return _UNKNOWN_NS / max(n, 1)
    least = np.sort(lateness)[:count]
    distances = float(np.sum(n / (n - np.arange(1, count)))) - 1
    return max(_SPARSER * float(least[-1] - least[0]) / distances, 1.0)


def _log_share(room: Floats, spread_ns: float) -> Floats:
    """Return the logarithm of the share of an exponential's mass that lies within `room` of its top.

    Where there is no room (nothing fits) it goes on downwards, so that what fits best is found.
    """
    x = room / spread_ns
    least = _LEAST_ROOM_NS / spread_ns / 10
    share: Floats = np.log(-np.expm1(-np.clip(x, least, 50.0))) + np.minimum(x - least, 0.0) / least
    return share


def _below_top(room: Floats, spread_ns: float) -> tuple[Floats, Floats]:
    """Return mean depth (ns) and variance of an exponential below its top, cut off at `room`."""
    x = np.clip(room / spread_ns, 0.02, 50.0)
    decay = np.exp(-x)
    depth = spread_ns * (1 - x * decay / (1 - decay))
    variance = spread_ns**2 * (1 - x**2 * decay / (1 - decay) ** 2)
    return np.minimum(depth, np.maximum(room, 0.0) / 2), np.minimum(variance, room**2 / 12)


def _mean_line(
    pivot: Callback, nominal_ns: float, weight: Floats, q: Floats, offset_ns: Floats, variance: Floats
) -> Line:
    mean_q, mean_offset = float(weight @ q), float(weight @ offset_ns)
    dq, doffset = q - mean_q, offset_ns - mean_offset
    return Line(
        pivot.samples,
        pivot.since_start_ns + mean_offset,
        nominal_ns + mean_q,
        float(weight @ (doffset**2 + variance)),
        float(weight @ (dq * doffset)),
        float(weight @ dq**2),
    )
