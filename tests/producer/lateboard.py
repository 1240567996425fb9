"""A board whose callbacks are late, as numbers: what the clock fit says about it against the truth. No time passes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus_producer.clockfit import ClockFit, Stamp

Floats = NDArray[np.float64]
Late = Callable[[np.random.Generator, Floats], Floats]
"""Lateness, ns, of callbacks that are due at so many seconds."""

RATE_HZ = 10_000.0
ORIGIN_NS = 10**15


def even(generator: np.random.Generator, at_s: Floats) -> Floats:
    return generator.random(len(at_s)) * 60e6


def exponential(generator: np.random.Generator, at_s: Floats) -> Floats:
    return generator.exponential(20e6, len(at_s))


def busy(generator: np.random.Generator, at_s: Floats) -> Floats:
    """The first second of every seven all callbacks are a tenth to six tenths of a second late."""
    return np.where(at_s % 7 < 1, 100e6 + generator.random(len(at_s)) * 500e6, even(generator, at_s))


@dataclass(frozen=True)
class Followed:
    """What came of it, a value a block."""

    at_s: Floats
    stamps: list[Stamp]
    error_ns: Floats
    """Stamp less truth."""
    fit: ClockFit

    @property
    def uncertainty_ns(self) -> Floats:
        return np.array([stamp.uncertainty_ns for stamp in self.stamps], dtype=np.float64)

    def from_s(self, from_s: float, to_s: float = np.inf) -> Any:
        return (self.at_s >= from_s) & (self.at_s < to_s)


def follow(
    seconds: float,
    *,
    drift_ppm: float,
    late: Late = even,
    seed: int = 0,
    warming_ppm_min: float = 0.0,
    bracket_ns: int = 100_000,
    block: int = 200,
    utc_offset_ns: int = 0,
    lost_s: tuple[float, float] = (0.0, 0.0),
) -> Followed:
    """Follow a board whose callbacks come in order, late; what it delivers in `lost_s` is lost, and not told about."""
    generator = np.random.default_rng(seed)
    start_ns = ORIGIN_NS + generator.random() * bracket_ns
    nominal_s = np.arange(int(seconds * RATE_HZ / block) + 1) * block / RATE_HZ
    early_s = drift_ppm * 1e-6 * nominal_s + warming_ppm_min * 1e-6 / 60 * nominal_s**2 / 2
    true_ns = start_ns + (nominal_s - early_s) * 1e9
    callbacks = np.maximum.accumulate(true_ns[1:] + late(generator, nominal_s[1:]))
    fit = ClockFit(RATE_HZ, (ORIGIN_NS, ORIGIN_NS + bracket_ns), utc_offset_ns)
    kept = np.flatnonzero((nominal_s[:-1] < lost_s[0]) | (nominal_s[:-1] >= lost_s[1]))
    stamps = []
    for place in kept.tolist():
        fit.callback((place + 1) * block, int(callbacks[place]) + 1)
        stamps.append(fit.stamp(place * block, block))
    error_ns = np.array([stamp.t_mono_ns for stamp in stamps]) - true_ns[kept]
    return Followed(nominal_s[kept], stamps, error_ns, fit)
