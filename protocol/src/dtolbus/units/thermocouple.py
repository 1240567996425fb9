"""Thermocouples B, E, J, K, N, R, S and T by the NIST ITS-90 reference functions (NIST Monograph 175)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtolbus.units.its90 import CURVES, KINDS, Kind, Piece
from dtolbus.units.limits import inside, status_of
from dtolbus.units.scaling import derivative, horner

Array = NDArray[np.float64]

_SLACK_MV = 1e-9
"""Less than 1e-6 °C anywhere. An emf close to a limit may be rounded to beyond the limit's own."""


def emf_mv(kind: Kind, celsius: ArrayLike) -> Array:
    """Return the emf at `celsius`, mV, the reference junction at 0 °C; of the same shape.

    NaN outside of the reference function: B 0…1820 °C, E −270…1000, J −210…1200, K −270…1372, N −270…1300,
    R and S −50…1768.1, T −270…400. Raises ValueError for an unknown `kind`.
    """
    plan = _plan(kind)
    wanted = inside(celsius, plan.reference[0].low, plan.reference[-1].high)
    return _reference(plan.reference, wanted.ravel()).reshape(wanted.shape)


def celsius(kind: Kind, emf_mv: ArrayLike) -> Array:
    """Return the temperature at an emf that refers to 0 °C, °C; of the same shape.

    NIST's inverse polynomial gives it to ±0.06 °C, then two steps of Newton's method on the reference function, with
    the slope of the first, to less than 1e-6 °C. NaN outside of NIST's inverses, where `status` is not OK:
    B 250…1820 °C, E −200…1000, J −210…1200, K −200…1372, N −200…1300, R and S −50…1768.1, T −200…400.
    Raises ValueError for an unknown `kind`.
    """
    plan = _plan(kind)
    wanted = inside(emf_mv, plan.low_mv, plan.high_mv)
    emf = wanted.ravel()
    found = np.empty_like(emf)
    for piece, at in _split(emf, plan.inverse_joints_mv, plan.inverse):
        found[at] = horner(emf[at], piece.coefficients)
    for piece, at in _split(emf, plan.reference_joints_mv, plan.reference):
        found[at] = _refined(piece, emf[at], found[at])
    np.clip(found, plan.inverse[0].low, plan.inverse[-1].high, out=found)
    return found.reshape(wanted.shape)


def status(kind: Kind, emf_mv: ArrayLike) -> NDArray[np.int64]:
    """Return the SensorStatus that goes with `celsius`, of the same shape: OK wherever that is a number.

    NaN counts as an open sensor. Raises ValueError for an unknown `kind`.
    """
    plan = _plan(kind)
    return status_of(emf_mv, plan.low_mv, plan.high_mv)


def compensated_mv(kind: Kind, measured_mv: ArrayLike, cold_junction_celsius: ArrayLike) -> Array:
    """Return the emf that refers to 0 °C: what was measured plus the emf of the cold junction (Monograph 175, ch. 2).

    The two shapes broadcast. NaN where the cold junction is outside of the reference function. Raises ValueError for
    an unknown `kind`.
    """
    return np.asarray(np.asarray(measured_mv, dtype=np.float64) + emf_mv(kind, cold_junction_celsius))


@dataclass(frozen=True, slots=True)
class _Plan:
    """The pieces of one type, and where they join."""

    reference: tuple[Piece, ...]
    inverse: tuple[Piece, ...]
    reference_joints_mv: list[float]
    inverse_joints_mv: list[float]
    low_mv: float
    high_mv: float


@cache
def _plan(kind: Kind) -> _Plan:
    if kind not in CURVES:
        raise ValueError(f"thermocouple {kind!r}: it can be {', '.join(KINDS)}")
    reference, inverse = CURVES[kind].reference, CURVES[kind].inverse

    def at(*celsius: float) -> list[float]:
        return [float(mv) for mv in _reference(reference, np.array(celsius))]

    return _Plan(
        reference=reference,
        inverse=inverse,
        reference_joints_mv=at(*(piece.high for piece in reference[:-1])),
        inverse_joints_mv=at(*(piece.high for piece in inverse[:-1])),
        low_mv=at(inverse[0].low)[0] - _SLACK_MV,
        high_mv=at(inverse[-1].high)[0] + _SLACK_MV,
    )


def _split(values: Array, joints: Sequence[float], pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Array | slice]]:
    """Yield each piece that is needed, and which of the 1-d `values` are its own; a joint belongs to the lower one."""
    number = np.searchsorted(joints, values)
    for own, piece in enumerate(pieces):
        at = number == own
        if at.all():
            yield piece, slice(None)
        elif at.any():
            yield piece, at


def _reference(pieces: Sequence[Piece], celsius: Array) -> Array:
    """Return the emf of 1-d `celsius`, mV."""
    emf = np.empty_like(celsius)
    for piece, at in _split(celsius, [piece.high for piece in pieces[:-1]], pieces):
        emf[at] = _emf(piece, celsius[at])
    return emf


def _emf(piece: Piece, celsius: Array) -> Array:
    emf = horner(celsius, piece.coefficients)
    if piece.magnetic is not None:
        emf += _magnetic(piece.magnetic, celsius)
    return emf


def _slope(piece: Piece, celsius: Array) -> Array:
    """Return dE/dt, mV/°C."""
    slope = horner(celsius, derivative(piece.coefficients))
    if piece.magnetic is not None:
        _, a1, a2 = piece.magnetic
        slope += _magnetic(piece.magnetic, celsius) * (2 * a1 * (celsius - a2))
    return slope


def _magnetic(coefficients: tuple[float, float, float], celsius: Array) -> Array:
    a0, a1, a2 = coefficients
    return np.asarray(a0 * np.exp(a1 * (celsius - a2) ** 2))


def _refined(piece: Piece, emf: Array, celsius: Array) -> Array:
    slope = _slope(piece, celsius)
    for _ in range(2):
        celsius = celsius - (_emf(piece, celsius) - emf) / slope
    return celsius
