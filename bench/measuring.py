"""Ratios taken in one run: our path and its reference, interleaved, so that a noisy machine disturbs both alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

import msgspec

Trial = Callable[[], float]
"""Does the work once, or so often that it can be timed, and returns its rate, or its cost."""


class Goal(msgspec.Struct, frozen=True):
    """What a figure has to reach."""

    direction: Literal["at_least", "at_most"]
    value: float

    def is_met(self, figure: float) -> bool:
        """Return whether the figure reaches the goal; NaN never does."""
        return figure >= self.value if self.direction == "at_least" else figure <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.direction == 'at_least' else '≤'} {self.value:g}"


def at_least(value: float) -> Goal:
    """Return the goal of a rate."""
    return Goal("at_least", value)


def at_most(value: float) -> Goal:
    """Return the goal of a cost."""
    return Goal("at_most", value)


@dataclass(frozen=True)
class Case:
    """One line of the report."""

    bench: str
    what: str
    unit: str
    """Of what `ours` and `reference` return."""
    ours: Trial
    reference: Trial | None
    """None: the goal is for ours itself, not for a ratio."""
    goal: Goal
    trials: int | None = None
    """So many pairs, whatever the plan says; for trials that are long."""
    note: Callable[[], str] = str
    """Asked after the last trial."""


class Pair(NamedTuple):
    """What two trials, one right after the other, gave."""

    ours: float
    reference: float | None


class Plan(NamedTuple):
    """How long a case is measured: `pairs` at least, further ones up to `most_pairs` while `budget_s` lasts."""

    pairs: int
    most_pairs: int
    budget_s: float
    trial_s: float
    """How long a trial of repeated work lasts at least."""


FULL = Plan(pairs=5, most_pairs=15, budget_s=5.0, trial_s=0.3)
QUICK = Plan(pairs=3, most_pairs=3, budget_s=1.0, trial_s=0.05)


class Result(msgspec.Struct, frozen=True):
    """What a case came to."""

    bench: str
    case: str
    unit: str
    ours: float | None
    """Median of the trials; None where it failed to run."""
    reference: float | None
    ratio: float | None
    """Median of ours ÷ median of the reference."""
    spread: tuple[float, float] | None
    """The least and the greatest of the pairs' ratios; without a reference, of ours."""
    goal: Goal | None
    met: bool
    note: str = ""
    error: str = ""


def summary(case: Case, pairs: Sequence[Pair], note: str = "") -> Result:
    """Return what the pairs, one at least, come to."""
    ours = median(pair.ours for pair in pairs)
    references = [pair.reference for pair in pairs if pair.reference is not None]
    if not references:
        values = [pair.ours for pair in pairs]
        met = case.goal.is_met(ours)
        return Result(
            case.bench, case.what, case.unit, ours, None, None, (min(values), max(values)), case.goal, met, note
        )
    reference = median(references)
    ratios = [_ratio(pair.ours, pair.reference) for pair in pairs if pair.reference is not None]
    ratio = _ratio(ours, reference)
    met = case.goal.is_met(ratio)
    spread = (min(ratios), max(ratios))
    return Result(case.bench, case.what, case.unit, ours, reference, ratio, spread, case.goal, met, note)


def _ratio(ours: float, reference: float) -> float:
    return ours / reference if reference else float("nan")


def measure(case: Case, plan: Plan, clock: Callable[[], float] = time.perf_counter) -> Result:
    """Warm up, then try ours and the reference by turns; every other pair begins with the reference."""
    pairs: list[Pair] = []
    least = case.trials or plan.pairs
    if least > 1:
        _pair(case, swapped=False)
    began = clock()
    while len(pairs) < least or (
        case.trials is None and len(pairs) < plan.most_pairs and clock() - began < plan.budget_s
    ):
        pairs.append(_pair(case, swapped=len(pairs) % 2 == 1))
    return summary(case, pairs, case.note())


def _pair(case: Case, swapped: bool) -> Pair:
    if case.reference is None:
        return Pair(case.ours(), None)
    if swapped:
        reference = case.reference()
        return Pair(case.ours(), reference)
    return Pair(case.ours(), case.reference())


class Repeated:
    """A trial of work that is too short to be timed once.

    `run(n)` does it n times and `amount` is what once comes to; the trial returns `amount` a second, or as a `cost` the
    seconds of once times `amount`. How often is found out at the first trial, up to `most`: one lasts `trial_s` then.
    """

    def __init__(
        self,
        run: Callable[[int], object],
        amount: float,
        trial_s: float,
        *,
        cost: bool = False,
        most: int | None = None,
    ) -> None:
        self._run = run
        self._amount = amount
        self._trial_s = trial_s
        self._cost = cost
        self._most = most
        self._times = 0

    def __call__(self) -> float:
        if not self._times:
            self._times = self._found_times()
        took_s = self._timed(self._times)
        return took_s / self._times * self._amount if self._cost else self._times * self._amount / took_s

    def _found_times(self) -> int:
        times = 1
        while True:
            took_s = self._timed(times)
            if took_s >= self._trial_s / 4 or times == self._most:
                needed = max(1, round(times * self._trial_s * 1.1 / took_s))
                return needed if self._most is None else min(needed, self._most)
            times = min(times * 4, self._most or times * 4)

    def _timed(self, times: int) -> float:
        began = time.perf_counter()
        self._run(times)
        return max(time.perf_counter() - began, 1e-9)
