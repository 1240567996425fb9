"""Conversions as they travel: what each makes of volts, and what cannot be made."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtolbus.channels import Channel, engineering, status_of_codes
from dtolbus.records import SensorStatus
from dtolbus.units import rtd, thermocouple
from dtolbus.units.conversion import MOST_POINTS, Bridge, Conversion, Lookup, Polynomial, Rtd, Thermocouple
from dtolbus.units.its90 import KINDS

OK, OPEN, LOW, HIGH = SensorStatus
EACH = [
    Polynomial((1.0, -2.0, 0.5)),
    Lookup((0.0, 1.0, 4.0), (-1.0, 10.0, 10.5)),
    Thermocouple("K", "cjc"),
    Thermocouple("S", 25.0),
    Rtd(100.0, 1e-3),
    Rtd(1000.0, 1e-4, (3.9e-3, -5.8e-7, -4.2e-12)),
    Bridge(
        "half_poisson", 2.1, 5.0, initial_ratio=1e-4, poisson_ratio=0.3, lead_ohm=0.5, gauge_ohm=350.0, per_strain=1e6
    ),
]
EACH_BY_NAME = pytest.mark.parametrize("conversion", EACH, ids=lambda one: type(one).__name__)


@EACH_BY_NAME
def test_each_comes_back_equal_from_json_and_msgpack(conversion: Conversion) -> None:
    for codec in (msgspec.json, msgspec.msgpack):
        assert codec.decode(codec.encode(conversion), type=Conversion) == conversion


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Polynomial(()), "no coefficients"),
        (lambda: Polynomial((1.0, math.nan)), "coefficient 1 is nan"),
        (lambda: Lookup((0.0, 0.0), (1.0, 2.0)), "x must strictly rise"),
        (lambda: Lookup((0.0,), (1.0,)), "at least two"),
        (lambda: Lookup(tuple(range(MOST_POINTS + 1)), tuple(range(MOST_POINTS + 1))), "1000 are the most"),
        (lambda: Thermocouple("X", 25.0), "it can be B, E, J, K, N, R, S, T"),  # type: ignore[arg-type]
        (lambda: Thermocouple("K", 1400.0), "cold_junction is 1400.0"),
        (lambda: Rtd(0.0, 1e-3), "r0_ohm is 0.0"),
        (lambda: Rtd(100.0, 0.0), "excitation_a is 0.0"),
        (lambda: Rtd(100.0, 1e-3, (1.0, 2.0, 3.0)), "dR/dt must stay"),
        (lambda: Bridge("quarter", 2.0, 0.0), "excitation_v is 0.0"),
        (lambda: Bridge("quarter", 0.0, 5.0), "gauge_factor is 0.0"),
        (lambda: Bridge("quarter", 2.0, 5.0, per_strain=math.inf), "per_strain is inf"),
    ],
)
def test_what_cannot_be_is_refused_also_when_it_arrives(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        make()


def test_one_that_arrives_and_cannot_be_is_no_conversion() -> None:
    with pytest.raises(msgspec.ValidationError, match="excitation_a is 0"):
        msgspec.json.decode(b'{"type":"rtd","r0_ohm":100,"excitation_a":0}', type=Conversion)


def test_a_polynomial_is_of_volts() -> None:
    assert Polynomial((1.0, -2.0, 0.5)).value(np.array([0.0, 2.0])).tolist() == [1.0, -1.0]


@given(st.floats(-4, 4))
def test_a_table_is_read_back_and_beyond_its_ends_there_is_no_value(volts: float) -> None:
    x, y = (-3.0, -1.0, 2.0, 3.0), (100.0, 40.0, 39.0, 0.0)
    (value,), (status,) = Lookup(x, y).value(np.array([volts])), Lookup(x, y).status(np.array([volts]))
    if -3 <= volts <= 3:
        assert (status, np.interp(value, y[::-1], x[::-1])) == (OK, pytest.approx(volts, abs=1e-9))
    else:  # a table that falls: at the left end is its highest value
        assert math.isnan(value)
        assert status == (HIGH if volts < 0 else LOW)


def test_a_table_written_downwards_has_the_same_ends() -> None:
    up, down = Lookup((0.0, 1.0), (5.0, 9.0)), Lookup((1.0, 0.0), (9.0, 5.0))
    volts = np.array([-0.1, 0.5, 1.1])
    assert up.status(volts).tolist() == down.status(volts).tolist() == [LOW, OK, HIGH]
    np.testing.assert_array_equal(up.value(volts), down.value(volts))


@given(st.sampled_from(KINDS), st.floats(0, 1), st.floats(0, 50))
def test_a_thermocouple_gives_the_temperature_that_made_its_volts(kind: Any, part: float, junction: float) -> None:
    low, high = {"B": (300, 1800), "T": (-190, 400)}.get(kind, (0, 1000))
    celsius = low + part * (high - low)
    volts = (thermocouple.emf_mv(kind, celsius) - thermocouple.emf_mv(kind, junction)) / 1000
    conversion = Thermocouple(kind, "cjc")
    found = conversion.value(conversion.compensated_mv(np.array([volts]), np.array([junction])))
    assert found == pytest.approx([celsius], abs=1e-5)


@given(st.floats(-200, 850), st.sampled_from([100.0, 1000.0]), st.sampled_from([1e-3, -5e-4]))
def test_an_rtd_gives_the_temperature_that_made_its_volts(celsius: float, r0_ohm: float, current_a: float) -> None:
    volts = rtd.resistance_ohm(celsius, r0_ohm) * current_a
    assert Rtd(r0_ohm, current_a).value(np.array([volts])) == pytest.approx([celsius], abs=1e-8)


@given(st.floats(-5e-3, 5e-3), st.floats(1, 10))
def test_a_quarter_bridge_gives_the_strain_that_made_its_volts(strain: float, excitation_v: float) -> None:
    change = 2.1 * strain
    volts = excitation_v * -change / (4 + 2 * change)
    assert Bridge("quarter", 2.1, excitation_v, per_strain=1e6).value(np.array([volts])) == pytest.approx(
        [strain * 1e6], abs=1e-6
    )


@pytest.mark.parametrize(
    "conversion",
    [
        Polynomial((0.0, 1e308)),
        Polynomial((1e308, 1e308, 1e308)),
        Polynomial((0.0, 1e300, -1e305, 1e308)),
        Lookup((-10.0, 0.0, 1e-9, 10.0), (-1e308, -1e308, 1e308, 1e308)),
    ],
)
def test_a_value_beyond_all_numbers_is_nan_with_a_status_and_any_other_has_none(conversion):
    volts = np.array([-10.0, -1.0, 0.0, 5e-10, 1.0, 10.0, np.nan])
    values, status = conversion.value(volts), conversion.status(volts)
    assert not np.isinf(values).any()
    np.testing.assert_array_equal(np.isnan(values), status != SensorStatus.OK)
    assert status[-1] == SensorStatus.SENSOR_OPEN
    assert (status[:-1] != SensorStatus.OK).any()
    assert (status[:-1] == SensorStatus.OK).any()


def test_on_which_side_it_lies_is_told():
    status = Polynomial((0.0, 1e308)).status(np.array([-10.0, 10.0]))
    assert status.tolist() == [SensorStatus.TEMP_OUT_OF_RANGE_LOW, SensorStatus.TEMP_OUT_OF_RANGE_HIGH]


def test_a_block_of_such_values_has_them_as_nan_and_their_status():
    channel = Channel("x", scale=0.1, conversion=Polynomial((0.0, 1e308)))
    codes = np.array([[-100, -1, 0, 1, 100]])
    np.testing.assert_array_equal(np.isnan(engineering(codes, [channel])[0]), [True, False, False, False, True])
    assert status_of_codes(codes, [channel])["x"].tolist() == [2, 0, 0, 0, 3]
