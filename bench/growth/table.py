"""A series as a table of text."""

from bench.growth.fits import Measure, Series

_STEPS = ((86_400, "d"), (3_600, "h"))


def rows(series: Series) -> list[list[str]]:
    """Return the table's cells, the names of its columns first; the last column says how each cost grows."""
    found = [["", *(size(value, series.grows) for value in series.sizes), "grows"]]
    for measure in series.measures:
        cells = [number(value) for value in measure.values]
        found.append([f"{measure.what}, {measure.unit}", *cells, growth(measure)])
    return found


def text(series: Series) -> str:
    """Return the table in columns, below its title."""
    cells = rows(series)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, len(widths) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    title = f"{series.name}: {series.title}"
    return "\n".join([title, *([f"({series.note})"] if series.note else []), *lines])


def growth(measure: Measure) -> str:
    """Return how a cost grows; empty where it is none."""
    if measure.kind is None or measure.exponent is None:
        return ""
    return measure.kind if measure.kind == "constant" else f"{measure.kind} (size^{measure.exponent:.2f})"


def size(value: float, grows: str) -> str:
    """Return what heads a column: `64 KiB`, `7 d`, `10,000`."""
    if grows == "B":
        step = 2 if value >= 2**20 else 1 if value >= 2**10 else 0
        return f"{value / 1024**step:g} {('B', 'KiB', 'MiB')[step]}"
    if grows == "s":
        length, unit = next((step for step in _STEPS if value >= step[0]), (1, "s"))
        return f"{value / length:g} {unit}"
    return f"{value:,.0f}"


def number(value: float) -> str:
    """Return a figure with three digits, or all of a large one."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
