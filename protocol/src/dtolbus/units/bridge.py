"""Strain from a Wheatstone bridge with one, two or four gauges.

Source: Campbell Scientific, CR1000 manual, table "StrainCalc() Instruction Equations", configurations 1 to 6; the
same are NI-DAQmx's quarter-bridge I and II, half-bridge I and II, full-bridge I, II and III (Measurement
Fundamentals, "Strain Gage Bridge Configurations"). They follow from the two voltage dividers and are exact for a
bridge that is balanced without strain. Vr is (V_out / V_excitation) strained minus unstrained; as the sources wire
it, tension makes it negative.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtolbus.units.status import SensorStatus

Configuration = Literal["quarter", "half_poisson", "half_bending", "full_bending", "full_bending_poisson", "full_axial"]
Array = NDArray[np.float64]


def _quarter(vr: Array, _: float) -> Array:
    """One active gauge (NI quarter-bridge I, II; Campbell 1): it is not linear."""
    return -4 * vr / (1 + 2 * vr)


def _half_poisson(vr: Array, nu: float) -> Array:
    """One gauge along the strain, one across it in the same half (NI half-bridge I; Campbell 2)."""
    return -4 * vr / ((1 + nu) - 2 * vr * (nu - 1))


def _half_bending(vr: Array, _: float) -> Array:
    """One gauge on each side of a beam, +ε and −ε (NI half-bridge II; Campbell 3)."""
    return -2 * vr


def _full_bending(vr: Array, _: float) -> Array:
    """Two gauges on each side of a beam (NI full-bridge I; Campbell 4)."""
    return -vr


def _full_bending_poisson(vr: Array, nu: float) -> Array:
    """On each side of a beam one gauge along, one across (NI full-bridge II; Campbell 5)."""
    return -2 * vr / (1 + nu)


def _full_axial(vr: Array, nu: float) -> Array:
    """Two gauges along the axis, two across it; bending cancels (NI full-bridge III; Campbell 6)."""
    return -2 * vr / ((1 + nu) - vr * (nu - 1))


_CHANGE: Final[dict[Configuration, Callable[[Array, float], Array]]] = {
    "quarter": _quarter,
    "half_poisson": _half_poisson,
    "half_bending": _half_bending,
    "full_bending": _full_bending,
    "full_bending_poisson": _full_bending_poisson,
    "full_axial": _full_axial,
}
"""The change of the main gauge, ΔR/R, from Vr and Poisson's ratio."""

_NEEDS_POISSON: Final = ("half_poisson", "full_bending_poisson", "full_axial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """What stands in the strain equation beside the measured ratio.

    Raises ValueError for what cannot be, and for what its configuration has no use for or lacks.
    """

    configuration: Configuration
    gauge_factor: float
    """ΔR/R for each unit of strain."""
    initial_ratio: float = 0.0
    """V_out / V_excitation without strain."""
    poisson_ratio: float | None = None
    """Of the specimen; needed where gauges lie across the strain."""
    lead_ohm: float = 0.0
    """Resistance of each lead in series with a gauge, Ω; quarter and half bridges."""
    gauge_ohm: float | None = None
    """Nominal resistance of a gauge, Ω; needed with `lead_ohm`."""

    def __post_init__(self) -> None:
        """Refuse what would give wrong strains."""
        if self.configuration not in _CHANGE:
            raise ValueError(f"configuration is {self.configuration!r}: it can be {', '.join(_CHANGE)}")
        if not (self.gauge_factor and math.isfinite(self.gauge_factor)):
            raise ValueError(f"gauge_factor is {self.gauge_factor}: give the gauge's, about 2 for metal foil")
        if not abs(self.initial_ratio) < self.largest_ratio:
            raise ValueError(f"initial_ratio is {self.initial_ratio}: it lies within ±{self.largest_ratio}")
        if self.configuration in _NEEDS_POISSON and self.poisson_ratio is None:
            raise ValueError(f"a {self.configuration} bridge needs poisson_ratio, about 0.3 for steel")
        if self.poisson_ratio is not None and not 0 <= self.poisson_ratio <= 0.5:
            raise ValueError(f"poisson_ratio is {self.poisson_ratio}: it lies between 0 and 0.5")
        self._check_leads()

    def _check_leads(self) -> None:
        if not (self.lead_ohm >= 0 and math.isfinite(self.lead_ohm)):
            raise ValueError(f"lead_ohm is {self.lead_ohm}: it is 0 or more")
        if self.gauge_ohm is not None and not (self.gauge_ohm > 0 and math.isfinite(self.gauge_ohm)):
            raise ValueError(f"gauge_ohm is {self.gauge_ohm}: it is above 0")
        if self.lead_ohm and self.gauge_ohm is None:
            raise ValueError(f"lead_ohm is {self.lead_ohm}: it needs gauge_ohm, the gauge's nominal resistance")
        if self.lead_ohm and self.configuration.startswith("full"):
            raise ValueError(f"lead_ohm is {self.lead_ohm}: a full bridge's leads are outside of its arms")

    @property
    def largest_ratio(self) -> float:
        """What |V_out / V_excitation| cannot reach: ½ where one half of the bridge is fixed, else 1."""
        return 1.0 if self.configuration.startswith("full") else 0.5


def strain(bridge: Bridge, ratio: ArrayLike) -> NDArray[np.float64]:
    """Return the strain (m/m, not µε) of the measured `ratio` V_out / V_excitation (V/V), of the same shape.

    Quarter and half bridges are corrected by (1 + R_lead / R_gauge), as the sources have it. NaN where `status` is
    not OK.
    """
    measured = np.asarray(ratio, dtype=np.float64)
    vr = np.where(status(bridge, measured) == SensorStatus.OK, measured, np.nan) - bridge.initial_ratio
    leads = 1.0 if bridge.gauge_ohm is None else 1.0 + bridge.lead_ohm / bridge.gauge_ohm
    change = _CHANGE[bridge.configuration](vr, bridge.poisson_ratio or 0.0)
    return np.asarray(change / bridge.gauge_factor * leads)


def status(bridge: Bridge, ratio: ArrayLike) -> NDArray[np.int64]:
    """Return the SensorStatus of each `ratio`, of the same shape: OK, or SENSOR_OPEN where no closed bridge has it."""
    measured = np.asarray(ratio, dtype=np.float64)
    limit = bridge.largest_ratio
    closed = (np.abs(measured) < limit) & (np.abs(measured - bridge.initial_ratio) < limit)
    return np.asarray(np.where(closed, SensorStatus.OK, SensorStatus.SENSOR_OPEN), dtype=np.int64)
