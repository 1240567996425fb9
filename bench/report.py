"""Results as text, a line each."""

from bench.measuring import Result


def line(result: Result) -> str:
    """Return the line that says what a case came to."""
    name = f"{result.bench}: {result.case}"
    if result.ours is None:
        return f"{name} · NOT MET · {result.error}"
    parts = [name, _figure(result.ours, result.unit)]
    if result.reference is not None and result.ratio is not None:
        parts += [f"reference {_figure(result.reference, result.unit)}", f"ratio {result.ratio:.2f}{_spread(result)}"]
    parts += [f"goal {result.goal}", "met" if result.met else "NOT MET"]
    if result.note:
        parts.append(result.note)
    return " · ".join(parts)


def _spread(result: Result) -> str:
    return "" if result.spread is None else f" ({result.spread[0]:.2f}–{result.spread[1]:.2f})"


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.3g} {unit}"
