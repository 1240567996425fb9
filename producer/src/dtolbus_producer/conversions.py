"""From a channel's keys in the configuration to its conversion. Pure."""

from collections.abc import Sequence

import msgspec

from dtolbus.units.conversion import Bridge, Conversion, Lookup, Polynomial, Rtd, Thermocouple
from dtolbus_producer.tasks import ChannelConfig, WrongKeyError

CELSIUS = "°C"
_STRAIN_UNITS = {"m/m": 1.0, "mm/m": 1e3, "µm/m": 1e6, "µε": 1e6}
_COLDEST, _HOTTEST = -100, 200
_KEYS = ("thermocouple", "rtd", "bridge", "polynomial", "table")


def conversion_of(channel: ChannelConfig) -> Conversion | None:
    """Return the conversion from volts that the channel's keys ask for. Raises ValueError where it cannot be.

    A thermocouple whose cold junction is not known has none.
    """
    if channel.polynomial is not None:
        return Polynomial(channel.polynomial)
    if channel.table is not None:
        return Lookup(tuple(x for x, _ in channel.table), tuple(y for _, y in channel.table))
    if channel.rtd is not None:
        return Rtd(**msgspec.structs.asdict(channel.rtd))
    if channel.bridge is not None:
        per_strain = _STRAIN_UNITS[_micro(channel.unit or "m/m")]
        return Bridge(**msgspec.structs.asdict(channel.bridge), per_strain=per_strain)
    if channel.thermocouple is not None and channel.cold_junction is not None:
        return Thermocouple(channel.thermocouple, channel.cold_junction)
    return None


def unit_of(channel: ChannelConfig) -> str:
    """Return the unit of what comes out of a voltage input."""
    if channel.rtd is not None or (channel.thermocouple is not None and channel.cold_junction is not None):
        return CELSIUS
    return channel.unit or ("V" if channel.bridge is None else "m/m")


def conversion_key(channel: ChannelConfig) -> str | None:
    """Return the key of the channel that asks for a conversion, or None."""
    return next((key for key in _KEYS if getattr(channel, key) is not None), None)


def check_conversion(key: str, channel: ChannelConfig) -> None:
    """Raise WrongKeyError where the channel's conversion cannot be; `key` is the channel's path."""
    given = [name for name in _KEYS if getattr(channel, name) is not None]
    if channel.cold_junction is not None and channel.thermocouple is None:
        raise WrongKeyError(f"{key}.cold_junction", f"{channel.cold_junction!r}: only beside thermocouple")
    if isinstance(channel.cold_junction, int | float) and not _COLDEST <= channel.cold_junction <= _HOTTEST:
        why = f"{channel.cold_junction:g} {CELSIUS}: a cold junction has {_COLDEST} to {_HOTTEST} {CELSIUS}, not kelvin"
        raise WrongKeyError(f"{key}.cold_junction", why)
    if not given:
        return
    if len(given) > 1:
        why = f"beside {given[0]}: a channel has one conversion, keep one of {', '.join(given)}"
        raise WrongKeyError(f"{key}.{given[1]}", why)
    if channel.sensitivity_v is not None:
        why = f"{channel.sensitivity_v:g} beside {given[0]}, which takes volts: leave one of them out"
        raise WrongKeyError(f"{key}.sensitivity_v", why)
    _check_unit(key, channel, given[0])
    try:
        conversion_of(channel)
    except ValueError as error:
        raise WrongKeyError(f"{key}.{_key_of(error, given[0])}", str(error)) from error


def check_cold_junctions(key: str, channels: Sequence[ChannelConfig]) -> None:
    """Raise WrongKeyError where a thermocouple's cold junction is no other channel in °C; `key` is the task's path."""
    by_name = {channel.name: channel for channel in channels}
    for place, channel in enumerate(channels):
        name = channel.cold_junction
        if not isinstance(name, str):
            continue
        junction = by_name.get(name)
        allowed = [other.name for other in channels if _measures_celsius(other)]
        if junction is None or not _measures_celsius(junction):
            what = "there is no such channel" if junction is None else f"that channel does not measure {CELSIUS}"
            one_of = f"name one that does ({', '.join(allowed) or 'there is none'})"
            why = f"{name!r}: {what} in this task: {one_of}, or give a fixed temperature"
            raise WrongKeyError(f"{key}.channels[{place}].cold_junction", why)


def _measures_celsius(channel: ChannelConfig) -> bool:
    return unit_of(channel) == CELSIUS and not isinstance(channel.cold_junction, str)


def _check_unit(key: str, channel: ChannelConfig, conversion: str) -> None:
    unit = channel.unit
    if conversion in ("polynomial", "table"):
        if unit is None:
            raise WrongKeyError(f"{key}.unit", f"it is missing: say what comes out of the {conversion}")
    elif conversion == "bridge":
        if _micro(unit or "m/m") not in _STRAIN_UNITS:
            raise WrongKeyError(f"{key}.unit", f"{unit!r}: a strain is in {', '.join(_STRAIN_UNITS)}")
    elif unit not in (None, CELSIUS):
        raise WrongKeyError(f"{key}.unit", f"{unit!r}: out of {conversion} come {CELSIUS}; leave the key out")


def _micro(unit: str) -> str:
    """Return the unit with the one µ that is meant, whichever was typed."""
    return unit.replace("\u03bc", "\u00b5")


def _key_of(error: ValueError, conversion: str) -> str:
    """Return the key that the error is about: a thermocouple's only number is its cold junction."""
    return "cold_junction" if conversion == "thermocouple" and "cold_junction" in str(error) else conversion
