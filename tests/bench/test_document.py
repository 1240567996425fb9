"""The page of figures: made from the JSON alone, and what stands in the repository is that."""

from pathlib import Path

import click
import pytest
from bench import document
from bench.chart import draw
from bench.growth.fits import Growth, Series, cost, figure
from bench.machine import Machine
from bench.measuring import Result, at_least, at_most
from bench.report import Report

DOCS = Path(__file__).parents[2] / "docs"
MACHINE = Machine("Abacus", 2, 4.0, "Linux 1", "CPython 3", "ext4", {"numpy": "9"})
RESULTS = Report(
    MACHINE,
    "2026-01-02T03:04:05+0000",
    "abc",
    False,
    (),
    (
        Result("wire", "16 kB", "MB/s", 1200.0, 1000.0, 1.2, (1.1, 1.3), at_least(0.85), True, "a | b"),
        Result("start", "help", "s", 0.5, None, None, (0.4, 0.6), at_most(0.3), False),
        Result("csv", "failed to run", "", None, None, None, None, None, False, error="OSError: no"),
    ),
)
SIZES = (1.0, 4.0, 16.0)
GROWTH = Growth(
    MACHINE,
    "2026-01-03T03:04:05+0000",
    "def",
    False,
    (
        Series(
            "subscribers",
            "to each",
            "subscribers",
            SIZES,
            (
                figure("all", "MB/s", [10.0, 20.0, 30.0]),
                figure("published", "blocks/s", [100.0, 50.0, 20.0]),
                cost("a block", "µs", SIZES, [10.0, 40.0, 160.0]),
            ),
            "loopback",
        ),
    ),
)


def test_the_tables_are_those_of_the_json():
    made = document.figures(RESULTS, GROWTH)

    assert "Commit `abc`, 2026-01-02T03:04:05+0000, on 2 × Abacus, 4 GiB, Linux 1, CPython 3, files on ext4" in made
    assert "1 of 3 goals were met." in made
    assert [line for line in made.splitlines() if line.startswith("|")] == [
        "| bench | what | ours | reference | ratio (of the pairs) | goal | met | note |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| wire | 16 kB | 1,200 MB/s | 1,000 MB/s | 1.20 (1.10–1.30) | ≥ 0.85 | yes | a &#124; b |",
        "| start | help | 0.5 s | – | – | ≤ 0.3 | **no** |  |",
        "| csv | failed to run | – | – | – | – | **no** | OSError: no |",
        "| subscribers | 1 | 4 | 16 | grows |",
        "| --- | --- | --- | --- | --- |",
        "| all, MB/s | 10 | 20 | 30 |  |",
        "| published, blocks/s | 100 | 50 | 20 |  |",
        "| a block, µs | 10 | 40 | 160 | linear (size^1.00) |",
    ]
    assert "### Subscribers\n\nTo each (loopback).\n" in made


def test_only_what_is_between_the_marks_is_replaced():
    page = f"# By hand\n\n{document.BEGIN}\nold\n{document.END}\n\nand behind\n"

    once = document.with_figures(page, "new\n")

    assert once == f"# By hand\n\n{document.BEGIN}\n\nnew\n\n{document.END}\n\nand behind\n"
    assert document.with_figures(once, "new\n") == once
    with pytest.raises(click.UsageError):
        document.with_figures("# no marks\n", "new")


def test_the_chart_is_a_picture_also_where_a_series_is_missing(tmp_path: Path):
    draw(GROWTH, tmp_path / "chart.png")

    assert (tmp_path / "chart.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_figures_in_the_repository_are_those_of_its_json():
    page = (DOCS / document.PAGE).read_text(encoding="utf-8")
    report = document.read_report(DOCS / document.RESULTS)
    growth = document.read_growth(DOCS / document.GROWTH)

    assert document.with_figures(page, document.figures(report, growth)) == page
    assert (DOCS / document.CHART).exists()
