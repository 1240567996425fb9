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
