"""How a channel's electrical quantity becomes what its sensor measures; it travels in the run header. Pure.

A conversion takes volts (a thermocouple's its compensated mV), after a channel's `scale` and `offset`. Each checks
itself when it is made, and raises ValueError.
"""

from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtolbus.units import bridge, rtd, thermocouple
from dtolbus.units.bridge import Configuration
from dtolbus.units.its90 import KINDS, Kind
from dtolbus.units.limits import finite_or_nan, status_of, status_of_results
from dtolbus.units.rtd import IEC_60751, CallendarVanDusen
from dtolbus.units.scaling import Table, polynomial
from dtolbus.units.status import SensorStatus

MOST_POINTS: Final = 1000
"""Of a table: the run header, which holds it, has to stay small."""

_MV: Final = 1000.0

Array = NDArray[np.float64]
Status = NDArray[np.int64]


class Polynomial(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="polynomial"):
    """c₀ + c₁x + c₂x² + … of x volts."""

    coefficients: tuple[float, ...]
    """Ascending."""

    def __post_init__(self) -> None:
        """Refuse what is no polynomial."""
        polynomial(0.0, self.coefficients)

    def value(self, volts: Array) -> Array:
        """Return what is measured, of the same shape; NaN where that is beyond all numbers."""
        return finite_or_nan(polynomial(volts, self.coefficients))

    def status(self, volts: Array) -> Status:
        """Return the SensorStatus of each sample, of the same shape: out of range where the value is beyond numbers."""
        largest = np.max(np.abs(volts), initial=0.0)
        if np.isfinite(polynomial(largest, [abs(coefficient) for coefficient in self.coefficients])):
            return np.full(
                volts.shape, SensorStatus.OK, dtype=np.int64
            )  # what no sample can reach needs no look at each
        return status_of_results(volts, polynomial(volts, self.coefficients))


class Lookup(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="table"):
    """A table volts → measured, linear between its points, NaN outside."""

    x: tuple[float, ...]
    """Volts, rising or falling throughout."""
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what is no table, and one too long to travel."""
        if len(self.x) > MOST_POINTS:
            raise ValueError(f"a table of {len(self.x)} points: {MOST_POINTS} are the most")
        Table(self.x, self.y)

    def value(self, volts: Array) -> Array:
        """Return what is measured, of the same shape; NaN where that is beyond all numbers."""
        return finite_or_nan(_table(self).at(volts))

    def status(self, volts: Array) -> Status:
        """Return the SensorStatus of each sample, of the same shape: beyond an end it is low where that end's y is."""
        status = status_of(volts, min(self.x), max(self.x))
        if (self.x[0] < self.x[-1]) == (self.y[0] > self.y[-1]):
            low, high = SensorStatus.TEMP_OUT_OF_RANGE_LOW, SensorStatus.TEMP_OUT_OF_RANGE_HIGH
            status = np.select([status == low, status == high], [high, low], status)
        if np.isfinite(_steepest(self)):
            return status
        return np.where(status == SensorStatus.OK, status_of_results(volts, _table(self).at(volts)), status)


class Thermocouple(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="thermocouple"):
    """°C by NIST ITS-90, with the cold junction's emf added."""

    kind: Kind
    cold_junction: str | float
    """The channel of the same task that measures it in °C, or a fixed temperature, °C."""

    def __post_init__(self) -> None:
        """Refuse a type that there is not, and a fixed cold junction where it has no emf."""
        if self.kind not in KINDS:
            raise ValueError(f"thermocouple {self.kind!r}: it can be {', '.join(KINDS)}")
        if not isinstance(self.cold_junction, str) and np.isnan(thermocouple.emf_mv(self.kind, self.cold_junction)):
            raise ValueError(f"cold_junction is {self.cold_junction}: that is no temperature of a type {self.kind}")

    def compensated_mv(self, volts: Array, junction_celsius: ArrayLike) -> Array:
        """Return the emf that refers to 0 °C, mV, of the same shape; NaN where the junction's temperature is."""
        return thermocouple.compensated_mv(self.kind, volts * _MV, junction_celsius)

    def value(self, emf_mv: Array) -> Array:
        """Return the temperature at `compensated_mv`, °C, of the same shape."""
        return thermocouple.celsius(self.kind, emf_mv)

    def status(self, emf_mv: Array) -> Status:
        """Return the SensorStatus at `compensated_mv`, of the same shape."""
        return thermocouple.status(self.kind, emf_mv)


class Rtd(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="rtd"):
    """°C of a platinum resistor with a constant current through it."""

    r0_ohm: float
    """Resistance at 0 °C: 100 for a Pt100."""
    excitation_a: float
    curve: tuple[float, float, float] | None = None
    """a (1/°C), b (1/°C²), c (1/°C⁴) of Callendar and Van Dusen; None: IEC 60751."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        rtd.status(rtd.ohm_from_voltage(0.0, self.excitation_a), self.r0_ohm, self.equation)

    def value(self, volts: Array) -> Array:
        """Return the temperature, °C, of the same shape."""
        return rtd.celsius(rtd.ohm_from_voltage(volts, self.excitation_a), self.r0_ohm, self.equation)

    def status(self, volts: Array) -> Status:
        """Return the SensorStatus of each sample, of the same shape."""
        return rtd.status(rtd.ohm_from_voltage(volts, self.excitation_a), self.r0_ohm, self.equation)

    @property
    def equation(self) -> CallendarVanDusen:
        """The curve with its coefficients."""
        return IEC_60751 if self.curve is None else CallendarVanDusen(*self.curve)


class Bridge(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="bridge"):
    """Strain from a bridge's output; the fields are those of `dtolbus.units.bridge.Bridge`."""

    configuration: Configuration
    gauge_factor: float
    excitation_v: float
    initial_ratio: float = 0.0
    poisson_ratio: float | None = None
    lead_ohm: float = 0.0
    gauge_ohm: float | None = None
    per_strain: float = 1.0
    """How many of the channel's unit are a strain of 1 (m/m): 1e6 for µm/m."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not (self.excitation_v and np.isfinite(self.excitation_v)):
            raise ValueError(f"excitation_v is {self.excitation_v}: give the volts across the bridge, not 0")
        if not (self.per_strain and np.isfinite(self.per_strain)):
            raise ValueError(f"per_strain is {self.per_strain}: give a finite number, not 0")
        _ = self._bridge

    def value(self, volts: Array) -> Array:
        """Return the strain in the channel's unit, of the same shape."""
        return bridge.strain(self._bridge, volts / self.excitation_v) * self.per_strain

    def status(self, volts: Array) -> Status:
        """Return the SensorStatus of each sample, of the same shape."""
        return bridge.status(self._bridge, volts / self.excitation_v)

    @property
    def _bridge(self) -> bridge.Bridge:
        return bridge.Bridge(
            configuration=self.configuration,
            gauge_factor=self.gauge_factor,
            initial_ratio=self.initial_ratio,
            poisson_ratio=self.poisson_ratio,
            lead_ohm=self.lead_ohm,
            gauge_ohm=self.gauge_ohm,
        )


Conversion = Polynomial | Lookup | Thermocouple | Rtd | Bridge

OPENS: Final = (Thermocouple, Rtd, Bridge)
"""The conversions of sensors whose input, once a wire is off, drifts to an end of the converter's range."""


@lru_cache(maxsize=64)
def _steepest(lookup: Lookup) -> float:
    """Return the steepest slope between two points; infinite where a value between them may be."""
    with np.errstate(over="ignore"):
        return float(np.max(np.abs(np.diff(lookup.y) / np.diff(lookup.x))))


@lru_cache(maxsize=64)
def _table(lookup: Lookup) -> Table:
    return Table(lookup.x, lookup.y)
