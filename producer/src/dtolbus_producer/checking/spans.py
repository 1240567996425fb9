"""What a channel's codes can come to, through its conversion. Pure."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.channels import Channel, engineering
from dtolbus.units.conversion import Thermocouple

_POINTS = 4097
_ROOM_CELSIUS = 25.0
"""Taken for a cold junction that is measured."""


def measured_span(channel: Channel) -> tuple[float, float] | None:
    """Return the lowest and the highest value, in the channel's unit; NaN where no code gives one.

    None where that cannot be told.
    """
    if channel.encoding == "float" or channel.resolution_bits is None:
        return None
    if channel.conversion is None:
        first, codes = _codes(channel.resolution_bits, channel.encoding)
        ends = (channel.offset + first * channel.scale, channel.offset + (first + codes) * channel.scale)
        return min(ends), max(ends)
    values = _values(channel, _grid(channel))
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)


def resolution(channel: Channel) -> float | None:
    """Return by how much the value changes from one code to the next, in the channel's unit.

    The median where that varies; None where that cannot be told, or no code gives a value.
    """
    if channel.encoding == "float" or channel.resolution_bits is None:
        return None
    if channel.conversion is None:
        return abs(channel.scale)
    grid = _grid(channel)[:-1]
    steps = np.abs(_values(channel, grid + 1) - _values(channel, grid))
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if steps.size else None


def _values(channel: Channel, codes: NDArray[np.int64]) -> NDArray[np.float64]:
    if channel.cold_junction is not None:
        at_room = Thermocouple(channel.conversion.kind, _ROOM_CELSIUS)  # type: ignore[union-attr]  # it has a junction
        channel = msgspec.structs.replace(channel, conversion=at_room)
    values: NDArray[np.float64] = engineering(codes[np.newaxis], [channel])[0]
    return values


def _grid(channel: Channel) -> NDArray[np.int64]:
    """Return codes over the whole range, and closely around 0 V, where thermocouples have all of theirs."""
    first, codes = _codes(channel.resolution_bits or 0, channel.encoding)
    whole = np.linspace(first, first + codes - 1, _POINTS).round()
    zero = first + codes / 2 if channel.range is None or channel.range[0] < 0 else first
    near = zero + np.arange(-64, 64)
    inside = near[(near >= first) & (near < first + codes)]
    return np.unique(np.concatenate([whole, np.floor(inside)])).astype(np.int64)


def _codes(bits: int, encoding: str) -> tuple[int, int]:
    """Return the lowest code, and how many there are."""
    codes = int(math.pow(2, bits))
    return (0 if encoding == "offset_binary" else -codes // 2), codes
