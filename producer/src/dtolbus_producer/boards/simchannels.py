"""What the inputs of a simulated DT9806 can do, and their calibration. Pure."""

from dtolbus.records import Channel
from dtolbus_producer.boards.calibration import THERMOCOUPLE_V, Scaling, check_unit, gain_for, voltage_channel
from dtolbus_producer.boards.simsignal import FULL_SCALE_V
from dtolbus_producer.tasks import ChannelConfig, TaskConfig, WrongKeyError

INPUTS = 16
GAINS = (1.0, 10.0, 100.0, 500.0)
"""Thermocouples get 100 by themselves: ±0.1 V."""
SCALING = Scaling(-FULL_SCALE_V, FULL_SCALE_V, 16, "offset_binary")

DEFAULT_RATE_HZ = 1000.0
_CLOCK_HZ = 24_000_000


def read_back_rate_hz(task: TaskConfig) -> float:
    """Return the rate of a channel that the board really takes: its clock divided by a whole number.

    The simulation's clock is as fast as it must be for a divider of at least 100.
    """
    channels = len(task.channels)
    asked_hz = (task.rate_hz or DEFAULT_RATE_HZ) * channels
    clock_hz = _CLOCK_HZ
    while clock_hz < 100 * asked_hz:
        clock_hz *= 10
    return clock_hz / round(clock_hz / asked_hz) / channels


def volts_channel(channel: ChannelConfig) -> Channel:
    """Return a voltage input with its calibration; a thermocouple gets the gain for 80 mV by itself."""
    range_v = channel.range or (THERMOCOUPLE_V if channel.thermocouple and channel.gain is None else None)
    gain = channel.gain or 1.0 if range_v is None else gain_for(range_v, FULL_SCALE_V, GAINS)
    return voltage_channel(channel, SCALING, gain)


def is_linearised(channel: ChannelConfig) -> bool:
    """Return whether the board itself gives a thermocouple's °C: where no cold junction is named."""
    return channel.thermocouple is not None and channel.cold_junction is None


def linearised_channel(channel: ChannelConfig) -> Channel:
    """Return a thermocouple input that the board itself gives in °C."""
    kind = f"thermocouple {channel.thermocouple}"
    return Channel(
        name=channel.name,
        unit="°C",
        physical=channel.physical,
        sensor=f"{kind}, {channel.sensor}" if channel.sensor else kind,
    )


def check_channel(key: str, channel: ChannelConfig, task: TaskConfig) -> None:
    """Raise WrongKeyError where a DT9806 has no such input, gain or range."""
    if not 0 <= (channel.physical or 0) < INPUTS:
        raise WrongKeyError(f"{key}.physical", f"{channel.physical}: a DT9806 has the inputs 0 to {INPUTS - 1}")
    check_unit(key, channel)
    if channel.gain is not None and channel.gain not in GAINS:
        raise WrongKeyError(f"{key}.gain", f"{channel.gain:g}: the gains of a DT9806 are {_listed(GAINS)}")
    ranges = tuple(FULL_SCALE_V / gain for gain in GAINS)
    if channel.range is not None and not 0 < channel.range <= FULL_SCALE_V:
        raise WrongKeyError(f"{key}.range", f"{channel.range:g} V: the ranges of a DT9806 are {_listed(ranges)} V")
    if is_linearised(channel) and task.kind == "blocks":
        raise WrongKeyError(
            f"{key}.thermocouple",
            f"{channel.thermocouple!r}: without cold_junction the simulated board reads them in polled tasks only: "
            f"give the task kind = 'readings' (left out it is 'blocks'), or the channel a cold_junction",
        )


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
