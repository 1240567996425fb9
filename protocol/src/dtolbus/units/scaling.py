"""Scalings that know no physics: a sensitivity, a polynomial, a table."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def linear(volts: ArrayLike, sensitivity_v: float, offset: float = 0.0) -> NDArray[np.float64]:
    """Return `volts / sensitivity_v + offset`, of the same shape: `sensitivity_v` is the volts for one unit.

    `offset` is in the sensor's unit: what it measures at 0 V.
    Raises ValueError for a sensitivity of 0 and for numbers that are not finite.
    """
    if not (sensitivity_v and math.isfinite(sensitivity_v)):
        raise ValueError(f"sensitivity_v is {sensitivity_v}: give the volts for one unit, not 0")
    if not math.isfinite(offset):
        raise ValueError(f"offset is {offset}: give a finite number")
    return np.asarray(np.asarray(volts, dtype=np.float64) / sensitivity_v + offset)


def polynomial(values: ArrayLike, coefficients: Sequence[float]) -> NDArray[np.float64]:
    """Return c₀ + c₁x + c₂x² + …, of the same shape: `coefficients` ascend, and Horner's rule adds them up.

    NaN gives NaN. Raises ValueError for no coefficients and for one that is not finite.
    """
    if not coefficients:
        raise ValueError("no coefficients: give at least the constant one")
    for power, coefficient in enumerate(coefficients):
        if not math.isfinite(coefficient):
            raise ValueError(f"coefficient {power} is {coefficient}: give a finite number")
    return horner(np.asarray(values, dtype=np.float64), coefficients)


def horner(x: NDArray[np.float64], coefficients: Sequence[float]) -> NDArray[np.float64]:
    """Return the polynomial with ascending `coefficients`, at least one and all finite, at `x`; same shape."""
    result = np.full(x.shape, coefficients[-1], dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities come out as IEEE 754 says
        for coefficient in coefficients[-2::-1]:
            result *= x
            result += coefficient
        if len(coefficients) == 1:
            result[np.isnan(x)] = np.nan
    return result


def derivative(coefficients: Sequence[float]) -> tuple[float, ...]:
    """Return the ascending coefficients of the derivative of a polynomial of at least the first degree."""
    return tuple(power * coefficient for power, coefficient in enumerate(coefficients))[1:]


class Table:
    """A table x → y, read by linear interpolation between its points."""

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        """Take the points: `x` strictly increasing or strictly decreasing, `y` as many; both finite, 1-d, 2 or more.

        Raises ValueError otherwise, with the value that does not fit.
        """
        xs, ys = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
        if xs.ndim != 1 or xs.shape != ys.shape or len(xs) < 2:
            raise ValueError(f"a table needs as many x as y, at least two: x has shape {xs.shape}, y {ys.shape}")
        for name, column in (("x", xs), ("y", ys)):
            for row in np.flatnonzero(~np.isfinite(column)):
                raise ValueError(f"{name}[{row}] is {column[row]}: a table holds finite numbers")
        if xs[0] > xs[-1]:
            xs, ys, way = xs[::-1], ys[::-1], "fall"
        else:
            way = "rise"
        for row in np.flatnonzero(np.diff(xs) <= 0):
            pair = (xs[row], xs[row + 1]) if way == "rise" else (xs[row + 1], xs[row])
            raise ValueError(f"x must strictly {way} from row to row, but {pair[1]} follows {pair[0]}")
        self._x, self._y = xs, ys

    def at(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return y at `values`, of the same shape; NaN outside of the table."""
        return np.asarray(np.interp(np.asarray(values, dtype=np.float64), self._x, self._y, np.nan, np.nan))
