"""What a board of libuldaq is asked for, and what it can do: options, checks, the channel list. Pure."""

import math
import re
from typing import Literal, NamedTuple

import msgspec

from dtolbus.records import Channel
from dtolbus_producer.boards.calibration import Scaling, check_unit, measuring, voltage_channel
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig, WrongKeyError, check_rate

DEFAULT_RATE_HZ = 1000.0

_RING_S = 5.0
_RING_BLOCKS = 8
_RING_BYTES = 64 << 20
"""The ring holds so many blocks at least, and so long as far as that is not more bytes."""
_VALUE_BYTES = 8

_RANGE_NAME = re.compile(r"(BIP|UNI)(\d*)(?:PT(\d+))?VOLTS")


class UlOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a board of libuldaq, `[device.options]`."""

    wiring: Literal["single_ended", "differential"] = "single_ended"
    """How the inputs are connected, all of them."""
    iepe: tuple[str, ...] = ()
    """Names of the channels whose sensors get the board's IEPE current; the others get none."""
    ac_coupled: tuple[str, ...] = ()
    """Names of the channels that are AC coupled; the others are DC coupled."""


class InputRange(NamedTuple):
    """A range of the board's."""

    number: int
    """Its number in uldaq.Range."""
    lowest_v: float
    highest_v: float


class Facts(NamedTuple):
    """What the library says of a board's analogue inputs, connected as the options say."""

    inputs: int
    bits: int
    ranges: tuple[InputRange, ...]
    lowest_hz: float
    highest_hz: float
    """Of one channel."""
    throughput_hz: float
    """Highest sum of the channels' rates."""
    has_clock: bool
    has_iepe: bool


class Entry(NamedTuple):
    """One channel, and the range that it is taken at."""

    channel: ChannelConfig
    range: InputRange

    @property
    def physical(self) -> int:
        """Number of the input."""
        return self.channel.physical or 0


def options_of(device: DeviceConfig) -> UlOptions:
    """Return the device's options."""
    return msgspec.convert(device.options, UlOptions, strict=True)


def range_named(name: str, number: int) -> InputRange | None:
    """Return the range that a name of uldaq.Range stands for (`BIPPT625VOLTS`: ±0.625 V); None where it is not in V."""
    found = _RANGE_NAME.fullmatch(name)
    if found is None:
        return None
    highest_v = float(f"{found[2] or 0}.{found[3] or 0}")
    return InputRange(number, -highest_v if found[1] == "BIP" else 0.0, highest_v)


def check_device(device: DeviceConfig) -> None:
    """Raise WrongKeyError where no board could do what is asked."""
    options = options_of(device)
    if len(device.tasks) > 1:
        names = ", ".join(repr(task.name) for task in device.tasks)
        raise WrongKeyError("task", f"the analogue inputs run one task at a time: keep one of {names}")
    for place, task in enumerate(device.tasks):
        _check_task(f"task[{place}]", task, options)


def channel_list(task: TaskConfig, options: UlOptions, facts: Facts) -> list[Entry]:
    """Return the channels with their ranges. Raises WrongKeyError where this board cannot do what is asked."""
    if not facts.inputs or not facts.ranges:
        raise WrongKeyError("options.wiring", f"{options.wiring!r}: the board has no such inputs")
    if options.iepe and not facts.has_iepe:
        raise WrongKeyError("options.iepe", f"{', '.join(options.iepe)}: the board gives no IEPE current")
    entries = [_entry(f"task[0].channels[{n}]", channel, facts) for n, channel in enumerate(task.channel_configs)]
    if task.kind == "blocks":
        _check_clock(task, facts)
    return entries


def ring_samples(task: TaskConfig, rate_hz: float) -> int:
    """Return how many samples of each channel the ring holds at that rate: whole blocks."""
    block = task.samples_in_block(rate_hz)
    most = _RING_BYTES // (block * len(task.channels) * _VALUE_BYTES)
    return block * max(_RING_BLOCKS, min(math.ceil(_RING_S * rate_hz / block), most))


def channel_of(entry: Entry, facts: Facts, *, gives_codes: bool) -> Channel:
    """Return the channel with its calibration, in V or in the unit that `sensitivity_v` gives."""
    scaling = Scaling(entry.range.lowest_v, entry.range.highest_v, facts.bits, "offset_binary")
    channel = voltage_channel(entry.channel, scaling, 1.0)
    if gives_codes:
        return channel
    return measuring(entry.channel, msgspec.structs.replace(channel, encoding="float"))


def _check_clock(task: TaskConfig, facts: Facts) -> None:
    if not facts.has_clock:
        raise WrongKeyError("task[0].kind", "'blocks': the board has no clock of its own; use 'readings'")
    rate_hz, channels = task.rate_hz or DEFAULT_RATE_HZ, len(task.channels)
    most_hz = min(facts.highest_hz, facts.throughput_hz / channels)
    if not facts.lowest_hz <= rate_hz <= most_hz:
        raise WrongKeyError(
            "task[0].rate_hz",
            f"{rate_hz:g} Hz on {channels} channels: the board takes {facts.lowest_hz:g} to {most_hz:g} Hz",
        )


def _entry(key: str, channel: ChannelConfig, facts: Facts) -> Entry:
    if (channel.physical or 0) >= facts.inputs:
        raise WrongKeyError(f"{key}.physical", f"{channel.physical}: the board has the inputs 0 to {facts.inputs - 1}")
    fitting = [limits for limits in facts.ranges if limits.highest_v >= (channel.range or 0.0)]
    if not fitting:
        most_v = max(limits.highest_v for limits in facts.ranges)
        raise WrongKeyError(f"{key}.range", f"{channel.range:g} V: the board takes {most_v:g} V at most")
    both_signs = [limits for limits in fitting if limits.lowest_v < 0] or fitting
    pick = max if channel.range is None else min
    return Entry(channel, pick(both_signs, key=lambda limits: limits.highest_v))


def _check_task(key: str, task: TaskConfig, options: UlOptions) -> None:
    check_rate(f"{key}.rate_hz", task.rate_hz)
    if not task.channels:
        raise WrongKeyError(f"{key}.channels", f"the task {task.name!r} has no channels: name at least one")
    names = [channel.name for channel in task.channel_configs]
    for option, given in (("iepe", options.iepe), ("ac_coupled", options.ac_coupled)):
        unknown = [name for name in given if name not in names]
        if unknown:
            why = f"{unknown[0]!r} is no channel of the task {task.name!r}; there are {', '.join(names)}"
            raise WrongKeyError(f"options.{option}", why)
        if given and task.kind == "readings":
            raise WrongKeyError(f"options.{option}", f"{', '.join(given)}: only a clocked task switches it")
    taken: set[int | None] = set()
    for place, channel in enumerate(task.channel_configs):
        _check_channel(f"{key}.channels[{place}]", channel, taken)
        taken.add(channel.physical)


def _check_channel(key: str, channel: ChannelConfig, taken: set[int | None]) -> None:
    if channel.gain is not None:
        raise WrongKeyError(f"{key}.gain", f"{channel.gain:g}: the boards of libuldaq have ranges: give range")
    if channel.thermocouple is not None:
        raise WrongKeyError(
            f"{key}.thermocouple",
            f"{channel.thermocouple!r}: only voltages are taken from this board; take a transmitter with a voltage "
            f"output (unit = '°C', sensitivity_v), or a board with thermocouple inputs: docs/boards.md",
        )
    check_unit(key, channel)
    if (channel.physical or 0) < 0:
        raise WrongKeyError(f"{key}.physical", f"{channel.physical}: inputs are numbered from 0")
    if channel.physical in taken:
        raise WrongKeyError(
            f"{key}.physical", f"{channel.physical}: an input is scanned once; it has a channel already"
        )
    if channel.range is not None and not (channel.range > 0 and math.isfinite(channel.range)):
        raise WrongKeyError(f"{key}.range", f"{channel.range:g}: give a number above 0")
