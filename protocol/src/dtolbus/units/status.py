"""What can be said of a sample instead of a value."""

from enum import IntEnum


class SensorStatus(IntEnum):
    """What is known of one sample of one channel; anything but OK makes the sample's value NaN."""

    OK = 0
    SENSOR_OPEN = 1
    TEMP_OUT_OF_RANGE_LOW = 2
    """Below what the sensor, or its table, can measure; of temperatures and of anything else."""
    TEMP_OUT_OF_RANGE_HIGH = 3
    """Above it."""
