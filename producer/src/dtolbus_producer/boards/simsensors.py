"""What the inputs of the simulated board see: its tones, or where a conversion is configured what such a sensor gives.

Pure functions of (seed, channel, sample index), in pieces of any size.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dtolbus.channels import Channel, engineering
from dtolbus.units import rtd, thermocouple
from dtolbus.units.conversion import Bridge, Lookup, Rtd, Thermocouple
from dtolbus_producer.boards.simsignal import CODES, simulated_codes, simulated_temperatures, slow_wave

IsOpen = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Tells of sample indexes at which of them a sensor is open."""

_JUNCTION_CELSIUS = 25.0
_STRAIN = 200e-6
"""Amplitude of a simulated strain, m/m."""


def sensor_codes(
    seed: int,
    channels: Sequence[Channel],
    first: int,
    count: int,
    *,
    rate_hz: float,
    is_open: dict[str, IsOpen] | None = None,
) -> NDArray[np.uint16]:
    """Return the codes of samples [first, first + count), shape (channels, samples).

    A thermocouple's emf is that between its temperature and its cold junction's, as that is measured. An open sensor
    has the highest code.
    """
    junctions = {channel.cold_junction for channel in channels}
    own = np.stack(
        [_own_codes(seed, channel, channel.name in junctions, first, count, rate_hz) for channel in channels]
    )
    for place, channel in enumerate(channels):
        if isinstance(channel.conversion, Thermocouple):
            celsius = simulated_temperatures(seed, channel.physical or 0, first, count, rate_hz=rate_hz)
            emf_mv = thermocouple.emf_mv(channel.conversion.kind, celsius) - thermocouple.emf_mv(
                channel.conversion.kind, _junction_celsius(channel.conversion, own, channels)
            )
            own[place] = _codes_of(emf_mv / 1000, channel)
    for place, channel in enumerate(channels):
        if is_open and channel.name in is_open:
            own[place, is_open[channel.name](np.arange(first, first + count))] = CODES - 1
    return own


def _junction_celsius(
    conversion: Thermocouple, codes: NDArray[np.uint16], channels: Sequence[Channel]
) -> NDArray[np.float64]:
    if not isinstance(conversion.cold_junction, str):
        return np.asarray(float(conversion.cold_junction))
    place = [channel.name for channel in channels].index(conversion.cold_junction)
    celsius: NDArray[np.float64] = engineering(codes[place][np.newaxis], [channels[place]])[0]
    return celsius


def _own_codes(
    seed: int, channel: Channel, is_junction: bool, first: int, count: int, rate_hz: float
) -> NDArray[np.uint16]:
    """Return the codes of a sensor that needs no other channel beside it."""
    physical, conversion = channel.physical or 0, channel.conversion
    if isinstance(conversion, Rtd):
        celsius = simulated_temperatures(seed, physical, first, count, rate_hz=rate_hz)
        return _codes_of(
            conversion.excitation_a * rtd.resistance_ohm(celsius, conversion.r0_ohm, conversion.equation), channel
        )
    wave = slow_wave(physical, first, count, rate_hz=rate_hz)
    if isinstance(conversion, Bridge):
        ratio = conversion.initial_ratio - conversion.gauge_factor * _STRAIN * wave / 4
        return _codes_of(conversion.excitation_v * ratio, channel)
    if isinstance(conversion, Lookup):
        low, high = min(conversion.x), max(conversion.x)
        return _codes_of((low + high) / 2 + 0.4 * (high - low) * wave, channel)
    if is_junction and conversion is None:
        return _codes_of(_JUNCTION_CELSIUS + 0.5 * wave, channel)
    return simulated_codes(seed, physical, first, count, rate_hz=rate_hz, gain=channel.gain)


def _codes_of(measured: NDArray[np.float64], channel: Channel) -> NDArray[np.uint16]:
    """Return the codes of what the channel's linear calibration gives."""
    codes: NDArray[np.uint16] = np.clip(np.rint((measured - channel.offset) / channel.scale), 0, CODES - 1).astype(
        np.uint16
    )
    return codes
