"""Whether a cost grows in proportion to what it is for, or worse. Pure."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from bench.machine import Machine

Kind = Literal["constant", "less than linear", "linear", "worse than linear"]

MOST_EXPONENT = 1.1
"""A cost that grows with a higher power than this is worse than linear."""
_LEAST_LINEAR = 0.9
_CONSTANT = 1.5
"""A cost whose greatest value is at most so many times its least does not grow."""
_LEAST = 1e-9


class Measure(msgspec.Struct, frozen=True):
    """One quantity at each size of a series."""

    what: str
    unit: str
    values: tuple[float, ...]
    exponent: float | None = None
    """Of the size, to which the cost is proportional; None: it is no cost, and not judged."""
    kind: Kind | None = None
    is_judged: bool = True
    """Whether it is ours, and counts; what grows alike in a reference is no fault of ours."""

    @property
    def is_met(self) -> bool:
        """Whether it grows linearly or better, or is not judged."""
        return not self.is_judged or self.kind != "worse than linear"


class Series(msgspec.Struct, frozen=True):
    """What grows, and what came of it."""

    name: str
    title: str
    grows: str
    """What the sizes count: `channels`, `B`, `s`."""
    sizes: tuple[float, ...]
    measures: tuple[Measure, ...]
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether everything that is judged grows linearly or better."""
        return all(measure.is_met for measure in self.measures)


class Growth(msgspec.Struct, frozen=True):
    """A run as JSON."""

    machine: Machine
    when: str
    commit: str
    quick: bool
    series: tuple[Series, ...]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return n where the costs go as size to the n: the slope of log cost over log size, by least squares.

    Of the larger half of the sizes, three at least: a constant part hides at the small ones how the rest grows.
    """
    count = min(len(sizes), max(3, len(sizes) // 2 + 1))
    x = [math.log(size) for size in sizes[-count:]]
    y = [math.log(max(cost, _LEAST)) for cost in costs[-count:]]
    mean_x, mean_y = sum(x) / count, sum(y) / count
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


def kind_of(costs: Sequence[float], power: float) -> Kind:
    """Return in a word how costs grow whose exponent is `power`."""
    if max(costs) <= _CONSTANT * max(min(costs), _LEAST):
        return "constant"
    if power > MOST_EXPONENT:
        return "worse than linear"
    return "linear" if power >= _LEAST_LINEAR else "less than linear"


def cost(what: str, unit: str, sizes: Sequence[float], values: Sequence[float]) -> Measure:
    """Return a cost with how it grows over the ascending sizes."""
    power = exponent(sizes, values)
    return Measure(what, unit, tuple(values), power, kind_of(values, power))


def figure(what: str, unit: str, values: Sequence[float]) -> Measure:
    """Return a quantity that is shown and not judged: a rate, or what is known to grow."""
    return Measure(what, unit, tuple(values))
