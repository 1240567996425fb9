"""The options of the simulated board, and whether they and a task can be. Pure."""

import math
from typing import Literal

import msgspec

from dtolbus_producer.boards.simchannels import DEFAULT_RATE_HZ, check_channel
from dtolbus_producer.boards.simsensors import IsOpen
from dtolbus_producer.conversions import check_cold_junctions
from dtolbus_producer.tasks import DeviceConfig, TaskConfig, WrongKeyError, check_between, check_rate, check_speed

_LONGEST_S = 1e10
_ROUNDING = 1e-9
_BOUNDS = {
    "seed": (0, 2**63 - 1),
    "throughput_hz": (1e-6, 1e12),
    "drift_ppm": (-1e5, 1e5),
    "lateness_ms": (0.0, 60_000.0),
    "overrun_at_s": (0.0, _LONGEST_S),
    "lose_device_at_s": (0.0, _LONGEST_S),
    "lost_for_s": (0.0, _LONGEST_S),
}
"""What can be meant by an option: lowest and highest."""


class OpenThermocouple(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A thermocouple that is open for a time."""

    channel: str
    from_s: float = 0.0
    """Since the start of the run, s."""
    to_s: float = math.inf


class SimOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a simulated board, `[device.options]`."""

    seed: int = 0
    speed: float | Literal["max"] = 1.0
    """How fast a clocked task runs: 1 = its rate, N = N times as fast, `max` = as fast as the journal takes it."""
    throughput_hz: float = 50_000.0
    """Highest sum of the channels' rates that it takes, samples a second; any number that the machine can do."""
    drift_ppm: float = 50.0
    """How far the board's clock is off its nominal rate, parts in a million."""
    lateness_ms: float = 60.0
    """Callbacks are up to so much late, ms."""
    overrun_at_s: float | None = None
    """Lose one block after so much time, s."""
    lose_device_at_s: float | None = None
    """Go away after so much time, once, s."""
    lost_for_s: float = 2.0
    """How long the board stays away, s."""
    open_thermocouple: OpenThermocouple | None = None

    def open_at(self, rate_hz: float) -> dict[str, IsOpen]:
        """Return, for the channel that is open for a time, at which of a run's samples it is."""
        broken = self.open_thermocouple
        if broken is None:
            return {}
        start, end = broken.from_s, broken.to_s
        return {broken.channel: lambda samples: (samples / rate_hz >= start) & (samples / rate_hz < end)}


def options_of(device: DeviceConfig) -> SimOptions:
    """Return the device's options. Raises WrongKeyError where one cannot be meant."""
    options = msgspec.convert(device.options, SimOptions, strict=True)
    check_speed("options.speed", options.speed)
    for name, bounds in _BOUNDS.items():
        value = getattr(options, name)
        if value is not None:
            check_between(f"options.{name}", value, *bounds)
    broken = options.open_thermocouple
    if broken is not None:
        check_between("options.open_thermocouple.from_s", broken.from_s, 0.0, _LONGEST_S)
        if not broken.to_s > broken.from_s:
            why = f"{broken.to_s:g}: give a time after from_s = {broken.from_s:g}, or leave it out"
            raise WrongKeyError("options.open_thermocouple.to_s", why)
    return options


def check_task(key: str, task: TaskConfig, options: SimOptions) -> None:
    """Raise WrongKeyError where a DT9806 can never run the task; `key` is its path."""
    check_rate(f"{key}.rate_hz", task.rate_hz)
    if not task.channels:
        raise WrongKeyError(f"{key}.channels", f"the task {task.name!r} has no channels: name at least one")
    for place, channel in enumerate(task.channel_configs):
        check_channel(f"{key}.channels[{place}]", channel, task)
    check_cold_junctions(key, task.channel_configs)
    rate_hz = task.rate_hz or DEFAULT_RATE_HZ
    total_hz = rate_hz * len(task.channels)
    if task.kind == "blocks" and total_hz > options.throughput_hz * (1 + _ROUNDING):
        raise WrongKeyError(
            f"{key}.rate_hz",
            f"{rate_hz:.10g} Hz on {len(task.channels)} channels are {total_hz:.10g} samples/s; the board does "
            f"{options.throughput_hz:.10g}: at most {options.throughput_hz / len(task.channels):.10g} Hz, or let the "
            f"simulated board do more: [device.options] throughput_hz = {math.ceil(total_hz)}",
        )
    broken = options.open_thermocouple
    names = [channel.name for channel in task.channel_configs if channel.thermocouple]
    if broken is not None and broken.channel not in names:
        known = ", ".join(names) or "none"
        raise WrongKeyError("options.open_thermocouple.channel", f"{broken.channel!r}: thermocouples here are {known}")
