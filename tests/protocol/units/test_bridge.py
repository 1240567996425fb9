"""Strain bridges: each equation against the resistors of the bridge that it describes."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtolbus.records import SensorStatus
from dtolbus.units.bridge import Bridge, Configuration, status, strain

CONFIGURATIONS: tuple[Configuration, ...] = get_args(Configuration)
POISSON = 0.285


def measured_ratio(configuration: Configuration, strain: float, factor: float, lead: float = 0.0) -> float:
    """V_out / V_excitation of four resistors (nominal 1), by the two dividers; `lead` in series with each gauge."""
    x, y = factor * strain, factor * strain * POISSON
    r1, r2, r3, r4 = {
        "quarter": (1, 1, 1, 1 + x),
        "half_poisson": (1, 1, 1 - y, 1 + x),
        "half_bending": (1, 1, 1 - x, 1 + x),
        "full_bending": (1 - x, 1 + x, 1 - x, 1 + x),
        "full_bending_poisson": (1 - y, 1 + y, 1 - x, 1 + x),
        "full_axial": (1 - y, 1 + x, 1 - y, 1 + x),
    }[configuration]
    return (r3 + lead) / (r3 + lead + r4 + lead) - r2 / (r1 + r2)


def bridge(configuration: Configuration, **settings: Any) -> Bridge:
    return Bridge(**{"configuration": configuration, "gauge_factor": 2.0, "poisson_ratio": POISSON, **settings})


@given(st.sampled_from(CONFIGURATIONS), st.floats(-0.05, 0.05), st.floats(1.5, 4))
def test_the_strain_is_the_one_that_changed_the_resistors(
    configuration: Configuration, true: float, factor: float
) -> None:
    ratio = measured_ratio(configuration, true, factor)
    assert strain(bridge(configuration, gauge_factor=factor), ratio) == pytest.approx(true, rel=1e-9, abs=1e-12)


SENSITIVITY = {
    "quarter": 0.5, "half_poisson": 0.65, "half_bending": 1.0, "full_bending": 2.0, "full_bending_poisson": 1.3,
    "full_axial": 1.3,
}  # fmt: skip
"""mV/V that NI-DAQmx Help gives for 1000 µε, gauge factor 2 and ν = 0.3."""


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_1000_microstrain_has_the_sensitivity_of_the_handbook(configuration: Configuration) -> None:
    ratio = -SENSITIVITY[configuration] * 1e-3
    assert strain(bridge(configuration, poisson_ratio=0.3), ratio) == pytest.approx(1000e-6, rel=0.002)


def test_a_quarter_bridge_is_not_linear() -> None:
    two_percent = strain(bridge("quarter"), [-0.0196078431372549, 0.020833333333333332])
    assert two_percent == pytest.approx([0.0408163265306122, -0.04], rel=1e-9)
    tension, pressure = strain(bridge("quarter"), [-0.01, 0.01])
    assert tension == pytest.approx(0.04 / 1.96)
    assert pressure == pytest.approx(-0.04 / 2.04)


def test_the_unstrained_ratio_is_taken_off() -> None:
    unbalanced = bridge("quarter", initial_ratio=1.5e-3)
    assert strain(unbalanced, 1.5e-3) == 0
    assert strain(unbalanced, 1e-3) == pytest.approx(float(strain(bridge("quarter"), -0.5e-3)), rel=1e-9)


@pytest.mark.parametrize("configuration", ["quarter", "half_poisson", "half_bending"])
def test_leads_in_series_with_the_gauges_do_not_falsify(configuration: Configuration) -> None:
    ratio = measured_ratio(configuration, 1e-3, 2.0, lead=7 / 350)
    assert strain(bridge(configuration), ratio) == pytest.approx(1e-3 / 1.02, rel=1e-9)
    assert strain(bridge(configuration, lead_ohm=7, gauge_ohm=350), ratio) == pytest.approx(1e-3, rel=1e-9)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_ratio_that_no_closed_bridge_has_is_an_open_one(configuration: Configuration) -> None:
    limit = 1.0 if configuration.startswith("full") else 0.5
    ratio = [-np.inf, -limit, limit, np.inf, np.nan, 0.0, -0.001]
    assert status(bridge(configuration), ratio).tolist() == [SensorStatus.SENSOR_OPEN] * 5 + [SensorStatus.OK] * 2
    assert np.isnan(strain(bridge(configuration), ratio)).tolist() == [True] * 5 + [False] * 2
    offset = bridge(configuration, initial_ratio=-0.01)
    assert np.isnan(strain(offset, [-limit, limit - 0.005])).all()


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    for configuration in CONFIGURATIONS:
        result = strain(bridge(configuration), np.zeros(shape))
        assert isinstance(result, np.ndarray)
        assert result.shape == status(bridge(configuration), np.zeros(shape)).shape == shape
        assert not result.any()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"configuration": "half"}, "configuration is 'half': it can be quarter, half_poisson"),
        ({"gauge_factor": 0.0}, "gauge_factor is 0.0"),
        ({"gauge_factor": np.nan}, "gauge_factor is nan"),
        ({"initial_ratio": 0.5}, "initial_ratio is 0.5"),
        ({"initial_ratio": np.nan}, "initial_ratio is nan"),
        ({"configuration": "full_axial", "poisson_ratio": None}, "full_axial bridge needs poisson_ratio"),
        ({"poisson_ratio": 0.6}, "poisson_ratio is 0.6"),
        ({"lead_ohm": -1.0, "gauge_ohm": 350}, "lead_ohm is -1.0"),
        ({"lead_ohm": 1.0}, "needs gauge_ohm"),
        ({"gauge_ohm": 0.0}, "gauge_ohm is 0.0"),
        ({"configuration": "full_bending", "lead_ohm": 1.0, "gauge_ohm": 350}, "full bridge's leads"),
    ],
)
def test_a_bridge_that_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        bridge(**{"configuration": "quarter", **settings})
