"""What of a task's channels can run, and may not be meant. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterator

from dtolbus.channels import Channel
from dtolbus.units.conversion import Thermocouple
from dtolbus_producer.checking.report import TaskReport
from dtolbus_producer.checking.spans import measured_span
from dtolbus_producer.tasks import ChannelConfig, TaskConfig

_USUAL = {
    "g": (0.5, 1e4),
    "m/s²": (5.0, 1e5),
    "m/s^2": (5.0, 1e5),
    "m/s2": (5.0, 1e5),
    "°C": (5.0, 3000.0),
    "bar": (1e-3, 1e4),
    "Pa": (1.0, 1e9),
    "kPa": (1e-3, 1e6),
    "MPa": (1e-6, 1e3),
    "kN": (1e-4, 1e5),
    "Nm": (1e-3, 1e7),
}
"""How far a sensor of that unit usually measures: a range that ends below, or beyond, is a wrong sensitivity."""
_MOST_V = 10.0
"""Volts for one unit that are still usual."""
_COARSE_CELSIUS = 1.0
_ROUNDING = 1e-6


def channel_warnings(asked: TaskConfig, task: TaskReport) -> Iterator[str]:
    """Yield a line for each; `asked` is the task's configuration."""
    yield from _shared_inputs(task.channels)
    yield from _wider_ranges(asked, task.channels)
    by_name = {channel.name: channel for channel in asked.channel_configs}
    for channel, step in zip(task.channels, task.resolutions, strict=True):
        given = by_name.get(channel.name)
        if given is not None:
            yield from _sensitivity(given, channel)
        if isinstance(channel.conversion, Thermocouple) and step is not None and step > _COARSE_CELSIUS:
            todo = "give it a smaller range or a higher gain (0.08 V hold every thermocouple)"
            yield f"channel {channel.name!r}: one code is {step:.2g} °C: {todo}"


def _shared_inputs(channels: tuple[Channel, ...]) -> Iterator[str]:
    names: dict[int, list[str]] = defaultdict(list)
    for channel in channels:
        if channel.physical is not None:
            names[channel.physical].append(channel.name)
    for physical, on_it in names.items():
        if len(on_it) > 1:
            yield f"channels {', '.join(map(repr, on_it))} are all on input {physical}: give each its own `physical`"


def _wider_ranges(asked: TaskConfig, channels: tuple[Channel, ...]) -> Iterator[str]:
    """Yield which ranges the board does not have; it takes its next one."""
    wanted = {channel.name: channel.range for channel in asked.channel_configs if channel.range is not None}
    wider: dict[tuple[float, tuple[float, float]], list[str]] = defaultdict(list)
    for channel in channels:
        range_v = wanted.get(channel.name)
        if range_v is not None and channel.range is not None and channel.range[1] > range_v * (1 + _ROUNDING):
            wider[range_v, channel.range].append(channel.name)
    for (range_v, (lowest_v, highest_v)), names in wider.items():
        what = "channel" if len(names) == 1 else "channels"
        yield (
            f"{what} {', '.join(map(repr, names))}: range {range_v:g} → {lowest_v:g} to {highest_v:g} V: "
            f"the board has no nearer one that holds it"
        )


def _sensitivity(given: ChannelConfig, channel: Channel) -> Iterator[str]:
    """Yield what is odd in the volts for one unit: often they are millivolts, or units for a volt."""
    volts = given.sensitivity_v
    if volts is None:
        return
    about = f"channel {given.name!r}: sensitivity_v = {volts:g} V for one {given.unit}"
    if volts < 0:
        yield f"{about} turns the sign: positive volts are negative values"
    span = measured_span(channel)
    if span is None and channel.range is not None:  # of a board's volts
        span = (channel.range[0] / volts, channel.range[1] / volts)
    most = math.nan if span is None else max(map(abs, span))
    least_usual, most_usual = _USUAL.get(given.unit or "", (0.0, math.inf))
    if (abs(volts) > _MOST_V and given.unit != "V") or most < least_usual:
        yield f"{about}: it measures ±{most:.3g} {given.unit} at most: 100 mV for one {given.unit} are 0.1"
    elif most > most_usual:
        yield f"{about}: its range is ±{most:.3g} {given.unit}: 100 mV for one {given.unit} are 0.1"
