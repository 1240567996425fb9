"""What a DT-Open Layers A/D subsystem is asked for, and what it can do: options, checks, the channel list. Pure."""

import math
from typing import Annotated, Literal, NamedTuple

import msgspec

from dtolbus_producer.boards.calibration import THERMOCOUPLE_V, check_unit, gain_for
from dtolbus_producer.conversions import CELSIUS, check_cold_junctions, conversion_key
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig, WrongKeyError, check_rate

DEFAULT_RATE_HZ = 1000.0
COLD_JUNCTION = "cold_junction"
"""Name of the channel that is added for thermocouples where the task does not list it."""

_COLD_JUNCTION_V = 0.01
"""Volts for one °C of the board's own sensor (DT9805/06: UM9800, "Connecting Thermocouple Inputs")."""
_LEAST_BUFFERS = 8
_MOST_BUFFERS = 256
_BUFFERED_S = 2.0
"""How much the board's driver can hold before it stops for want of a buffer, s, where the options do not say."""


class DtOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a Data Translation board, `[device.options]`."""

    element: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Which of the board's A/D subsystems."""
    wiring: Literal["single_ended", "differential"] = "single_ended"
    """How the inputs are connected, all of them."""
    clock: Literal["internal", "external"] = "internal"
    """`external`: the task's `rate_hz` says what the clock at the board's connector comes to."""
    external_divider: Annotated[int, msgspec.Meta(ge=1)] = 1
    """By how much the board divides the external clock."""
    trigger: Literal["software", "external", "rising", "falling"] = "software"
    """What starts a clocked task: at once; the board's trigger input; `threshold_v` passed on `threshold_input`."""
    threshold_input: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Number of the input that is watched."""
    threshold_v: float | None = None
    cold_junction: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of the input that the cold junction's sensor is on."""
    buffers: Annotated[int, msgspec.Meta(ge=3, le=_MOST_BUFFERS)] | None = None
    """How many blocks the board's driver can hold; None: two seconds' worth, at least eight."""

    @property
    def is_triggered(self) -> bool:
        """Whether a clocked task waits for something to happen at the board."""
        return self.trigger != "software"


class Facts(NamedTuple):
    """What the driver says of an A/D subsystem."""

    inputs: int
    gains: tuple[float, ...]
    """Empty where the driver does not tell."""
    full_scale_v: float
    """Highest input at gain 1, V."""
    list_size: int
    """How many entries the channel list has."""
    highest_hz: float | None
    """Highest frequency of its clock."""
    is_simultaneous: bool
    """All inputs are converted at each tick of the clock; else one after another, one at each tick."""
    gives_floats: bool
    has_thermocouples: bool

    def clock_hz(self, rate_hz: float, channels: int) -> float:
        """Return the clock that takes each of the channels `rate_hz` times a second."""
        return rate_hz if self.is_simultaneous else rate_hz * channels

    def rate_hz(self, clock_hz: float, channels: int) -> float:
        """Return how often each of the channels is taken at that clock."""
        return clock_hz if self.is_simultaneous else clock_hz / channels

    def offset_ns(self, place: int, clock_hz: float) -> int:
        """Return when the channel at that place of the list is taken after the first, ns."""
        return 0 if self.is_simultaneous else round(place * 1e9 / clock_hz)


class Entry(NamedTuple):
    """One entry of the channel list."""

    channel: ChannelConfig
    gain: float


def options_of(device: DeviceConfig) -> DtOptions:
    """Return the device's options."""
    return msgspec.convert(device.options, DtOptions, strict=True)


def check_device(device: DeviceConfig) -> None:
    """Raise WrongKeyError where no board could do what is asked."""
    options = options_of(device)
    if len(device.tasks) > 1:
        names = ", ".join(repr(task.name) for task in device.tasks)
        raise WrongKeyError("task", f"an A/D subsystem runs one task at a time: keep one of {names}")
    _check_trigger(options)
    if options.clock == "internal" and options.external_divider != 1:
        raise WrongKeyError("options.external_divider", f"{options.external_divider}: only with clock = 'external'")
    for place, task in enumerate(device.tasks):
        _check_task(f"task[{place}]", task, options)


def channel_list(task: TaskConfig, options: DtOptions, facts: Facts) -> list[Entry]:
    """Return the channel list, with the cold junction where thermocouples need one that the task does not list.

    Raises WrongKeyError where the subsystem cannot do it.
    """
    channels = with_cold_junction(task, options)
    entries = [_entry(f"task[0].channels[{place}]", channel, facts) for place, channel in enumerate(channels)]
    if facts.list_size and len(entries) > facts.list_size:
        raise WrongKeyError("task[0].channels", f"{len(entries)} channels: the board takes {facts.list_size} at most")
    rate_hz = task.rate_hz or DEFAULT_RATE_HZ
    clock_hz = facts.clock_hz(rate_hz, len(entries))
    if task.kind == "blocks" and facts.highest_hz is not None and clock_hz > facts.highest_hz * (1 + 1e-9):
        most_hz = facts.rate_hz(facts.highest_hz, len(entries))
        raise WrongKeyError(
            "task[0].rate_hz",
            f"{rate_hz:g} Hz on {len(entries)} channels need a clock of {clock_hz:g} Hz; the board does "
            f"{facts.highest_hz:g}: at most {most_hz:g} Hz",
        )
    return entries


def check_threshold(options: DtOptions, entries: list[Entry], lowest_v: float, highest_v: float) -> None:
    """Raise WrongKeyError where the input that is watched can never pass `threshold_v`; its range is that at gain 1."""
    if options.threshold_v is None or options.threshold_input is None:
        return
    watched = [entry for entry in entries if entry.channel.physical == options.threshold_input]
    gain = watched[0].gain if watched else 1.0
    if not lowest_v / gain < options.threshold_v < highest_v / gain:
        what = f"the input {options.threshold_input} at gain {gain:g} takes"
        span = f"{lowest_v / gain:g} to {highest_v / gain:g} V"
        raise WrongKeyError("options.threshold_v", f"{options.threshold_v:g} V: {what} {span}: give what lies between")


def buffer_count(options: DtOptions, block_s: float) -> int:
    """Return how many buffers the driver gets."""
    enough = math.ceil(_BUFFERED_S / block_s)
    return options.buffers or min(max(enough, _LEAST_BUFFERS), _MOST_BUFFERS)


def with_cold_junction(task: TaskConfig, options: DtOptions) -> list[ChannelConfig]:
    """Return the channels, each thermocouple with the name of its cold junction; that is added where none is listed.

    The channel on the cold junction's input measures with the board's own sensor, unless it says otherwise.
    """
    channels = list(task.channel_configs)
    if _lacks_cold_junction(task, options):
        channels.append(ChannelConfig(COLD_JUNCTION, physical=options.cold_junction, gain=1.0, sensor="cold junction"))
    own = next((channel.name for channel in channels if channel.physical == options.cold_junction), None)
    channels = [
        msgspec.structs.replace(channel, cold_junction=own)
        if channel.thermocouple and channel.cold_junction is None
        else channel
        for channel in channels
    ]
    is_used = own in [channel.cold_junction for channel in channels]
    return [
        msgspec.structs.replace(channel, unit=CELSIUS, sensitivity_v=_COLD_JUNCTION_V)
        if is_used and channel.name == own and _is_plain(channel)
        else channel
        for channel in channels
    ]


def _is_plain(channel: ChannelConfig) -> bool:
    return channel.unit is None and channel.sensitivity_v is None and conversion_key(channel) is None


def _entry(key: str, channel: ChannelConfig, facts: Facts) -> Entry:
    if facts.inputs and (channel.physical or 0) >= facts.inputs:
        raise WrongKeyError(f"{key}.physical", f"{channel.physical}: the board has the inputs 0 to {facts.inputs - 1}")
    if channel.thermocouple and not facts.has_thermocouples:
        raise WrongKeyError(f"{key}.thermocouple", f"{channel.thermocouple!r}: the board takes no thermocouples")
    known = ", ".join(f"{gain:g}" for gain in facts.gains)
    if channel.gain is not None and facts.gains and channel.gain not in facts.gains:
        raise WrongKeyError(f"{key}.gain", f"{channel.gain:g}: the gains of the board are {known}")
    if channel.range is not None and channel.range > facts.full_scale_v:
        raise WrongKeyError(f"{key}.range", f"{channel.range:g} V: the board takes {facts.full_scale_v:g} V at most")
    if channel.gain is not None:
        return Entry(channel, channel.gain)
    wanted_v = channel.range or (THERMOCOUPLE_V if channel.thermocouple else facts.full_scale_v)
    if wanted_v < facts.full_scale_v and not facts.gains:
        what = f"±{wanted_v:g} V of ±{facts.full_scale_v:g} V"
        raise WrongKeyError(f"{key}.gain", f"it is missing: {what} need one, and the driver does not tell its gains")
    return Entry(channel, gain_for(wanted_v, facts.full_scale_v, facts.gains))


def _lacks_cold_junction(task: TaskConfig, options: DtOptions) -> bool:
    channels = task.channel_configs
    is_needed = any(channel.thermocouple and channel.cold_junction is None for channel in channels)
    return is_needed and all(channel.physical != options.cold_junction for channel in channels)


def _check_trigger(options: DtOptions) -> None:
    is_threshold = options.trigger in ("rising", "falling")
    for name, value in (("threshold_input", options.threshold_input), ("threshold_v", options.threshold_v)):
        if is_threshold and value is None:
            raise WrongKeyError(f"options.{name}", f"trigger = {options.trigger!r} needs it")
        if not is_threshold and value is not None:
            raise WrongKeyError(f"options.{name}", f"{value:g}: only with trigger = 'rising' or 'falling'")


def _check_task(key: str, task: TaskConfig, options: DtOptions) -> None:
    check_rate(f"{key}.rate_hz", task.rate_hz)
    if not task.channels:
        raise WrongKeyError(f"{key}.channels", f"the task {task.name!r} has no channels: name at least one")
    if task.kind == "readings" and options.is_triggered:
        raise WrongKeyError("options.trigger", f"{options.trigger!r}: the polled task {task.name!r} has no trigger")
    if task.kind == "readings" and options.clock == "external":
        raise WrongKeyError("options.clock", f"'external': the polled task {task.name!r} has no clock of the board's")
    if options.clock == "external" and task.rate_hz is None:
        raise WrongKeyError(f"{key}.rate_hz", "an external clock's rate is not known to the board: give it")
    for place, channel in enumerate(task.channel_configs):
        _check_channel(f"{key}.channels[{place}]", channel, options)
    if _lacks_cold_junction(task, options) and COLD_JUNCTION in [channel.name for channel in task.channel_configs]:
        why = f"the cold junction is on input {options.cold_junction}: give the channel {COLD_JUNCTION!r} that number"
        raise WrongKeyError("options.cold_junction", why)
    check_cold_junctions(key, with_cold_junction(task, options))


def _check_channel(key: str, channel: ChannelConfig, options: DtOptions) -> None:
    check_unit(key, channel)
    if (channel.physical or 0) < 0:
        raise WrongKeyError(f"{key}.physical", f"{channel.physical}: inputs are numbered from 0")
    for name, value in (("gain", channel.gain), ("range", channel.range)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise WrongKeyError(f"{key}.{name}", f"{value:g}: give a number above 0")
    if channel.thermocouple is None:
        return
    if options.wiring != "differential":
        raise WrongKeyError(f"{key}.thermocouple", "thermocouples need options.wiring = 'differential'")
    if channel.physical == options.cold_junction and channel.cold_junction is None:
        why = f"{channel.physical} is the cold junction's input: number the thermocouple (see options.cold_junction)"
        raise WrongKeyError(f"{key}.physical", why)
