"""Platinum resistance thermometers: the Callendar–Van Dusen equation.

Source: IEC 60751:2008, clause 4.2, with t in °C:
R(t) = R₀ (1 + At + Bt²) from 0 to 850 °C, R(t) = R₀ (1 + At + Bt² + C (t − 100) t³) from −200 to 0 °C.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtolbus.units.limits import inside, status_of
from dtolbus.units.scaling import derivative, horner

LOWEST_CELSIUS: Final = -200.0
HIGHEST_CELSIUS: Final = 850.0

_SLACK = 1e-12
"""Of R/R₀: less than 1e-9 °C. A resistance close to a limit may be rounded to beyond the limit's own."""


@dataclass(frozen=True, slots=True)
class CallendarVanDusen:
    """The three coefficients of a platinum resistor, of its standard or of its calibration certificate.

    Raises ValueError for a curve that platinum cannot have: its slope changes to less than half or more than twice.
    """

    a: float
    """1/°C."""
    b: float
    """1/°C²."""
    c: float
    """1/°C⁴, used below 0 °C."""

    def __post_init__(self) -> None:
        """Refuse what the inverse does not converge for: a slip of the pen in most cases."""
        hot = horner(np.array([HIGHEST_CELSIUS]), derivative(self._above))
        cold = horner(np.array([LOWEST_CELSIUS]), derivative(self._below))
        slopes = np.concatenate([cold, hot])
        if not np.all((slopes > self.a / 2) & (slopes < self.a * 2)):
            raise ValueError(
                f"{self}: dR/dt must stay between half and twice {self.a} from {LOWEST_CELSIUS:g} to "
                f"{HIGHEST_CELSIUS:g} °C"
            )

    @property
    def _above(self) -> tuple[float, ...]:
        return (1.0, self.a, self.b)

    @property
    def _below(self) -> tuple[float, ...]:
        return (1.0, self.a, self.b, -100.0 * self.c, self.c)

    def ratio(self, celsius: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return R(t)/R₀; same shape, no limits."""
        return np.asarray(np.where(celsius < 0, horner(celsius, self._below), horner(celsius, self._above)))

    def celsius(self, ratio: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return t of R/R₀; same shape, no limits.

        From 0 °C on the root of the quadratic, written so that B may be 0; below, Newton's method from the straight
        line: four steps leave less than 1e-9 °C with every curve that is taken.
        """
        above = 2 * (ratio - 1) / (self.a + np.sqrt(self.a**2 + 4 * self.b * (ratio - 1)))
        below = (ratio - 1) / self.a
        slope = derivative(self._below)
        for _ in range(4):
            below = below - (horner(below, self._below) - ratio) / horner(below, slope)
        return np.asarray(np.where(ratio < 1, below, above))


IEC_60751: Final = CallendarVanDusen(3.9083e-3, -5.775e-7, -4.183e-12)
"""Industrial platinum, α = 0.003851 /°C (IEC 60751:2008, clause 4.2; also ASTM E1137, DIN EN 60751)."""


def resistance_ohm(celsius: ArrayLike, r0_ohm: float, curve: CallendarVanDusen = IEC_60751) -> NDArray[np.float64]:
    """Return the resistance at `celsius`, Ω, of the same shape; NaN outside of −200 to 850 °C.

    `r0_ohm` is the resistance at 0 °C: 100 for a Pt100. Raises ValueError if it is not above 0.
    """
    _check_r0(r0_ohm)
    return np.asarray(curve.ratio(inside(celsius, LOWEST_CELSIUS, HIGHEST_CELSIUS)) * r0_ohm)


def celsius(ohm: ArrayLike, r0_ohm: float, curve: CallendarVanDusen = IEC_60751) -> NDArray[np.float64]:
    """Return the temperature at resistance `ohm`, °C, of the same shape; NaN outside of −200 to 850 °C.

    It inverts `resistance_ohm` to less than 1e-9 °C. Raises ValueError if `r0_ohm` is not above 0.
    """
    low, high = _limits_ohm(r0_ohm, curve)
    found = curve.celsius(np.asarray(inside(ohm, low, high) / r0_ohm))
    return np.asarray(np.clip(found, LOWEST_CELSIUS, HIGHEST_CELSIUS))


def status(ohm: ArrayLike, r0_ohm: float, curve: CallendarVanDusen = IEC_60751) -> NDArray[np.int64]:
    """Return the SensorStatus that goes with `celsius`, of the same shape: OK wherever that is a number.

    Raises ValueError if `r0_ohm` is not above 0.
    """
    return status_of(ohm, *_limits_ohm(r0_ohm, curve))


def ohm_from_voltage(voltage_v: ArrayLike, excitation_a: float) -> NDArray[np.float64]:
    """Return the resistance that a constant current `excitation_a` gives `voltage_v`, Ω, of the same shape (Ohm's law).

    Four-wire: the voltage is measured at the sensor. Raises ValueError if the current is 0 or not finite.
    """
    if not (excitation_a and math.isfinite(excitation_a)):
        raise ValueError(f"excitation_a is {excitation_a}: give the current through the sensor, not 0")
    return np.asarray(np.asarray(voltage_v, dtype=np.float64) / excitation_a)


def _limits_ohm(r0_ohm: float, curve: CallendarVanDusen) -> tuple[float, float]:
    _check_r0(r0_ohm)
    low, high = curve.ratio(np.array([LOWEST_CELSIUS, HIGHEST_CELSIUS]))
    return float(low - _SLACK) * r0_ohm, float(high + _SLACK) * r0_ohm


def _check_r0(r0_ohm: float) -> None:
    if not (r0_ohm > 0 and math.isfinite(r0_ohm)):
        raise ValueError(f"r0_ohm is {r0_ohm}: give the resistance at 0 °C, above 0")
