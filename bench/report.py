"""Results, as JSON and as text, a line each."""

import msgspec

from bench.machine import Machine
from bench.measuring import Result


class Report(msgspec.Struct, frozen=True):
    """A run as JSON."""

    machine: Machine
    when: str
    commit: str
    quick: bool
    left_out: tuple[str, ...]
    results: tuple[Result, ...]


def line(result: Result) -> str:
    """Return the line that says what a case came to."""
    name = f"{result.bench}: {result.case}"
    if result.ours is None:
        return f"{name} · NOT MET · {result.error}"
    parts = [name, figure(result.ours, result.unit)]
    if result.reference is not None and result.ratio is not None:
        parts += [f"reference {figure(result.reference, result.unit)}", f"ratio {result.ratio:.2f}{spread(result)}"]
    parts += [f"goal {result.goal}", "met" if result.met else "NOT MET"]
    if result.note:
        parts.append(result.note)
    return " · ".join(parts)


def spread(result: Result) -> str:
    """Return the least and the greatest ratio, in brackets; empty where there is none."""
    return "" if result.spread is None else f" ({result.spread[0]:.2f}–{result.spread[1]:.2f})"


def figure(value: float, unit: str) -> str:
    """Return a value with its unit."""
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.3g} {unit}"
