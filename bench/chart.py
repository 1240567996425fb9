"""The chart of docs/performance.md: rate against block size, channels and subscribers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.growth.fits import Growth, Series
from bench.growth.table import size

_PANELS = (("Block size", "B", "bytes in a block"), ("Channels", "channels", "channels in a block"),
           ("Subscribers", "subscribers", "subscribers"))  # fmt: skip
_MB, _BLOCKS = "MB/s", "blocks/s"
_COLOURS = {_MB: ("#1f5fa8", "#6ea6dd"), _BLOCKS: ("#b3541e", "#e3a173")}


def draw(growth: Growth, path: Path) -> None:
    """Write the chart as PNG."""
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False}):
        figure = Figure(figsize=(14, 5.4), dpi=110, layout="constrained")
        panels = figure.subplots(1, len(_PANELS))
        for axes, (title, grows, label) in zip(panels, _PANELS, strict=True):
            _panel(axes, [series for series in growth.series if series.grows == grows and _has_rates(series)])
            axes.set_title(title)
            axes.set_xlabel(label)
        when = f"commit {growth.commit}, {growth.when[:10]}, {growth.machine.cores} cores"
        figure.suptitle(f"Publish → DaqBlock by TCP on the loopback ({when})")
        figure.savefig(path, metadata={"Software": None})


def _has_rates(series: Series) -> bool:
    return {_MB, _BLOCKS} <= {measure.unit for measure in series.measures}


def _panel(axes: Any, series: Sequence[Series]) -> None:
    """Draw MB/s by the left axis and blocks/s by the right one, over the sizes."""
    right = axes.twinx()
    lines = [*_lines(axes, series, _MB, "o-"), *_lines(right, series, _BLOCKS, "s--")]
    for side, what in ((axes, "MB/s, all receivers together"), (right, "blocks/s published")):
        side.set_yscale("log")
        side.set_ylabel(what, color=_COLOURS[_MB if side is axes else _BLOCKS][0])
        side.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
        side.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        side.yaxis.set_minor_locator(NullLocator())
        side.spines["top"].set_visible(False)
        side.set_ymargin(0.1)
        side.set_ylim(*_at_least_a_decade(*side.get_ylim()))
    axes.set_xscale("log", base=2)
    axes.grid(visible=True, which="major", alpha=0.3)
    if series:
        sizes = series[0].sizes
        axes.set_xticks(sizes, [size(value, series[0].grows) for value in sizes], rotation=30)
        axes.xaxis.set_minor_locator(NullLocator())
    if lines:
        axes.legend(handles=lines, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.27), ncols=2, frameon=False)


def _at_least_a_decade(low: float, high: float) -> tuple[float, float]:
    """Return the limits of a log axis, farther apart where small differences would look large."""
    factor = max(1.0, (10 * low / high) ** 0.5)
    return low / factor, high * factor


def _lines(axes: Any, series: Sequence[Series], unit: str, style: str) -> Iterator[Any]:
    for one, colour in zip(series, _COLOURS[unit], strict=False):
        for measure in one.measures:
            if measure.unit == unit:
                of = one.name.partition(", ")[2] if len(series) > 1 else ""
                label = f"{unit}, {of}" if of else unit
                yield from axes.plot(one.sizes, measure.values, style, color=colour, label=label, markersize=5)
