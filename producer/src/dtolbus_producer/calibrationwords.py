"""What a new calibration changes, in the words in which it was configured. Pure."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dtolbus.channels import Channel
from dtolbus_producer.boards.calibration import linear
from dtolbus_producer.checking.text import show_conversion

WARNED_BEYOND = 5.0
"""A value that becomes so many times what it was, or less, in the same unit, is told apart."""
REFUSED_BEYOND = 20.0
"""So far no sensitivity is off that was only measured anew: the unit of one of the two is meant otherwise."""


class Change(NamedTuple):
    """What becomes of one channel's values."""

    name: str
    words: str
    times: float | None
    """The largest of new over old value and its inverse, in the same unit; None where that is not to be said."""

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.name}: {self.words}"


def changes_in_words(old: Iterable[Channel], new: Iterable[Channel]) -> Iterator[Change]:
    """Yield what changes of the channels that differ."""
    for before, after in zip(old, new, strict=True):
        if before == after:
            continue
        parts = [f"{described(before)} → {described(after)}", _values(before, after)]
        if before.sensor != after.sensor:
            parts.append(f"sensor {before.sensor or 'none'} → {after.sensor or 'none'}")
        is_linear = before.conversion is None and after.conversion is None
        ratio = abs(after.scale / before.scale) if is_linear and before.unit == after.unit else None
        times = max(ratio, 1 / ratio) if ratio and math.isfinite(1 / ratio) else None
        yield Change(before.name, ", ".join(filter(None, parts)), times)


def described(channel: Channel) -> str:
    """Return how the channel's values come about: `0.1 V/g`, its conversion, or from its codes."""
    unit = channel.unit or "units"
    if channel.conversion is not None:
        return f"{show_conversion(channel.conversion)}, {unit}"
    sensitivity_v, per = sensitivity_of(channel), f"({unit})" if "/" in unit else unit
    if sensitivity_v is not None:
        return "V" if unit == "V" and math.isclose(sensitivity_v, 1.0) else f"{sensitivity_v:.6g} V/{per}"
    return f"code × {channel.scale:.6g} + {channel.offset:.6g} {unit}"


def sensitivity_of(channel: Channel) -> float | None:
    """Return the volts for one unit that make the channel's scale and offset; None where none do."""
    if channel.encoding != "float" and (channel.range is None or channel.resolution_bits is None):
        return None
    volts_scale, volts_offset = linear(channel, 1.0)
    sensitivity_v = volts_scale / channel.scale
    is_so = math.isclose(channel.offset * sensitivity_v, volts_offset, rel_tol=1e-9, abs_tol=abs(volts_scale) * 1e-6)
    return sensitivity_v if is_so and math.isfinite(sensitivity_v) else None


def _values(before: Channel, after: Channel) -> str:
    if before.conversion is not None or after.conversion is not None:
        return ""
    factor = after.scale / before.scale
    added = after.offset - before.offset * factor
    is_small = abs(added) <= 1e-6 * abs(after.scale)
    plus = "" if is_small else f" {'+' if added > 0 else '-'} {abs(added):.5g}"
    return f"values × {factor:.5g}{plus}"


def warning_of(change: Change, sensitivity_v: float | None) -> str | None:
    """Return what to say where the values change by more than a new measurement of a sensor would; else None.

    `sensitivity_v` is what was given, where it was.
    """
    if change.times is None or change.times <= WARNED_BEYOND:
        return None
    given = "is there another unit in play?"
    if sensitivity_v is not None:
        given = "a sensitivity is the volts for one unit"
        given += f": {sensitivity_v:g} mV are {sensitivity_v / 1000:g}" if abs(sensitivity_v) >= 1 else ""
    return f"the values of {change.name} change {change.times:.4g} times; {given}"
