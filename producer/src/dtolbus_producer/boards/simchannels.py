"""What the inputs of a simulated DT9806 can do, and their calibration. Pure."""

import math

from dtolbus.records import Channel
from dtolbus_producer.boards.simsignal import CODES, FULL_SCALE_V
from dtolbus_producer.tasks import ChannelConfig, TaskConfig, WrongKeyError

INPUTS = 16
GAINS = (1.0, 2.0, 4.0, 8.0)

_CLOCK_HZ = 24_000_000


def read_back_rate_hz(task: TaskConfig) -> float:
    """Return the rate of a channel that the board really takes: its clock divided by a whole number.

    The simulation's clock is as fast as it must be for a divider of at least 100.
    """
    channels = len(task.channels)
    asked_hz = (task.rate_hz or 1000.0) * channels
    clock_hz = _CLOCK_HZ
    while clock_hz < 100 * asked_hz:
        clock_hz *= 10
    return clock_hz / round(clock_hz / asked_hz) / channels


def volts_channel(channel: ChannelConfig) -> Channel:
    """Return a voltage input with its calibration, in V or in the unit that `sensitivity_v` gives."""
    gain = _gain(channel)
    per_unit = channel.sensitivity_v or 1.0
    limit_v = FULL_SCALE_V / gain
    return Channel(
        name=channel.name,
        unit=channel.unit or "V",
        scale=2 * limit_v / CODES / per_unit,
        offset=-limit_v / per_unit,
        range=(-limit_v, limit_v),
        gain=gain,
        encoding="offset_binary",
        resolution_bits=16,
        physical=channel.physical,
        sensor=channel.sensor,
    )


def thermocouple_channel(channel: ChannelConfig) -> Channel:
    """Return a thermocouple input, given in °C."""
    kind = f"thermocouple {channel.thermocouple}"
    return Channel(
        name=channel.name,
        unit="°C",
        physical=channel.physical,
        sensor=f"{kind}, {channel.sensor}" if channel.sensor else kind,
    )


def _gain(channel: ChannelConfig) -> float:
    if channel.range is None:
        return channel.gain or 1.0
    return max(gain for gain in GAINS if gain == 1.0 or FULL_SCALE_V / gain >= channel.range)


def check_channel(key: str, channel: ChannelConfig, task: TaskConfig) -> None:
    """Raise WrongKeyError where a DT9806 has no such input, gain or range."""
    if not 0 <= (channel.physical or 0) < INPUTS:
        raise WrongKeyError(f"{key}.physical", f"{channel.physical}: a DT9806 has the inputs 0 to {INPUTS - 1}")
    if channel.gain is not None and channel.range is not None:
        raise WrongKeyError(f"{key}.gain", "give the gain or the range, not both")
    if channel.gain is not None and channel.gain not in GAINS:
        raise WrongKeyError(f"{key}.gain", f"{channel.gain:g}: the gains of a DT9806 are 1, 2, 4, 8")
    if channel.range is not None and not 0 < channel.range <= FULL_SCALE_V:
        raise WrongKeyError(f"{key}.range", f"{channel.range:g} V: the ranges of a DT9806 are 10, 5, 2.5, 1.25 V")
    if channel.thermocouple and task.kind == "blocks":
        raise WrongKeyError(f"{key}.thermocouple", "the simulated board reads thermocouples in polled tasks only")
    if channel.unit not in (None, "V") and channel.sensitivity_v is None and channel.thermocouple is None:
        raise WrongKeyError(f"{key}.unit", f"{channel.unit!r} from volts: give sensitivity_v, the volts for one unit")
    if channel.sensitivity_v is not None and not (channel.sensitivity_v and math.isfinite(channel.sensitivity_v)):
        raise WrongKeyError(f"{key}.sensitivity_v", f"{channel.sensitivity_v}: give the volts for one unit, not 0")
