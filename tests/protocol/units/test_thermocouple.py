"""Thermocouples: NIST's tables to the microvolt, and an inverse that gives back the temperature."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.units.nist import INVERSE_ERROR_CELSIUS, TABLES

from dtolbus.records import SensorStatus
from dtolbus.units import thermocouple
from dtolbus.units.its90 import CURVES, KINDS, Kind
from dtolbus.units.scaling import polynomial

OK, OPEN = SensorStatus.OK, SensorStatus.SENSOR_OPEN
LOW, HIGH = SensorStatus.TEMP_OUT_OF_RANGE_LOW, SensorStatus.TEMP_OUT_OF_RANGE_HIGH

each_kind = pytest.mark.parametrize("kind", KINDS)
kinds = st.sampled_from(KINDS)


def span(kind: Kind) -> tuple[float, float]:
    """What `celsius` can give, °C."""
    return CURVES[kind].inverse[0].low, CURVES[kind].inverse[-1].high


@each_kind
def test_the_emf_is_that_of_nists_table_to_the_microvolt(kind: Kind) -> None:
    celsius, printed = np.array(list(TABLES[kind].items())).T
    np.testing.assert_allclose(thermocouple.emf_mv(kind, celsius), printed, rtol=0, atol=0.0005)


@each_kind
def test_the_temperature_is_that_of_nists_table_to_its_last_microvolt(kind: Kind) -> None:
    low, high = span(kind)
    table = {celsius: mv for celsius, mv in TABLES[kind].items() if low < celsius < high}
    assert len(table) >= 12
    for celsius, mv in table.items():
        below, above = thermocouple.celsius(kind, [mv - 0.0005, mv + 0.0005])
        assert below <= celsius <= above, f"{mv} mV: {below} to {above} °C"
        assert above - below < 0.5


def test_the_coefficients_are_those_that_were_compared_digit_by_digit() -> None:
    """A slip in a last digit is less than the tables show; the sum is of what two sources agreed on."""
    rows = [piece for kind in KINDS for piece in (*CURVES[kind].reference, *CURVES[kind].inverse)]
    text = "\n".join(repr((piece.low, piece.high, piece.coefficients, piece.magnetic)) for piece in rows)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "d798665224a8bb9b"


@given(kinds, st.floats(0, 1))
def test_the_temperature_of_an_emf_is_the_one_that_made_it(kind: Kind, fraction: float) -> None:
    low, high = span(kind)
    celsius = min(low + fraction * (high - low), high)
    emf = thermocouple.emf_mv(kind, celsius)
    assert abs(thermocouple.celsius(kind, emf) - celsius) < 1e-6
    assert thermocouple.status(kind, emf) == OK


@each_kind
def test_a_temperature_a_breath_inside_of_a_limit_is_not_lost_by_rounding(kind: Kind) -> None:
    low, high = span(kind)
    steps = np.arange(200) * 1e-14
    celsius = np.concatenate([low + abs(low) * steps, high - high * steps])
    emf = thermocouple.emf_mv(kind, celsius)
    np.testing.assert_allclose(thermocouple.celsius(kind, emf), celsius, rtol=0, atol=1e-6)
    assert not thermocouple.status(kind, emf).any()


@each_kind
def test_the_inverse_holds_on_a_dense_grid_of_the_whole_range(kind: Kind) -> None:
    celsius = np.linspace(*span(kind), 50_001)
    found = thermocouple.celsius(kind, thermocouple.emf_mv(kind, celsius))
    np.testing.assert_allclose(found, celsius, rtol=0, atol=1e-6)
    assert np.all(np.diff(found) > 0)


@each_kind
def test_each_inverse_polynomial_alone_is_as_near_as_nist_says(kind: Kind) -> None:
    for piece, error in zip(CURVES[kind].inverse, INVERSE_ERROR_CELSIUS[kind], strict=True):
        celsius = np.linspace(piece.low, piece.high, 5001)
        alone = polynomial(thermocouple.emf_mv(kind, celsius), piece.coefficients)
        largest = np.max(np.abs(alone - celsius))
        assert 0.3 * error < largest < 1.05 * error, f"{piece.low} to {piece.high} °C"


@each_kind
def test_pieces_join_without_a_hole_or_a_step(kind: Kind) -> None:
    curves = CURVES[kind]
    for pieces in (curves.reference, curves.inverse):
        assert all(lower.high == upper.low for lower, upper in pairwise(pieces))
    for piece in curves.reference[:-1]:
        at, beyond = thermocouple.emf_mv(kind, [piece.high, np.nextafter(piece.high, np.inf)])
        assert abs(beyond - at) < 1e-7
    for piece in curves.inverse[:-1]:
        emf = thermocouple.emf_mv(kind, piece.high)
        at, beyond = thermocouple.celsius(kind, [emf, np.nextafter(emf, np.inf)])
        assert at == pytest.approx(piece.high, abs=1e-6)
        assert beyond == pytest.approx(piece.high, abs=2e-6)


def test_0_celsius_is_exactly_0_mv() -> None:
    assert [float(thermocouple.emf_mv(kind, 0.0)) for kind in KINDS] == [0.0] * 8
    assert [float(thermocouple.celsius(kind, 0.0)) for kind in KINDS if kind != "B"] == pytest.approx([0] * 7, abs=1e-9)


@each_kind
def test_outside_of_the_range_is_nan_with_the_status_that_says_why(kind: Kind) -> None:
    low, high = thermocouple.emf_mv(kind, span(kind))
    emf = [-np.inf, low - 1e-6, low, high, high + 1e-6, np.inf, np.nan]
    status = thermocouple.status(kind, emf)
    assert status.tolist() == [LOW, LOW, OK, OK, HIGH, HIGH, OPEN]
    celsius = thermocouple.celsius(kind, emf)
    assert (~np.isnan(celsius)).tolist() == (status == OK).tolist()
    assert celsius[2:4].tolist() == pytest.approx(span(kind), abs=1e-6)
    assert not np.isnan(thermocouple.emf_mv(kind, celsius[2:4])).any()


@each_kind
def test_an_emf_is_told_only_where_the_reference_function_holds(kind: Kind) -> None:
    low, high = CURVES[kind].reference[0].low, CURVES[kind].reference[-1].high
    emf = thermocouple.emf_mv(kind, [-np.inf, low - 0.001, low, high, high + 0.001, np.inf, np.nan])
    assert np.isnan(emf).tolist() == [True, True, False, False, True, True, True]


def test_b_is_not_told_where_two_temperatures_have_one_emf() -> None:
    assert thermocouple.emf_mv("B", [0.0, 42.0]) == pytest.approx([0, 0], abs=1e-4)
    assert np.isnan(thermocouple.celsius("B", 0.0))
    assert thermocouple.status("B", 0.0) == LOW


def test_the_cold_junction_is_added_as_an_emf_not_as_degrees() -> None:
    emf = thermocouple.compensated_mv("T", [14.862 - 2.036, -5.439 - 2.036], 50.0)  # 50 °C is 2.036 mV, 0.039 each °C
    assert thermocouple.celsius("T", emf) == pytest.approx([300, -190], abs=0.05)
    per_sample = thermocouple.compensated_mv("K", [[40.276, 40.276]], [25.0, 0.0])
    assert per_sample == pytest.approx(np.array([[41.276, 40.276]]), abs=0.0005)


def test_an_unknown_cold_junction_makes_no_temperature() -> None:
    emf = thermocouple.compensated_mv("T", [1.0, 1.0], [20.0, np.nan])
    assert np.isnan(thermocouple.celsius("T", emf)).tolist() == [False, True]
    assert thermocouple.status("T", emf).tolist() == [OK, OPEN]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 3), (0, 4)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    celsius = np.full(shape, 300.0)
    emf = thermocouple.emf_mv("K", celsius)
    assert isinstance(emf, np.ndarray)
    assert isinstance(thermocouple.celsius("K", emf), np.ndarray)
    assert emf.shape == thermocouple.celsius("K", emf).shape == thermocouple.status("K", emf).shape == shape
    np.testing.assert_allclose(thermocouple.celsius("K", emf), celsius, rtol=0, atol=1e-6)


def test_each_sample_is_converted_by_itself_whatever_lies_beside_it() -> None:
    emf = thermocouple.emf_mv("R", [[1700.0, -40.0, 500.0], [1065.0, 1064.0, np.nan]])
    together = thermocouple.celsius("R", emf[:, ::-1])
    alone = [[float(thermocouple.celsius("R", mv)) for mv in row[::-1]] for row in emf]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-9)
    np.testing.assert_allclose(together, [[500, -40, 1700], [np.nan, 1064, 1065]], rtol=0, atol=1e-6)


def test_what_is_given_is_not_changed() -> None:
    emf = np.array([1.0, 99.0, np.nan])
    thermocouple.celsius("K", emf)
    assert emf[:2].tolist() == [1.0, 99.0]


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    for convert in (thermocouple.emf_mv, thermocouple.celsius, thermocouple.status):
        with pytest.raises(ValueError, match=r"'C'.*B, E, J, K, N, R, S, T"):
            convert("C", 1.0)  # type: ignore[arg-type]
