"""A channel, and from its codes to what it measured. Pure."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtolbus.units.conversion import OPENS, Conversion, Thermocouple

_MOST_BITS = 64


class Channel(msgspec.Struct, frozen=True, omit_defaults=True):
    """One channel of a task: code × scale + offset, then its conversion where it has one."""

    name: str
    unit: str | None = None
    scale: float = 1.0
    """Engineering units for each code; volts where there is a conversion."""
    offset: float = 0.0
    """Engineering units at code 0; volts where there is a conversion."""
    range: tuple[float, float] | None = None
    """Lowest and highest input at this gain, in the board's units (V)."""
    gain: float = 1.0
    encoding: Literal["offset_binary", "twos_complement", "float"] = "float"
    resolution_bits: int | None = None
    physical: int | None = None
    """Number of the input on the board."""
    sensor: str | None = None
    """What is connected: `thermocouple K`, a serial number."""
    offset_ns: int = 0
    """When this channel is sampled after the scan's instant, ns (boards that scan one after another)."""
    conversion: Conversion | None = None
    """From volts to `unit`. Readings hold what came out of it, blocks hold codes."""

    @property
    def cold_junction(self) -> str | None:
        """Name of the channel that this one needs beside it, or None."""
        junction = self.conversion.cold_junction if isinstance(self.conversion, Thermocouple) else None
        return junction if isinstance(junction, str) else None

    @property
    def ends(self) -> tuple[float, float] | None:
        """The lowest and the highest code that the converter has; None where that is not known.

        Of a board that gives volts: the ends of the range, less a step where that is known.
        """
        bits = self.resolution_bits
        if bits is not None and not 0 < bits <= _MOST_BITS:
            bits = None  # no converter's: 2 to the power of what a stranger wrote has no end
        if self.encoding == "float":
            lowest_v, highest_v = self.range or (-np.inf, np.inf)
            step_v = (highest_v - lowest_v) / 2**bits if self.range and bits else 0.0
            return lowest_v, highest_v - step_v
        if bits is None:
            return None
        lowest = 0 if self.encoding == "offset_binary" else -(2 ** (bits - 1))
        return lowest, lowest + 2**bits - 1


def engineering(codes: NDArray[Any], channels: Sequence[Channel]) -> NDArray[np.float64]:
    """Return the codes in engineering units; both of shape (channels, samples).

    NaN wherever `status_of_codes` is not OK.
    """
    values = codes.astype(np.float64)
    values *= np.array([channel.scale for channel in channels]).reshape(len(codes), 1)
    offsets = [channel.offset or -0.0 for channel in channels]  # to add -0.0 changes nothing, not even a -0.0
    values += np.array(offsets).reshape(len(codes), 1)
    for place, channel in enumerate(channels):
        if channel.conversion is not None:
            values[place] = channel.conversion.value(_quantity(values[place], codes, channels, place))
    return values


def status_of_codes(codes: NDArray[Any], channels: Sequence[Channel]) -> dict[str, NDArray[np.int64]]:
    """Return the SensorStatus of each sample of the channels whose conversion has any that is not OK.

    SENSOR_OPEN is also each sample of a thermocouple, an RTD or a bridge at the lowest or the highest code, where an
    input drifts once a wire is off, and each of a thermocouple whose cold junction has no temperature.
    """
    found = {}
    for place, channel in enumerate(channels):
        if channel.conversion is None:
            continue
        volts = codes[place].astype(np.float64)
        _scale(volts, channel)
        status = channel.conversion.status(_quantity(volts, codes, channels, place))
        if status.any():
            found[channel.name] = status
    return found


def _scale(row: NDArray[np.float64], channel: Channel) -> None:
    """Apply the linear calibration in place."""
    if channel.scale != 1.0:
        row *= channel.scale
    if channel.offset != 0.0:
        row += channel.offset


def _quantity(
    volts: NDArray[np.float64], codes: NDArray[Any], channels: Sequence[Channel], place: int
) -> NDArray[np.float64]:
    """Return what the conversion of the channel at `place` takes; NaN where its input is open."""
    channel = channels[place]
    found = volts.copy()
    if isinstance(channel.conversion, Thermocouple):
        found = channel.conversion.compensated_mv(volts, _junction_celsius(channel.conversion, codes, channels))
    if isinstance(channel.conversion, OPENS):
        found[_at_an_end(codes[place], channel)] = np.nan
    return found


def _junction_celsius(conversion: Thermocouple, codes: NDArray[Any], channels: Sequence[Channel]) -> ArrayLike:
    """Return the temperature of the cold junction, °C; NaN where its input is open, or is not there."""
    if not isinstance(conversion.cold_junction, str):
        return conversion.cold_junction
    for row, channel in zip(codes, channels, strict=True):
        if channel.name == conversion.cold_junction and channel.cold_junction is None:
            celsius: NDArray[np.float64] = engineering(row[np.newaxis], [channel])[0]
            celsius[_at_an_end(row, channel)] = np.nan
            return celsius
    return np.nan


def _at_an_end(codes: NDArray[Any], channel: Channel) -> NDArray[np.bool_]:
    """Return which codes of a channel are the converter's lowest or highest; shape (samples,).

    Of a board that gives volts: those at an end of the range, or beyond it.
    """
    if channel.resolution_bits is None or channel.ends is None:
        return np.zeros(codes.shape, dtype=np.bool_)
    lowest, highest = channel.ends
    return np.asarray((codes <= lowest) | (codes >= highest))
