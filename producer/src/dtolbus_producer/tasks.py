"""What a device and its tasks are asked to do: the part of the configuration that boards read."""

import math
import sys
from typing import Any, Literal

import msgspec

from dtolbus.records import RunKind
from dtolbus.units.its90 import Kind
from dtolbus_producer.sensorconfig import BridgeConfig, RtdConfig

DEFAULT_BLOCK_S = 0.1
"""Length of a block where the configuration names none, s; shorter where it would be too large."""
_DEFAULT_BLOCK_BYTES = 1 << 20
MAX_BLOCK_BYTES = 32 << 20
"""A block must fit into one message, whatever its values' type."""
_VALUE_BYTES = 8
_SPEED = (1e-6, 1e6)
_ROUNDING = 1e-6
"""Part of a sample by which a product of duration and rate may be off."""

OnError = Literal["return", "raise", "skip"]
"""A poll that fails is a reading with the error; ends the run and the acquisition; is an event and no reading."""


class WrongKeyError(Exception):
    """A key of a device's configuration has a value that cannot be; `key` is its path below the device."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class ChannelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One channel, `[[device.task.channels]]` or just its name."""

    name: str
    physical: int | None = None
    """Number of the input on the board; None: the channel's place in the list."""
    range: float | None = None
    """Highest input, V; the board takes the smallest range of its own that holds it."""
    gain: float | None = None
    unit: str | None = None
    """What is measured; other than the input's own unit it needs `sensitivity_v` or a conversion."""
    sensitivity_v: float | None = None
    """Volts for one `unit`."""
    sensor: str | None = None
    """What is connected: a model, a serial number."""
    thermocouple: Kind | None = None
    cold_junction: str | float | None = None
    """The channel that measures the thermocouple's cold junction, or a fixed °C; None: as the board does it."""
    rtd: RtdConfig | None = None
    bridge: BridgeConfig | None = None
    polynomial: tuple[float, ...] | None = None
    """Coefficients, ascending, of volts."""
    table: tuple[tuple[float, float], ...] | None = None
    """[volts, what is measured], linear between; NaN outside."""


class TaskConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One task, `[[device.task]]`."""

    name: str
    kind: RunKind = "blocks"
    rate_hz: float | None = None
    """Samples a second and channel, or polls a second; None: the board's own."""
    block_samples: int | None = None
    """Samples a channel in a block."""
    block_s: float | None = None
    """Length of a block, s; instead of `block_samples`."""
    channels: tuple[ChannelConfig | str, ...] = ()
    """Where the board knows its channels (playback), none are all."""
    samples: int | None = None
    """Samples a channel (polls) after which the task ends by itself."""
    duration_s: float | None = None
    """The same as a time, s."""
    on_error: OnError | None = None
    """Polled tasks: what becomes of a poll that fails; None: `return`."""

    @property
    def channel_configs(self) -> tuple[ChannelConfig, ...]:
        """The channels, those given by name alone too; each with its number on the board."""
        full = [ChannelConfig(channel) if isinstance(channel, str) else channel for channel in self.channels]
        return tuple(
            msgspec.structs.replace(channel, physical=place) if channel.physical is None else channel
            for place, channel in enumerate(full)
        )

    def samples_asked(self, rate_hz: float) -> int | None:
        """Return after how many samples (polls) the task ends at the rate the board gives; None: never by itself."""
        if self.duration_s is None:
            return self.samples
        samples = self.duration_s * rate_hz
        # a clocked sample is there at its period's end, and must not come after the time; a poll comes at its start
        whole = round(samples) if self.kind == "readings" else math.floor(samples + _ROUNDING)
        return max(1, whole if self.samples is None else min(whole, self.samples))

    @property
    def is_too_short(self) -> bool:
        """Whether its time ends before the first clocked sample is there, as far as the rate is known."""
        if self.kind == "readings" or self.duration_s is None or self.rate_hz is None:
            return False
        return self.duration_s * self.rate_hz < 1 - _ROUNDING

    def samples_in_block(self, rate_hz: float) -> int:
        """Return how many samples of a channel make a block at the rate the board gives: no more than are asked."""
        return min(self._whole_block(rate_hz), self.samples_asked(rate_hz) or sys.maxsize)

    def _whole_block(self, rate_hz: float) -> int:
        if self.block_samples is not None:
            return self.block_samples
        if self.block_s is not None:
            return max(1, round(self.block_s * rate_hz))
        most = _DEFAULT_BLOCK_BYTES // (_VALUE_BYTES * max(1, len(self.channels)))
        return max(1, min(round(DEFAULT_BLOCK_S * rate_hz), most))

    def check_block(self, key: str, rate_hz: float) -> None:
        """Raise WrongKeyError where a block is larger than a message may be; `key` is the task's path."""
        samples, channels = self._whole_block(rate_hz), max(1, len(self.channels))
        most = MAX_BLOCK_BYTES // (_VALUE_BYTES * channels)
        if samples > most:
            name = "block_s" if self.block_samples is None else "block_samples"
            raise WrongKeyError(
                f"{key}.{name}", f"a block of {samples} samples of {channels} channels: {most} samples are the most"
            )


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One device, `[[device]]`: a board and its tasks."""

    name: str
    board: str = "sim"
    """`sim`, `playback:PATH`, …: a name of BOARDS, and after a colon what it needs to know."""
    options: dict[str, Any] = {}
    """The board's own options, `[device.options]`."""
    tasks: tuple[TaskConfig, ...] = msgspec.field(default=(), name="task")
    reconnect_s: float = 60.0
    """How long a board that went away is waited for, s."""

    @property
    def board_kind(self) -> str:
        """The board's name in BOARDS."""
        return self.board.partition(":")[0]

    @property
    def board_argument(self) -> str:
        """What follows the colon in `board`."""
        return self.board.partition(":")[2]


def check_between(key: str, value: float, lowest: float, highest: float) -> None:
    """Raise WrongKeyError where the number is not in [lowest, highest]; NaN is not."""
    if not lowest <= value <= highest:
        raise WrongKeyError(key, f"{value:g}: give {lowest:g} to {highest:g}")


def check_speed(key: str, speed: float | str) -> None:
    """Raise WrongKeyError where a simulation or a recording can never run that fast."""
    if speed != "max" and not (isinstance(speed, int | float) and _SPEED[0] <= speed <= _SPEED[1]):
        raise WrongKeyError(key, f"{speed}: give {_SPEED[0]:g} to {_SPEED[1]:g}, or 'max'")


def check_rate(key: str, rate_hz: float | None) -> None:
    """Raise WrongKeyError where the rate is no positive, finite number."""
    if rate_hz is not None and not (rate_hz > 0 and math.isfinite(rate_hz)):
        raise WrongKeyError(key, f"{rate_hz} is no rate: give a number above 0")
