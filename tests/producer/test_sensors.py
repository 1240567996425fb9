"""Sensors with conversions: simulated, played back, checked; what is open or out of range is told."""

import json
import math

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, readings_of, records_of
from tests.producer.looking import call

from dtolbus.errors import UsageError
from dtolbus.records import DaqEvent, DaqReading, SensorStatus
from dtolbus.runs import segment_name
from dtolbus.units.conversion import Rtd, Thermocouple
from dtolbus_producer.boards import Buffer
from dtolbus_producer.boards.sim import SimBlocks
from dtolbus_producer.boards.simsensors import sensor_codes
from dtolbus_producer.boards.simsignal import simulated_temperatures
from dtolbus_producer.config import config_from
from dtolbus_producer.lookingcli import check

CHANNELS = [
    {"name": "tc", "physical": 1, "thermocouple": "K", "cold_junction": "cjc"},
    {"name": "cjc", "physical": 0, "sensitivity_v": 0.01, "unit": "°C"},
    {"name": "pt", "physical": 2, "range": 1, "rtd": {"r0_ohm": 100, "excitation_a": 0.001}},
    {
        "name": "strain",
        "physical": 3,
        "gain": 100,
        "unit": "µm/m",
        "bridge": {"configuration": "quarter", "gauge_factor": 2.1, "excitation_v": 5},
    },
    {"name": "flow", "physical": 4, "polynomial": [1, 2, 0.5], "unit": "l/s"},
    {"name": "ntc", "physical": 5, "table": [[0, 100], [2.5, 25], [5, -10]], "unit": "°C"},
    {"name": "plain", "physical": 6},
]
MAX = {"speed": "max"}
OPEN = {"open_thermocouple": {"channel": "tc", "from_s": 0.5, "to_s": 0.7}}


def task_of(channels=CHANNELS, **rest):
    return {"name": "t", "rate_hz": 500.0, "samples": 500, "channels": channels, **rest}


def data_of(run):
    blocks = blocks_of(run)
    return dict(zip(blocks[0].channels, np.concatenate([block.data for block in blocks], axis=1), strict=True))


def status_of(run, channel):
    parts = [
        block.sensor_status.get(channel, np.zeros(block.samples_per_channel, np.int64)) for block in blocks_of(run)
    ]
    return np.concatenate(parts)


def test_each_sensor_of_a_simulated_board_gives_what_it_measures(tmp_path):
    (run,) = acquire_all(config_of(task_of(), options=MAX), tmp_path)
    data = data_of(run)
    assert run.info.units == {
        "tc": "°C", "cjc": "°C", "pt": "°C", "strain": "µm/m", "flow": "l/s", "ntc": "°C", "plain": "V",
    }  # fmt: skip
    true = [simulated_temperatures(0, n, 0, 500, rate_hz=run.info.rate_hz) for n in (1, 2)]
    np.testing.assert_allclose(data["tc"], true[0], atol=0.06)  # half a code of ±0.1 V: 0.04 °C
    np.testing.assert_allclose(data["pt"], true[1], atol=0.06)  # half a code of ±1.25 V at 1 mA: 0.05 °C
    assert (np.abs(data["cjc"] - 25) < 1).all()
    assert 10 < data["strain"].max() < 200
    volts = data["plain"]
    assert np.ptp(volts) > 1
    assert not any(block.sensor_status for block in blocks_of(run))


def test_codes_stay_in_the_journal_and_the_conversion_in_the_header(tmp_path):
    (run,) = acquire_all(config_of(task_of(), options=MAX), tmp_path)
    by_name = {channel.name: channel for channel in run.info.channels}
    assert by_name["tc"].conversion == Thermocouple("K", "cjc")
    assert by_name["pt"].conversion == Rtd(100.0, 0.001)
    assert by_name["plain"].conversion is None
    codes = np.concatenate([block.raw_codes for block in blocks_of(run)], axis=1)
    np.testing.assert_array_equal(codes, sensor_codes(0, run.info.channels, 0, 500, rate_hz=run.info.rate_hz))


def test_an_open_thermocouple_in_a_block_is_nan_with_a_status_for_just_that_time(tmp_path):
    (run,) = acquire_all(config_of(task_of(), options={**MAX, **OPEN}), tmp_path)
    seconds = np.arange(500) / run.info.rate_hz
    is_open = (seconds >= 0.5) & (seconds < 0.7)
    np.testing.assert_array_equal(np.isnan(data_of(run)["tc"]), is_open)
    np.testing.assert_array_equal(status_of(run, "tc"), np.where(is_open, SensorStatus.SENSOR_OPEN, 0))
    assert not np.isnan(data_of(run)["pt"]).any()
    assert {name for block in blocks_of(run) for name in block.sensor_status} == {"tc"}


def test_polled_sensors_give_the_same_as_clocked_ones(tmp_path):
    polled = {"name": "t", "kind": "readings", "rate_hz": 100.0, "samples": 80, "channels": CHANNELS}
    (run,) = acquire_all(config_of(polled, options=OPEN), tmp_path)
    readings, slot = readings_of(run), 0
    for reading in records_of(run):
        if isinstance(reading, DaqEvent):  # a busy machine misses a slot now and then, and says so
            slot += reading.lost_samples
            continue
        assert isinstance(reading, DaqReading)
        true = simulated_temperatures(0, 1, slot, 1, rate_hz=100.0)[0]
        is_open = 0.5 <= slot / 100 < 0.7
        assert list(reading.values) == [channel["name"] for channel in CHANNELS]
        assert reading.sensor_status == ({"tc": SensorStatus.SENSOR_OPEN} if is_open else {})
        if is_open:
            assert math.isnan(reading.values["tc"])
        else:
            assert reading.values["tc"] == pytest.approx(true, abs=0.06)
        slot += 1
    assert slot == 80
    assert readings[0].units["strain"] == "µm/m"


def test_what_the_board_tells_counts_beside_what_the_codes_tell(tmp_path, monkeypatch):
    plain = SimBlocks.read

    def telling(source, timeout_s):
        found = plain(source, timeout_s)
        if isinstance(found, Buffer):
            samples = found.codes.shape[1]
            told = {"plain": np.full(samples, 2), "tc": np.where(np.arange(samples) == 3, 3, 0)}
            return found._replace(sensor_status=told)
        return found

    monkeypatch.setattr(SimBlocks, "read", telling)
    options = {"open_thermocouple": {"channel": "tc", "to_s": 0.01}, **MAX}  # the first 6 samples, at 500 Hz 2 ms each
    (run,) = acquire_all(config_of(task_of(samples=50), options=options), tmp_path)
    (block,) = blocks_of(run)
    assert block.sensor_status["tc"][:7].tolist() == [1, 1, 1, 3, 1, 1, 0]
    assert (block.sensor_status["plain"] == 2).all()
    assert np.isnan(block.data[CHANNELS.index(CHANNELS[-1])]).all()


def test_a_recording_of_sensors_is_played_with_its_conversions_and_status(tmp_path):
    (recorded,) = acquire_all(config_of(task_of(), options={**MAX, **OPEN}), tmp_path / "a")
    path = recorded.path / segment_name("blocks", 0)
    device = {"board": f"playback:{path}", "options": MAX}
    (played,) = acquire_all(config_from({"device": [{"name": "d", "task": [{"name": "t"}], **device}]}), tmp_path / "b")
    assert played.info.channels == recorded.info.channels
    for name, values in data_of(recorded).items():
        np.testing.assert_array_equal(data_of(played)[name], values)
        np.testing.assert_array_equal(status_of(played, name), status_of(recorded, name))

    def only(*channels):
        task = {"name": "t", "channels": list(channels)}
        return config_from({"device": [{"name": "d", "task": [task], **device}]})

    with pytest.raises(UsageError, match=r"channels\[0\]: 'tc' needs its cold junction 'cjc': add that channel"):
        only("tc")
    with pytest.raises(UsageError, match=r"channels\[0\].polynomial: the recording says itself what it measured"):
        only({"name": "plain", "polynomial": [0, 1], "unit": "bar"})
    only("tc", "cjc")


def test_check_tells_what_becomes_of_the_volts(tmp_path, capsys):
    path = tmp_path / "lab.json"
    path.write_text(
        json.dumps({"device": [{"name": "d", "task": [task_of()]}], "gateway": {"pub_port": 0, "catchup_port": 0}})
    )
    done = call(check, ["--config", path, "--data", tmp_path / "data"], capsys)
    assert (done.code, done.err) == (0, "")
    for words in (
        "-0.1 to 0.1 V 100 -199.55 to 1371.06 °C",
        "thermocouple K type K (ITS-90), cold junction from cjc",
        "RTD of 100 Ω at 0 °C (IEC 60751), 0.001 A",
        "quarter bridge, gauge factor 2.1, 5 V",
        "polynomial of degree 2",
        "table of 3 points, 0 to 5 V",
    ):
        assert words in " ".join(done.out.split())
