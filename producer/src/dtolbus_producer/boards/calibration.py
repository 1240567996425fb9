"""From the code of an analogue input to volts, and on to what its sensor measures. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from dtolbus.channels import Channel, engineering, status_of_codes
from dtolbus_producer.boards import Readout
from dtolbus_producer.conversions import conversion_key, conversion_of, unit_of
from dtolbus_producer.tasks import ChannelConfig, WrongKeyError

THERMOCOUPLE_V = 0.08
"""What every thermocouple stays below (type E at 1000 °C: 76 mV), V."""


_LEAST_V, _MOST_V = 1e-15, 1e15


class Scaling(NamedTuple):
    """How a converter's codes stand for volts, at gain 1."""

    lowest_v: float
    highest_v: float
    bits: int
    encoding: Literal["offset_binary", "twos_complement"]

    @property
    def dtype(self) -> str:
        """NumPy name of the codes' type: as wide as they need, never wider."""
        if self.bits > 16:
            return "int32"
        return "uint16" if self.encoding == "offset_binary" else "int16"


def voltage_channel(channel: ChannelConfig, scaling: Scaling, gain: float, *, offset_ns: int = 0) -> Channel:
    """Return a voltage input with its calibration: in V, in the unit of `sensitivity_v`, or with its conversion.

    The lowest code stands for the lowest voltage, the code after the highest one for the highest: code 0 of an offset
    binary converter is `lowest_v`, code 0 of a two's complement one is the middle.
    """
    limits_v = (scaling.lowest_v / gain, scaling.highest_v / gain)
    return measuring(
        channel,
        Channel(
            name=channel.name,
            range=limits_v,
            gain=gain,
            encoding=scaling.encoding,
            resolution_bits=scaling.bits,
            physical=channel.physical,
            offset_ns=offset_ns,
        ),
    )


def measuring(channel: ChannelConfig, taken: Channel) -> Channel:
    """Return the input as it was `taken`, of known range, measuring what `channel` says."""
    scale, offset = linear(taken, channel.sensitivity_v or 1.0)
    kind = f"thermocouple {channel.thermocouple}" if channel.thermocouple else None
    return msgspec.structs.replace(
        taken,
        unit=unit_of(channel),
        scale=scale,
        offset=offset,
        sensor=", ".join(part for part in (kind, channel.sensor) if part) or None,
        conversion=conversion_of(channel),
    )


def linear(taken: Channel, sensitivity_v: float) -> tuple[float, float]:
    """Return scale and offset of an input of known range, or of volts; `sensitivity_v` is the volts for one unit."""
    if taken.encoding == "float":
        return 1.0 / sensitivity_v, 0.0
    assert taken.range is not None  # noqa: S101  # narrows the type, nothing rests on it
    assert taken.resolution_bits is not None  # noqa: S101  # narrows the type, nothing rests on it
    lowest_v, highest_v = taken.range
    at_zero_v = lowest_v if taken.encoding == "offset_binary" else (lowest_v + highest_v) / 2
    return (highest_v - lowest_v) / 2**taken.resolution_bits / sensitivity_v, at_zero_v / sensitivity_v


def readout(channels: Sequence[Channel], codes: Sequence[float]) -> Readout:
    """Return what one poll gave, in engineering units, with the status of those not OK.

    `codes` has one for each channel; volts, of a board that gives these.
    """
    column = np.array(codes)[:, np.newaxis]
    values = engineering(column, channels)[:, 0].tolist()
    status = {name: int(found[0]) for name, found in status_of_codes(column, channels).items()}
    return Readout(dict(zip([channel.name for channel in channels], values, strict=True)), status)


def gain_for(range_v: float, full_scale_v: float, gains: tuple[float, ...]) -> float:
    """Return the highest of the gains at which ±`range_v` still fits; the lowest where none does."""
    return max((gain for gain in gains if full_scale_v / gain >= range_v), default=min(gains, default=1.0))


def check_unit(key: str, channel: ChannelConfig) -> None:
    """Raise WrongKeyError where gain, range, unit and sensitivity contradict each other; `key` is its path."""
    if channel.gain is not None and channel.range is not None:
        raise WrongKeyError(
            f"{key}.gain", f"{channel.gain:g} beside range = {channel.range:g}: give the gain or the range, not both"
        )
    if channel.unit not in (None, "V") and channel.sensitivity_v is None and conversion_key(channel) is None:
        raise WrongKeyError(f"{key}.unit", f"{channel.unit!r} from volts: give sensitivity_v, the volts for one unit")
    if channel.unit == "":
        raise WrongKeyError(f"{key}.unit", "'' is no unit: name it, or leave the key out for volts")
    if channel.sensitivity_v is None:
        return
    if channel.unit is None:
        raise WrongKeyError(f"{key}.unit", "it is missing: say what sensitivity_v is the volts of")
    if not _LEAST_V <= abs(channel.sensitivity_v) <= _MOST_V:
        why = f"{channel.sensitivity_v}: give the volts for one unit, {_LEAST_V:g} to {_MOST_V:g}, not 0"
        raise WrongKeyError(f"{key}.sensitivity_v", why)
