"""Platinum resistors: the table of IEC 60751, and an inverse that gives back the temperature."""

import numpy as np
import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from dtolbus.records import SensorStatus
from dtolbus.units import rtd

PT100 = {
    -200: 18.52, -190: 22.83, -180: 27.10, -150: 39.72, -140: 43.88, -110: 56.19, -100: 60.26, -50: 80.31, -10: 96.09,
    0: 100.00, 10: 103.90, 50: 119.40, 100: 138.51, 150: 157.33, 200: 175.86, 250: 194.10, 300: 212.05, 400: 247.09,
    500: 280.98, 600: 313.71, 700: 345.28, 800: 375.70, 850: 390.48,
}  # fmt: skip
"""IEC 60751, table 1: °C → Ω, as printed."""

OLD_US = rtd.CallendarVanDusen(3.9739e-3, -5.870e-7, -4.4e-12)
"""α = 0.003916 /°C, as many boards offer it beside IEC 60751's."""


def test_a_pt100_has_the_resistances_of_iec_60751() -> None:
    celsius, printed = np.array(list(PT100.items())).T
    np.testing.assert_allclose(rtd.resistance_ohm(celsius, 100), printed, rtol=0, atol=0.005 + 1e-9)
    np.testing.assert_allclose(rtd.celsius(printed[1:], 100), celsius[1:], rtol=0, atol=0.018)  # 18.52 is rounded down


def test_alpha_is_that_of_the_standard() -> None:
    r0, r100 = rtd.resistance_ohm([0.0, 100.0], 100)
    assert (r100 - r0) / (100 * r0) == pytest.approx(0.00385055, abs=1e-12)


@given(st.floats(-200, 850), st.sampled_from([100.0, 500.0, 1000.0]), st.sampled_from([rtd.IEC_60751, OLD_US]))
def test_the_temperature_of_a_resistance_is_the_one_that_made_it(
    celsius: float, r0_ohm: float, curve: rtd.CallendarVanDusen
) -> None:
    ohm = rtd.resistance_ohm(celsius, r0_ohm, curve)
    assert rtd.celsius(ohm, r0_ohm, curve) == pytest.approx(celsius, abs=1e-9)
    assert rtd.status(ohm, r0_ohm, curve) == SensorStatus.OK


def test_a_pt1000_is_ten_times_a_pt100() -> None:
    assert rtd.celsius([1385.055, 602.558], 1000) == pytest.approx([100, -100], abs=0.002)


def test_a_linear_resistor_needs_no_b_and_c() -> None:
    assert rtd.celsius([139.0, 61.0], 100, rtd.CallendarVanDusen(3.9e-3, 0, 0)) == pytest.approx([100, -100], abs=1e-9)


def test_outside_of_the_range_is_nan_with_the_status_that_says_why() -> None:
    low, high = rtd.resistance_ohm([-200.0, 850.0], 100)
    ohm = [-np.inf, 0.0, low - 1e-6, low, high, high + 1e-6, 1e9, np.inf, np.nan]
    status = rtd.status(ohm, 100)
    assert status.tolist() == [2, 2, 2, 0, 0, 3, 3, 3, 1]
    celsius = rtd.celsius(ohm, 100)
    assert (~np.isnan(celsius)).tolist() == (status == SensorStatus.OK).tolist()
    assert np.isnan(rtd.resistance_ohm([-200.001, 850.001, np.nan], 100)).all()


@pytest.mark.parametrize(
    "curve",
    [
        rtd.IEC_60751,
        rtd.CallendarVanDusen(4.747e-3, -1.66e-7, 4.951e-11),  # rounds so at −200 °C
        rtd.CallendarVanDusen(4.6949e-3, -4.47e-7, -2.711e-11),  # rounds so at 850 °C
    ],
)
def test_a_temperature_a_breath_inside_of_a_limit_is_not_lost_by_rounding(curve: rtd.CallendarVanDusen) -> None:
    celsius = np.concatenate([-200 + np.arange(60) * 2.9e-14, 850 - np.arange(60) * 1.14e-13])
    ohm = rtd.resistance_ohm(celsius, 100, curve)
    np.testing.assert_allclose(rtd.celsius(ohm, 100, curve), celsius, rtol=0, atol=1e-9)
    assert not rtd.status(ohm, 100, curve).any()


@given(st.floats(10, 2000))
def test_the_limits_belong_to_the_range_there_and_back(r0_ohm: float) -> None:
    celsius = rtd.celsius(rtd.resistance_ohm([-200.0, 850.0], r0_ohm), r0_ohm)
    assert celsius.tolist() == pytest.approx([-200, 850], abs=1e-9)
    assert not np.isnan(rtd.resistance_ohm(celsius, r0_ohm)).any()


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    ohm = rtd.resistance_ohm(np.full(shape, -40.0), 100)
    celsius = rtd.celsius(ohm, 100)
    volts = rtd.ohm_from_voltage(ohm, 1.0)
    assert all(isinstance(array, np.ndarray) and array.shape == shape for array in (ohm, celsius, volts))
    np.testing.assert_allclose(celsius, -40, atol=1e-9)


def test_a_voltage_at_the_excitation_current_is_a_resistance() -> None:
    assert rtd.ohm_from_voltage([0.1, 0.138505], 0.001) == pytest.approx([100, 138.505])
    assert rtd.celsius(rtd.ohm_from_voltage(0.138505, 0.001), 100) == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize("current", [0.0, np.nan, np.inf])
def test_a_current_that_cannot_be_is_refused(current: float) -> None:
    with pytest.raises(ValueError, match=f"excitation_a is {current}"):
        rtd.ohm_from_voltage(0.1, current)


@pytest.mark.parametrize("r0_ohm", [0.0, -100.0, np.nan, np.inf])
def test_a_resistance_at_0_celsius_that_cannot_be_is_refused(r0_ohm: float) -> None:
    for convert in (rtd.resistance_ohm, rtd.celsius, rtd.status):
        with pytest.raises(ValueError, match=f"r0_ohm is {r0_ohm}"):
            convert(1.0, r0_ohm)


@pytest.mark.parametrize(
    "coefficients",
    [(0, 0, 0), (-3.9e-3, 0, 0), (3.9083e-3, -5.775e-6, 0), (3.9e-3, 4e-6, 0), (3.9e-3, 0, 1e-10), (np.nan, 0, 0)],
)
def test_a_curve_that_platinum_cannot_have_is_refused(coefficients: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must stay between half and twice"):
        rtd.CallendarVanDusen(*coefficients)


@given(st.floats(3e-3, 5e-3), st.floats(-3e-6, 3e-6), st.floats(-5e-11, 5e-11), st.floats(-200, 850))
@example(3.1795e-3, -8.5e-7, -5.973e-11, -200.0)  # the farthest from a straight line
def test_every_curve_that_is_taken_is_inverted(a: float, b: float, c: float, celsius: float) -> None:
    try:
        curve = rtd.CallendarVanDusen(a, b, c)
    except ValueError:
        reject()
    assert rtd.celsius(rtd.resistance_ohm(celsius, 100, curve), 100, curve) == pytest.approx(celsius, abs=1e-9)
