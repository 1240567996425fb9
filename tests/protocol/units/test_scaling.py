"""Sensitivities, polynomials and tables."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtolbus.units.scaling import Table, linear, polynomial

numbers = st.floats(-1e6, 1e6)


def test_a_sensitivity_is_the_volts_for_one_unit() -> None:
    assert linear([0.0, 0.1, -0.25], 0.1).tolist() == pytest.approx([0, 1, -2.5])
    assert linear([0.4, 2.0], 0.016, -25.0).tolist() == pytest.approx([0, 100])  # 4…20 mA across 100 Ω: 0…100 bar


@pytest.mark.parametrize(("sensitivity", "offset"), [(0.0, 0.0), (np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan)])
def test_a_sensitivity_that_cannot_be_is_refused(sensitivity: float, offset: float) -> None:
    with pytest.raises(ValueError, match=r"(sensitivity_v|offset) is (0\.0|nan|inf)"):
        linear(1.0, sensitivity, offset)


@given(st.lists(numbers, min_size=1, max_size=6), st.floats(-10, 10))
def test_a_polynomial_is_the_sum_of_its_powers(coefficients: list[float], x: float) -> None:
    terms = [coefficient * x**power for power, coefficient in enumerate(coefficients)]
    assert polynomial(x, coefficients) == pytest.approx(sum(terms), abs=1e-12 * sum(map(abs, terms)) + 1e-300)


def test_a_polynomial_keeps_nan_and_infinity() -> None:
    assert polynomial([np.nan, np.inf, -np.inf], [1, 2]).tolist() == pytest.approx(
        [np.nan, np.inf, -np.inf], nan_ok=True
    )
    assert polynomial([1e200, np.inf], [0, 0, 1, 0]).tolist() == pytest.approx([np.inf, np.nan], nan_ok=True)
    assert polynomial([np.nan, 3.0], [7]).tolist() == pytest.approx([np.nan, 7], nan_ok=True)


def test_a_polynomial_without_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="no coefficients"):
        polynomial(1.0, [])
    with pytest.raises(ValueError, match="coefficient 1 is nan"):
        polynomial(1.0, [1.0, np.nan])


def test_a_table_is_read_between_its_points() -> None:
    values = [-1.0, 0.0, 0.5, 1.0, 3.0, 4.0]
    assert Table([0, 1, 3], [10, 20, 0]).at(values).tolist() == pytest.approx(
        [np.nan, 10, 15, 20, 0, np.nan], nan_ok=True
    )


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20, unique_by=lambda row: row[0]), numbers)
def test_a_falling_table_is_the_rising_one_from_its_end(rows: list[tuple[float, float]], value: float) -> None:
    x, y = np.array(sorted(rows)).T
    rising, falling = Table(x, y), Table(x[::-1], y[::-1])
    assert rising.at(x).tolist() == falling.at(x).tolist() == y.tolist()
    assert np.array_equal(rising.at([value]), falling.at([value]), equal_nan=True)
    assert np.isnan(rising.at(value)) == (not x[0] <= value <= x[-1])


def test_outside_of_a_table_is_nan() -> None:
    assert np.isnan(Table([0, 1], [0, 1]).at([-np.inf, -1e-9, 1 + 1e-9, np.inf, np.nan])).all()


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([0, 1, 1, 2], [0, 1, 2, 3], r"strictly rise from row to row, but 1\.0 follows 1\.0"),
        ([0, 2, 1, 3], [0, 1, 2, 3], r"strictly rise from row to row, but 1\.0 follows 2\.0"),
        ([3, 1, 2, 0], [0, 1, 2, 3], r"strictly fall from row to row, but 2\.0 follows 1\.0"),
        ([1, 1], [0, 1], r"strictly rise from row to row, but 1\.0 follows 1\.0"),
        ([0, np.nan], [0, 1], r"x\[1\] is nan"),
        ([0, 1], [np.inf, 1], r"y\[0\] is inf"),
        ([0, 1], [0, 1, 2], r"x has shape \(2,\), y \(3,\)"),
        ([0], [0], "at least two"),
        ([[0, 1]], [[0, 1]], "at least two"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_value(x: Any, y: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Table(x, y)


def test_a_table_keeps_its_own_points() -> None:
    x, y = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    table = Table(x, y)
    x[1] = y[1] = 100.0
    assert table.at(0.5) == 0.5


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    values = np.full(shape, 0.5)
    for result in (
        linear(values, 2.0),
        polynomial(values, [0, 1, 2]),
        polynomial(values, [3]),
        Table([0, 1], [0, 1]).at(values),
    ):
        assert isinstance(result, np.ndarray)
        assert result.dtype == np.float64
        assert result.shape == shape
    assert (values == 0.5).all()
