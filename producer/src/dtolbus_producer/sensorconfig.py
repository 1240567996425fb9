"""`rtd = { … }` and `bridge = { … }` of a channel: what must be known of the sensor."""

import msgspec

from dtolbus.units.bridge import Configuration


class RtdConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A platinum resistor with a constant current through it."""

    r0_ohm: float
    """Resistance at 0 °C: 100 for a Pt100."""
    excitation_a: float
    curve: tuple[float, float, float] | None = None
    """a, b, c of its calibration certificate (1/°C, 1/°C², 1/°C⁴); None: IEC 60751."""


class BridgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A bridge of one, two or four strain gauges."""

    configuration: Configuration
    gauge_factor: float
    excitation_v: float
    initial_ratio: float = 0.0
    """Output over excitation without strain."""
    poisson_ratio: float | None = None
    lead_ohm: float = 0.0
    gauge_ohm: float | None = None
