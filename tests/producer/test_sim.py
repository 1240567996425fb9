import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.producer.acquired import config_of

from dtolbus.errors import UsageError
from dtolbus.records import SensorStatus
from dtolbus_producer.boards import Buffer, Fault
from dtolbus_producer.boards.sim import SimBoard
from dtolbus_producer.boards.simchannels import read_back_rate_hz, volts_channel
from dtolbus_producer.boards.simsignal import simulated_codes, simulated_temperatures
from dtolbus_producer.runid import new_run_id
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig


@given(st.integers(0, 2**40), st.integers(1, 500), st.integers(0, 500), st.integers(0, 2**31), st.integers(0, 15))
def test_codes_are_the_same_in_pieces_of_any_size(first, count, cut, seed, channel):
    cut = min(cut, count)
    whole = simulated_codes(seed, channel, first, count, rate_hz=12_345.6)
    left = simulated_codes(seed, channel, first, cut, rate_hz=12_345.6)
    right = simulated_codes(seed, channel, first + cut, count - cut, rate_hz=12_345.6)

    assert whole.dtype == np.uint16
    np.testing.assert_array_equal(whole, np.concatenate([left, right]))


def test_seeds_and_channels_differ():
    rows = {simulated_codes(s, c, 0, 100, rate_hz=1000.0).tobytes() for s in range(3) for c in range(16)}
    assert len(rows) == 48


@pytest.mark.parametrize(
    ("gain", "code", "volts"), [(1, 32768, 0.0), (1, 34406.4, 0.5), (10, 65536, 1.0), (500, 0, -0.02)]
)
def test_offset_binary_codes_are_volts(gain, code, volts):
    channel = volts_channel(ChannelConfig("a", gain=gain))
    assert code * channel.scale + channel.offset == pytest.approx(volts, abs=1e-12)
    assert channel.encoding == "offset_binary"
    assert channel.resolution_bits == 16


def test_the_range_chooses_the_gain_and_the_sensitivity_the_unit():
    channel = volts_channel(ChannelConfig("a", range=0.5, unit="g", sensitivity_v=0.1))
    assert (channel.gain, channel.range, channel.unit) == (10.0, (-1.0, 1.0), "g")
    assert 65535 * channel.scale + channel.offset == pytest.approx(10.0, abs=0.001)


def test_the_rate_is_the_one_the_clock_can_give():
    task = TaskConfig("t", rate_hz=12_000.0, channels=("a", "b", "c"))
    assert read_back_rate_hz(task) == pytest.approx(24e6 / 667 / 3)
    assert read_back_rate_hz(TaskConfig("t", rate_hz=10_000.0, channels=("a", "b"))) == 10_000.0


def test_callbacks_are_late_but_never_early():
    device = DeviceConfig("d", options={"lateness_ms": 20.0, "drift_ppm": 50.0})
    source = SimBoard(device).blocks(TaskConfig("t", rate_hz=10_000.0, block_samples=50, channels=("a",)))
    source.start()
    lateness_ns = []
    for n in range(20):
        buffer = source.read(5.0)
        assert isinstance(buffer, Buffer)
        lateness_ns.append(buffer.arrived_mono_ns - (source.started_mono_ns + (n + 1) * 50 * source.true_period_ns))
    source.stop()

    assert min(lateness_ns) >= 0
    assert max(lateness_ns) > 3e6
    assert source.true_period_ns == pytest.approx(1e5 / 1.00005)


def test_nothing_comes_before_its_time():
    source = SimBoard(DeviceConfig("d")).blocks(TaskConfig("t", rate_hz=1000.0, block_samples=10_000, channels=("a",)))
    source.start()
    assert source.read(0.0) is None


def test_an_open_thermocouple_has_no_value_but_a_status():
    options = {"open_thermocouple": {"channel": "tc1", "from_s": 1.0, "to_s": 2.0}}
    channels = tuple(ChannelConfig(f"tc{n}", physical=n, thermocouple="K") for n in range(2))
    source = SimBoard(DeviceConfig("d", options=options)).readings(
        TaskConfig("t", "readings", rate_hz=10.0, channels=channels)
    )

    fine, broken, again = source.poll(9), source.poll(10), source.poll(20)

    assert fine.values["tc1"] == simulated_temperatures(0, 1, 9, 1, rate_hz=10.0)[0]
    assert not fine.sensor_status
    assert math.isnan(broken.values["tc1"])
    assert broken.values["tc0"] == simulated_temperatures(0, 0, 10, 1, rate_hz=10.0)[0]
    assert broken.sensor_status == {"tc1": SensorStatus.SENSOR_OPEN}
    assert not again.sensor_status
    assert source.plan.channels[0].unit == "°C"


def test_an_overrun_tells_how_much_was_lost_and_goes_on_behind_it():
    device = DeviceConfig("d", options={"speed": "max", "overrun_at_s": 0.2})
    source = SimBoard(device).blocks(TaskConfig("t", rate_hz=1000.0, block_samples=100, channels=("a",)))
    source.start()
    found = [source.read(1.0) for _ in range(4)]

    assert isinstance(found[2], Fault)
    assert (found[2].kind, found[2].lost_samples, found[2].fatal) == ("overrun", 100, False)
    np.testing.assert_array_equal(found[3].codes[0], simulated_codes(0, 0, 300, 100, rate_hz=1000.0))


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        ({"rate_hz": 20_000.0, "channels": ["a", "b", "c"]}, {}, "at most 16666.66667 Hz"),
        ({"rate_hz": 1000.0, "channels": []}, {}, "no channels"),
        ({"rate_hz": 1000.0, "channels": [{"name": "a", "physical": 16}]}, {}, "inputs 0 to 15"),
        ({"rate_hz": 1000.0, "channels": [{"name": "a", "gain": 3.0}]}, {}, "gains of a DT9806 are 1, 10, 100, 500"),
        ({"rate_hz": 1000.0, "channels": [{"name": "a", "range": 12.0}]}, {}, "10, 1, 0.1, 0.02 V"),
        ({"rate_hz": 1000.0, "channels": [{"name": "a", "unit": "g"}]}, {}, "sensitivity_v"),
        ({"rate_hz": 1000.0, "channels": [{"name": "a", "thermocouple": "K"}]}, {}, "polled tasks only"),
        ({"rate_hz": 1000.0, "channels": ["a"]}, {"speed": -1.0}, "options.speed"),
        ({"rate_hz": 1000.0, "channels": ["a"]}, {"sped": 2.0}, "did you mean 'speed'"),
        ({"rate_hz": 1000.0, "channels": ["a"]}, {"open_thermocouple": {"channel": "b"}}, "'b'"),
    ],
)
def test_what_a_dt9806_cannot_do_is_refused_before_it_is_tried(task, options, says):
    with pytest.raises(UsageError) as refused:
        config_of({"name": "t", **task}, options=options)
    assert says in str(refused.value)
    assert "device[0]." in str(refused.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"speed": math.nan}, "options.speed: nan: give 1e-06 to 1e+06, or 'max'"),
        ({"speed": 1e9}, "options.speed: 1000000000.0: give 1e-06 to 1e+06, or 'max'"),
        ({"seed": -1}, "options.seed: -1: give 0 to 9.22337e+18"),
        ({"throughput_hz": 0.0}, "options.throughput_hz: 0: give 1e-06 to 1e+12"),
        ({"drift_ppm": -1e6}, "options.drift_ppm: -1e+06: give -100000 to 100000"),
        ({"drift_ppm": math.nan}, "options.drift_ppm: nan: give -100000 to 100000"),
        ({"lateness_ms": -1.0}, "options.lateness_ms: -1: give 0 to 60000"),
        ({"overrun_at_s": -1.0}, "options.overrun_at_s: -1: give 0 to 1e+10"),
        ({"lose_device_at_s": math.nan}, "options.lose_device_at_s: nan: give 0 to 1e+10"),
        ({"lost_for_s": math.inf}, "options.lost_for_s: inf: give 0 to 1e+10"),
        (
            {"open_thermocouple": {"channel": "a", "from_s": -2.0}},
            "options.open_thermocouple.from_s: -2: give 0 to 1e+10",
        ),
        (
            {"open_thermocouple": {"channel": "a", "from_s": 2.0, "to_s": 1.0}},
            "options.open_thermocouple.to_s: 1: give a time after from_s = 2, or leave it out",
        ),
    ],
)
def test_options_that_cannot_be_meant_are_refused_by_key_value_and_range(options, says):
    task = {"name": "t", "kind": "readings", "channels": [{"name": "a", "thermocouple": "K"}]}
    with pytest.raises(UsageError) as refused:
        config_of(task, options=options)
    assert str(refused.value) == f"config: device[0].{says}"


def test_one_subsystem_is_either_clocked_or_polled():
    tasks = [
        {"name": "fast", "rate_hz": 1000.0, "channels": ["a"]},
        {"name": "slow", "kind": "readings", "rate_hz": 1.0, "channels": ["b"]},
    ]
    with pytest.raises(UsageError, match=r"one A/D subsystem.*'fast', 'slow' a device of its own"):
        config_of({}, device={"task": tasks})


def test_run_ids_sort_by_age():
    import uuid

    before = time.time_ns() // 1_000_000
    run_id = uuid.UUID(new_run_id())
    assert (run_id.version, run_id.variant) == (7, uuid.RFC_4122)
    assert before <= run_id.int >> 80 <= time.time_ns() // 1_000_000
    assert new_run_id(1) < new_run_id(2) < new_run_id(2**40)
