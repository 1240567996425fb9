"""How cost grows: the fit, its words, and the table."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench.growth.fits import Series, cost, exponent, figure
from bench.growth.table import growth, number, rows, size, text

SIZES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)


@pytest.mark.parametrize(
    ("of_size", "power", "kind"),
    [
        (lambda size: 7.0, 0.0, "constant"),
        (lambda size: 7.0 + size / 5000, 0.06, "constant"),
        (lambda size: 2.0 * size**0.5, 0.5, "less than linear"),
        (lambda size: 2.0 * size, 1.0, "linear"),
        (lambda size: 3.0 * size**1.2, 1.2, "worse than linear"),
        (lambda size: size**2, 2.0, "worse than linear"),
    ],
)
def test_the_exponent_is_that_of_the_cost(of_size, power, kind):
    found = cost("start", "s", SIZES, [of_size(size) for size in SIZES])

    assert found.exponent == pytest.approx(power, abs=0.05)
    assert found.kind == kind
    assert found.is_met == (kind != "worse than linear")


def test_a_constant_part_does_not_hide_what_grows_badly():
    assert exponent(SIZES, [2.0 + size**2 / 1000 for size in SIZES]) > 1.5
    assert exponent((1.0,), (5.0,)) == 0.0


def test_costs_of_nothing_are_no_fault():
    assert cost("wait", "s", SIZES, [0.0] * 5).kind == "constant"


def test_rates_are_shown_and_not_judged():
    found = figure("all", "MB/s", [1.0, 1000.0])

    assert (found.kind, found.is_met, growth(found)) == (None, True, "")


def test_the_table_names_sizes_and_growth():
    made = (figure("rate", "MB/s", [1.5, 1234.0]), cost("a block", "µs", (16.0, 65536.0), [1.0, 4096.0]))
    series = Series("block size", "of 8 channels", "B", (16.0, 65536.0), made, "scaled")

    assert rows(series) == [
        ["", "16 B", "64 KiB", "grows"],
        ["rate, MB/s", "1.5", "1,234", ""],
        ["a block, µs", "1", "4,096", "linear (size^1.00)"],
    ]
    assert series.is_met
    assert text(series).splitlines()[:2] == ["block size: of 8 channels", "(scaled)"]


def test_sizes_are_told_as_people_do():
    assert [size(value, "B") for value in (16, 4096, 2**21)] == ["16 B", "4 KiB", "2 MiB"]
    assert [size(value, "s") for value in (30, 3600, 7 * 86_400)] == ["30 s", "1 h", "7 d"]
    assert (size(10_000, "runs"), number(0.1234), number(99.95)) == ("10,000", "0.123", "100")


def test_an_unknown_series_is_wrong_usage():
    done = subprocess.run(
        [sys.executable, "-m", "bench.growth", "nothing"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 2
    assert "subscribers" in done.stderr
