"""`python -m bench.document RESULTS.json GROWTH.json`: writes the figures of docs/performance.md, and its chart."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from bench.chart import draw
from bench.growth import table
from bench.growth.fits import Growth, Series
from bench.machine import Machine
from bench.measuring import Result
from bench.report import Report, figure, spread

BEGIN, END = "<!-- figures: made by python -m bench.document, not by hand -->", "<!-- end of the figures -->"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, CHART = "performance.md", "performance-growth.png"
RESULTS, GROWTH = "performance-results.json", "performance-growth.json"
_COLUMNS = ("bench", "what", "ours", "reference", "ratio (of the pairs)", "goal", "met", "note")


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=DOCS / RESULTS)
@click.argument("growth", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=DOCS / GROWTH)
@click.option("--docs", type=click.Path(exists=True, file_okay=False, path_type=Path), default=DOCS)
def main(results: Path, growth: Path, docs: Path) -> None:
    """Write the page's figures and its chart from what `bench --json` and `bench.growth --json` said."""
    report, grown = read_report(results), read_growth(growth)
    page = docs / PAGE
    page.write_text(with_figures(page.read_text(encoding="utf-8"), figures(report, grown)), encoding="utf-8")
    draw(grown, docs / CHART)
    for path, name in ((results, RESULTS), (growth, GROWTH)):
        if path.resolve() != (docs / name).resolve():
            (docs / name).write_bytes(path.read_bytes())


def read_report(path: Path) -> Report:
    """Return the results in a file."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def read_growth(path: Path) -> Growth:
    """Return the series in a file."""
    return msgspec.json.decode(path.read_bytes(), type=Growth)


def with_figures(page: str, made: str) -> str:
    """Return the page with the figures between its two marks. Raises click.UsageError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise click.UsageError(f"the page has no {BEGIN if not begin else END!r}")
    return f"{before}{BEGIN}\n\n{made}\n{END}{behind}"


def figures(report: Report, growth: Growth) -> str:
    """Return all that stands between the marks."""
    return "\n".join([*_results(report), "", *_growth(growth)])


def _results(report: Report) -> Iterator[str]:
    met = sum(result.met for result in report.results)
    yield "## Against references"
    yield ""
    yield _measured(report.machine, report.commit, report.when)
    yield ""
    yield f"{met} of {len(report.results)} goals were met."
    if report.quick:
        yield "**A run with `--quick`**: few and short trials, which tell whether it runs rather than how fast."
    if report.left_out:
        yield f"Left out: {', '.join(report.left_out)}."
    yield ""
    yield from _table([_COLUMNS, *map(_row, report.results)])


def _row(result: Result) -> tuple[str, ...]:
    if result.ours is None:
        return (result.bench, result.case, "–", "–", "–", "–", "**no**", result.error)
    reference = "–" if result.reference is None else figure(result.reference, result.unit)
    ratio = "–" if result.ratio is None else f"{result.ratio:.2f}{spread(result)}"
    met = "yes" if result.met else "**no**"
    return (
        result.bench,
        result.case,
        figure(result.ours, result.unit),
        reference,
        ratio,
        str(result.goal),
        met,
        result.note,
    )


def _growth(growth: Growth) -> Iterator[str]:
    yield "## How cost grows"
    yield ""
    yield _measured(growth.machine, growth.commit, growth.when)
    yield ""
    worse = [series.name for series in growth.series if not series.is_met]
    yield f"Worse than linear: {', '.join(worse) or 'nothing'}."
    yield ""
    yield f"![Rate against block size, channels and subscribers]({CHART})"
    for series in growth.series:
        yield ""
        yield from _series(series)


def _series(series: Series) -> Iterator[str]:
    yield f"### {series.name[:1].upper()}{series.name[1:]}"
    yield ""
    yield f"{series.title[:1].upper()}{series.title[1:]}{f' ({series.note})' if series.note else ''}."
    yield ""
    head, *rows = table.rows(series)
    yield from _table([[series.grows if series.grows not in ("B", "s") else "", *head[1:]], *rows])


def _measured(machine: Machine, commit: str, when: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"Commit `{commit or 'unknown'}`, {when}, on {machine.cores} × {machine.cpu}, {machine.ram_gib:g} GiB, "
        f"{machine.kernel}, {machine.python}, files on {machine.file_system}; {versions}."
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for place, row in enumerate(rows):
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
        if not place:
            yield f"|{' --- |' * len(row)}"


if __name__ == "__main__":
    main(prog_name="python -m bench.document")
