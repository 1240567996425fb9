"""Values inside and outside of a sensor's range."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtolbus.units.status import SensorStatus


def inside(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Return `values` as float64, of the same shape, with NaN for what is not in [low, high]."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.asarray(np.where((numbers >= low) & (numbers <= high), numbers, np.nan))


def status_of(values: ArrayLike, low: float, high: float) -> NDArray[np.int64]:
    """Return the SensorStatus of each of `values`, of the same shape.

    Below `low` and above `high` are out of range; NaN, which is no value at all, counts as an open sensor.
    """
    numbers = np.asarray(values, dtype=np.float64)
    status = np.full(numbers.shape, SensorStatus.OK, dtype=np.int64)
    status[numbers < low] = SensorStatus.TEMP_OUT_OF_RANGE_LOW
    status[numbers > high] = SensorStatus.TEMP_OUT_OF_RANGE_HIGH
    status[np.isnan(numbers)] = SensorStatus.SENSOR_OPEN
    return status


def finite_or_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values, with NaN for infinities; the same array where there are none."""
    return values if np.isfinite(values).all() else np.where(np.isfinite(values), values, np.nan)


def status_of_results(taken: NDArray[np.float64], results: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the SensorStatus of what a scaling made of `taken`, of the same shape.

    Infinities are out of range; so is NaN that came of a number (it was infinite on the way, and counts as above).
    NaN that came of NaN counts as an open sensor.
    """
    status = np.full(results.shape, SensorStatus.OK, dtype=np.int64)
    status[~np.isfinite(results)] = SensorStatus.TEMP_OUT_OF_RANGE_HIGH
    status[results == -np.inf] = SensorStatus.TEMP_OUT_OF_RANGE_LOW
    status[np.isnan(taken)] = SensorStatus.SENSOR_OPEN
    return status
