"""What a channel's codes can come to, through its conversion. Pure."""

import msgspec
import numpy as np

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
    codes = 2**channel.resolution_bits
    first = 0 if channel.encoding == "offset_binary" else -codes // 2
    if channel.conversion is None:
        ends = (channel.offset + first * channel.scale, channel.offset + (first + codes) * channel.scale)
        return min(ends), max(ends)
    if channel.cold_junction is not None:
        at_room = Thermocouple(channel.conversion.kind, _ROOM_CELSIUS)  # type: ignore[union-attr]  # it has a junction
        channel = msgspec.structs.replace(channel, conversion=at_room)
    grid = np.unique(np.linspace(first, first + codes - 1, _POINTS).round()).astype(np.int64)
    values = engineering(grid[np.newaxis], [channel])[0]
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)
