"""The uldaq board, on the package uldaq and a stand-in of its library that is built here (no hardware)."""

import ctypes.util
import sys
import threading
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, events_of
from tests.producer.looking import call
from tests.producer.ulbench import (
    DEAD_DEV,
    ERROR,
    STALL,
    TRUE_HZ,
    codes_of,
    config_of,
    device_of,
    forget_uldaq,
    library,
    opened,
    small_ring,
    standin,
    volts_of,
)

from dtolbus.errors import BoardError, CannotStartError, UsageError
from dtolbus.records import SensorStatus
from dtolbus_producer.boards import Readout, finding, ulchannels
from dtolbus_producer.boards.sharing import refuse_shared
from dtolbus_producer.boards.testing import BLOCK, SAMPLES, BoardConformance
from dtolbus_producer.boards.ul import UlBoard
from dtolbus_producer.boards.ulchannels import range_named
from dtolbus_producer.boards.uldriver import AnalogInput
from dtolbus_producer.checking.looking import look
from dtolbus_producer.config import Config, config_from
from dtolbus_producer.lookingcli import boards
from dtolbus_producer.sensorconfig import RtdConfig
from dtolbus_producer.stack import run_up
from dtolbus_producer.tasks import ChannelConfig, TaskConfig, WrongKeyError

__all__ = ["library", "standin"]  # fixtures


class Conformance(BoardConformance):
    faults = frozenset({"overrun", "loss"})

    @pytest.fixture(autouse=True)
    def _standin(self, standin, monkeypatch):
        self.standin = standin
        small_ring(monkeypatch)

    def device(self, place, fault="", **task):
        if fault == "overrun":
            self.standin.happens(STALL, 400)
        elif fault == "loss":
            self.standin.happens(ERROR, 450, error=DEAD_DEV, away=2)
        return device_of(**task)

    def polled(self, place):
        return device_of(kind="readings", rate_hz=100.0, block_samples=None)


class TestCodes(Conformance):
    """A DT9837A: 24 bit codes."""

    calibrated = ((1 << 23, 0.0), (3 << 22, 5.0), (0, -10.0), ((1 << 23) + 419430, 0.5))

    def expected(self, channel, first, count):
        return codes_of(channel.physical, first, count)


class TestVolts(Conformance):
    """A board whose calibration only the library knows."""

    @pytest.fixture(autouse=True)
    def _model(self, _standin):
        self.standin.set(model=1)

    def expected(self, channel, first, count):
        return volts_of(channel.physical, first, count)


# ---- codes, volts, rate ----


def test_a_whole_acquisition_has_the_codes_the_volts_and_the_true_rate(standin, tmp_path):
    channels = (ChannelConfig("x", physical=2, unit="g", sensitivity_v=0.1), ChannelConfig("y", physical=0, range=0.5))
    (run,) = acquire_all(config_of(device_of(channels=channels, samples=SAMPLES)), tmp_path)
    found = blocks_of(run)
    codes = np.concatenate([block.raw_codes for block in found], axis=1)
    np.testing.assert_array_equal(codes, [codes_of(2, 0, SAMPLES), codes_of(0, 0, SAMPLES)])
    values = np.concatenate([block.data for block in found], axis=1)
    np.testing.assert_allclose(values[0], (codes[0] * 20 / 2**24 - 10) / 0.1, atol=1e-9)
    np.testing.assert_allclose(values[1], codes[1] * 2 / 2**24 - 1, atol=1e-12)
    assert [channel.range for channel in run.info.channels] == [(-10.0, 10.0), (-1.0, 1.0)]
    assert (run.info.dtype, run.info.board, standin.queued) == ("int32", "DT9837A 01C0FFEE", 2)
    assert run.info.rate_hz == TRUE_HZ
    assert not events_of(run)


def test_volts_that_the_library_has_calibrated_are_journaled_and_the_sensor_is_ours(standin, tmp_path):
    standin.set(model=1)
    channels = (ChannelConfig("force", physical=3, unit="kN", sensitivity_v=2.0),)
    device = device_of(channels=channels, options={"wiring": "differential"}, samples=BLOCK)
    (run,) = acquire_all(config_of(device), tmp_path)
    (block,) = blocks_of(run)
    np.testing.assert_array_equal(block.raw_codes[0], volts_of(3, 0, BLOCK))
    np.testing.assert_array_equal(block.data[0], volts_of(3, 0, BLOCK) / 2.0)
    (channel,) = run.info.channels
    assert (run.info.dtype, channel.encoding, channel.unit, channel.scale) == ("float64", "float", "kN", 0.5)


def test_iepe_current_and_coupling_are_set_for_the_channels_named_and_taken_from_the_others(standin, tmp_path):
    for options, iepe, coupling in (
        ({"iepe": ["a", "b"], "ac_coupled": ["b"]}, [2, 2], [1, 2]),
        ({"iepe": ["b"]}, [1, 2], [1, 1]),
    ):
        acquire_all(config_of(device_of(options=options, samples=BLOCK)), tmp_path)
        assert standin.each("iepe")[1:3] == iepe
        assert standin.each("coupling")[1:3] == coupling


@pytest.mark.parametrize(
    ("name", "lowest_v", "highest_v"),
    [
        ("BIP10VOLTS", -10, 10),
        ("BIPPT625VOLTS", -0.625, 0.625),
        ("UNI2PT5VOLTS", 0, 2.5),
        ("BIPPT01VOLTS", -0.01, 0.01),
    ],
)
def test_the_names_of_ranges(name, lowest_v, highest_v):
    assert range_named(name, 7) == (7, lowest_v, highest_v)
    assert range_named("MA0TO20", 7) is None


def test_every_range_of_the_package_in_volts_is_known(library):
    uldaq = sys.modules["uldaq"]
    for limits in uldaq.Range:
        assert (range_named(limits.name, limits) is None) == (limits.name == "MA0TO20")


@pytest.mark.parametrize(
    ("rate_hz", "block", "samples"),
    [(10_000.0, 100, 50_000), (10.0, 100, 800), (8e6, 100_000, 4_100_000), (8e6, 2_000_000, 16_000_000)],
)
def test_the_ring_holds_five_seconds_but_not_too_many_bytes_and_eight_blocks(rate_hz, block, samples):
    (task,) = device_of(block_samples=block).tasks
    assert ulchannels.ring_samples(task, rate_hz) == samples


# ---- polled ----


def test_polled_values_are_volts_by_the_sensors_sensitivity(standin):
    channels = (ChannelConfig("x", physical=2, unit="g", sensitivity_v=0.1),)
    device = device_of(channels=channels, kind="readings", rate_hz=10.0, block_samples=None)
    board = opened(device)
    found = board.readings(device.tasks[0]).poll(0)
    board.close()
    assert isinstance(found, Readout)
    volts = float(Fraction(int(codes_of(2, 1, 1)[0]) * 20, 2**24) - 10)
    assert found.values["x"] == pytest.approx(volts * 10, abs=1e-9)


def test_polled_sensors_come_in_what_they_measure_and_an_open_one_is_told(standin, monkeypatch):
    volts = {1: 0.11, 2: 2.0, 3: 9.9999995}
    monkeypatch.setattr(AnalogInput, "value", lambda inputs, entry, options: volts[entry.physical])
    rtd = RtdConfig(r0_ohm=100.0, excitation_a=0.001)
    channels = (
        ChannelConfig("pt", physical=1, rtd=rtd),
        ChannelConfig("flow", physical=2, polynomial=(1.0, 2.0), unit="l/s"),
        ChannelConfig("off", physical=3, rtd=RtdConfig(r0_ohm=100_000.0, excitation_a=0.0001)),
    )
    device = device_of(channels=channels, kind="readings", rate_hz=10.0, block_samples=None)
    board = opened(device)
    found = board.readings(device.tasks[0]).poll(0)
    board.close()
    assert found.values["pt"] == pytest.approx(25.684, abs=1e-3)  # 110 Ω
    assert found.values["flow"] == 5.0
    assert np.isnan(found.values["off"])
    assert found.sensor_status == {"off": SensorStatus.SENSOR_OPEN}


@pytest.mark.parametrize("model", [0, 1], ids=["codes", "volts"])
def test_a_clocked_sensor_comes_in_what_it_measures(standin, tmp_path, model):
    standin.set(model=model)
    channels = (ChannelConfig("flow", physical=2, polynomial=(1.0, 2.0), unit="l/s"),)
    options = {"wiring": "differential"} if model else {}
    (run,) = acquire_all(config_of(device_of(channels=channels, options=options, samples=BLOCK)), tmp_path)
    (block,) = blocks_of(run)
    volts = volts_of(2, 0, BLOCK) if model else codes_of(2, 0, BLOCK) * 20 / 2**24 - 10
    np.testing.assert_allclose(block.data[0], 1 + 2 * volts, atol=1e-9)


# ---- opening and finding ----


@pytest.mark.parametrize("name", ["uldaq", "uldaq:DT9837A", "uldaq:01C0FFEE"])
def test_a_board_is_opened_by_model_or_serial_number_or_the_first_one(standin, name):
    board = opened(device_of(board=name))
    assert standin.connected
    board.close()
    assert not standin.connected


def test_a_board_that_is_not_there_or_taken_is_one_line(standin, tmp_path):
    with pytest.raises(CannotStartError, match=r"no board 'DT9837C': there are DT9837A 01C0FFEE; connect the board"):
        acquire_all(config_of(device_of(board="uldaq:DT9837C")), tmp_path)
    standin.set(claimed=1)
    with pytest.raises(CannotStartError, match=r"DT9837A 01C0FFEE: error 5 of the stand-in \(USB_INTERFACE_CLAIMED\)"):
        acquire_all(config_of(device_of()), tmp_path)
    standin.set(model=2)
    with pytest.raises(CannotStartError, match="no board of libuldaq is there"):
        acquire_all(config_of(device_of()), tmp_path)


def test_check_refuses_two_devices_on_one_board(standin, tmp_path):
    devices = [
        {**msgspec.to_builtins(device_of(board=board)), "name": name}
        for name, board in (("left", "uldaq"), ("right", "uldaq:01C0FFEE"))
    ]
    report = look(config_from({"data": str(tmp_path), "device": devices}))
    assert report.devices[0].problem is None
    assert (
        "device 'right': board = 'uldaq:01C0FFEE' is DT9837A 01C0FFEE, which the device 'left' has already; name "
        "another in `board`, see `dtolbus boards`"
    ) in report.problems


def test_up_refuses_them_too_and_leaves_the_boards_free(standin, tmp_path):
    devices = [device_of(board=board) for board in ("uldaq", "uldaq:01C0FFEE")]
    left, right = (msgspec.structs.replace(device, name=name) for device, name in zip(devices, "lr", strict=True))
    with pytest.raises(CannotStartError) as refused:
        run_up(Config(data=str(tmp_path / "data"), devices=(left, right)), 1.0, threading.Event())
    assert str(refused.value) == (
        "device 'r': board = 'uldaq:01C0FFEE' is DT9837A 01C0FFEE, which the device 'l' has already; name another in "
        "`board`, see `dtolbus boards`"
    )
    assert not list((tmp_path / "data").glob("journal/*"))
    refuse_shared([left])
    board = UlBoard(left)
    board.open()
    board.close()


def test_the_boards_that_are_connected_are_listed(standin, capsys):
    out = call(boards, [], capsys).out
    assert 'board = "uldaq:01C0FFEE": DT9837A 01C0FFEE' in out
    assert "4 inputs; 24 bit; ranges ±10, ±1 V; 210,936 samples/s over all channels" in out
    standin.set(model=2)
    assert finding.find_kind("uldaq").boards == ()
    standin.set(model=3)
    (board,) = finding.find_kind("uldaq").boards
    assert board.inputs == 0
    with pytest.raises(BoardError, match="it has no analogue inputs"):
        UlBoard(device_of()).open()


def test_without_the_package_or_the_library_one_line_says_what_to_install(library, monkeypatch):
    forget_uldaq(lambda name: monkeypatch.delitem(sys.modules, name))
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "/nowhere/libuldaq.so")
    found = finding.find_kind("uldaq")
    assert not found.is_usable
    assert "the board 'uldaq' needs the library libuldaq" in found.about
    assert "\n" not in found.about
    forget_uldaq(lambda name: monkeypatch.delitem(sys.modules, name))
    monkeypatch.setitem(sys.modules, "uldaq", None)
    with pytest.raises(CannotStartError, match=r"pip install 'dtolbus-producer\[uldaq\]'"):
        UlBoard(device_of()).open()
    UlBoard.check(device_of())


# ---- refusals ----


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"channels": ()}, "task[0].channels", "no channels"),
        ({"rate_hz": -1.0}, "task[0].rate_hz", "-1"),
        ({"channels": (ChannelConfig("a", gain=10.0),)}, "task[0].channels[0].gain", "10: .* give range"),
        ({"channels": (ChannelConfig("a", thermocouple="K"),)}, "task[0].channels[0].thermocouple", "'K'"),
        ({"channels": (ChannelConfig("a", range=-1.0),)}, "task[0].channels[0].range", "-1: give a number above 0"),
        ({"channels": (ChannelConfig("a", unit="g"),)}, "task[0].channels[0].unit", "sensitivity_v"),
        ({"channels": (ChannelConfig("a", physical=-1),)}, "task[0].channels[0].physical", "-1"),
        ({"channels": ("a", ChannelConfig("b", physical=0))}, "task[0].channels[1].physical", "0: .* once"),
        ({"options": {"iepe": ["z"]}}, "options.iepe", "'z' is no channel of the task 't'; there are a, b"),
        ({"options": {"ac_coupled": ["z"]}}, "options.ac_coupled", "'z' is no channel"),
        ({"options": {"iepe": ["a"]}, "kind": "readings"}, "options.iepe", "a: only a clocked task"),
    ],
)
def test_what_no_board_can_do_is_refused_by_key_and_value(changes, key, says):
    with pytest.raises(WrongKeyError, match=says) as refused:
        UlBoard.check(device_of(**changes))
    assert refused.value.key == key


def test_two_tasks_are_refused():
    device = device_of()
    two = type(device)("dev", "uldaq", {}, (*device.tasks, TaskConfig("u", channels=("a",))))
    with pytest.raises(WrongKeyError, match="keep one of 't', 'u'"):
        UlBoard.check(two)


@pytest.mark.parametrize(
    ("model", "changes", "says"),
    [
        (0, {"options": {"wiring": "differential"}}, r"options.wiring: 'differential': the board has no such inputs"),
        (0, {"channels": (ChannelConfig("a", physical=4),)}, r"channels\[0\].physical: 4: .* inputs 0 to 3"),
        (0, {"channels": (ChannelConfig("a", range=12.0),)}, r"channels\[0\].range: 12 V: the board takes 10 V"),
        (0, {"rate_hz": 60_000.0}, r"rate_hz: 60000 Hz on 2 channels: the board takes 195.313 to 52734 Hz"),
        (0, {"rate_hz": 100.0}, r"rate_hz: 100 Hz on 2 channels: the board takes 195.313 to"),
        (1, {"options": {"iepe": ["a"]}}, r"options.iepe: a: the board gives no IEPE current"),
        (1, {"options": {"ac_coupled": ["b"]}}, r"options.ac_coupled: 'b': the board does not switch its coupling"),
        (1, {"channels": ("a", ChannelConfig("b", physical=2))}, r"task\[0\].channels: .* neighbouring inputs"),
    ],
)
def test_what_this_board_cannot_do_is_refused_by_key_and_value(standin, tmp_path, model, changes, says):
    standin.set(model=model)
    with pytest.raises(UsageError, match=says):
        acquire_all(config_of(device_of(**changes)), tmp_path)
