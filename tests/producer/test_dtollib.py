"""The Data Translation board, on dtollib's fake of a DT9806 (Python 3.13 or newer)."""

import threading
import time

import msgspec
import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, events_of

from dtolbus.errors import CannotStartError, UsageError
from dtolbus.records import SensorStatus
from dtolbus.units import thermocouple
from dtolbus.units.conversion import Thermocouple
from dtolbus_producer.boards import End, dtblocks, finding
from dtolbus_producer.boards.dtchannels import buffer_count, options_of
from dtolbus_producer.boards.testing import BLOCK, RATE_HZ, BoardConformance
from dtolbus_producer.checking.looking import look
from dtolbus_producer.config import config_from
from dtolbus_producer.doctor import software
from dtolbus_producer.tasks import ChannelConfig

pytest.importorskip("dtollib", reason="dtollib is not installed: it needs Python 3.13 or newer")
from tests.producer.dtbench import (
    PATIENCE_S,
    bench,
    bench_of,
    codes_in,
    codes_of,
    config_of,
    device_of,
    expected,
    opened,
    started,
    values_of,
)

__all__ = ["bench"]  # a fixture


class TestConformance(BoardConformance):
    faults = frozenset({"short", "error", "overrun", "loss"})
    calibrated = ((32768, 0.0), (34406, 0.5), (49152, 5.0), (0, -10.0))

    @pytest.fixture(autouse=True)
    def _bench(self, monkeypatch):
        self.monkeypatch = monkeypatch
        bench_of(monkeypatch)

    def device(self, place, fault="", **task):
        if fault:
            bench_of(self.monkeypatch, fault)
        return device_of(**task)

    def expected(self, channel, first, count):
        return codes_of(channel.physical, first, count)

    def polled(self, place):
        return device_of(kind="readings", rate_hz=100.0, block_samples=None)


# ---- codes and volts ----


def test_a_whole_acquisition_has_the_codes_the_volts_and_the_true_rate(bench, tmp_path):
    (run,) = acquire_all(config_of(device_of(samples=1000), run={"operator": "Ada"}), tmp_path)
    blocks = blocks_of(run)
    np.testing.assert_array_equal(codes_in(blocks), expected(1000))
    np.testing.assert_array_equal(values_of(blocks), expected(1000) * (20 / 65536) - 10)
    assert blocks[0].raw_codes.dtype == np.uint16
    assert [block.block_index for block in blocks] == list(range(10))
    assert [block.first_sample_index for block in blocks] == list(range(0, 1000, BLOCK))
    assert not events_of(run)
    assert (run.info.rate_hz, run.info.dtype, run.info.board) == (RATE_HZ, "uint16", "DT9806(00)")
    assert run.info.meta == {"operator": "Ada"}
    segments = sum(path.stat().st_size for path in run.path.glob("*.dt-raw"))
    assert segments < 1000 * 2 * 2 + 20_000  # two bytes a code


def constant(volts_by_input):
    return lambda physical, first, count: np.full(count, volts_by_input[physical], dtype=np.uint16)


def test_0_and_half_and_5_and_minus_10_volts(monkeypatch, tmp_path):
    codes = {n: min(round((volts + 10) / 20 * 65536), 65535) for n, volts in enumerate((0.0, 0.5, 5.0, -10.0))}
    bench_of(monkeypatch, codes=constant(codes))
    channels = tuple(ChannelConfig(f"v{n}", physical=n) for n in range(4))
    (run,) = acquire_all(config_of(device_of(channels=channels, samples=BLOCK)), tmp_path)
    (block,) = blocks_of(run)
    assert block.data[:, 0] == pytest.approx([0.0, 0.5, 5.0, -10.0], abs=20 / 65536 / 2)
    assert block.raw_codes[:, 0].tolist() == [32768, 34406, 49152, 0]


def test_gain_range_and_sensitivity_are_in_the_calibration(bench, tmp_path):
    capabilities = bench.backend.boards[0].subsystems[0].capabilities
    with_gains = {name: getattr(capabilities, name) for name in capabilities.__slots__} | {
        "gains": (1.0, 10.0, 100.0, 500.0),
        "ranges": ((10.0, -10.0),),
    }
    bench.backend.boards[0].subsystems[0].capabilities = type(capabilities)(**with_gains)
    channels = (
        ChannelConfig("gain", physical=0, gain=10.0),
        ChannelConfig("range", physical=1, range=0.15),
        ChannelConfig("g", physical=2, unit="g", sensitivity_v=0.1),
    )
    device = device_of(channels=channels)
    board = opened(device)
    plan = board.blocks(device.tasks[0]).plan
    board.close()
    assert [channel.gain for channel in plan.channels] == [10.0, 10.0, 1.0]
    assert plan.channels[0].range == (-1.0, 1.0)
    assert 49152 * plan.channels[0].scale + plan.channels[0].offset == pytest.approx(0.5)
    assert 49152 * plan.channels[2].scale + plan.channels[2].offset == pytest.approx(50.0)

    with pytest.raises(UsageError, match=r"device 'dev': task\[0\].channels\[0\].gain: 3: .* are 1, 10, 100, 500"):
        acquire_all(config_of(device_of(channels=(ChannelConfig("a", gain=3.0),))), tmp_path)


@pytest.mark.parametrize(
    ("scaling", "dtype", "codes", "volts"),
    [
        ((-10.0, 10.0, 16, True), "int16", [0, 1638, 16384, -32768], [0.0, 0.5, 5.0, -10.0]),
        ((-10.0, 10.0, 16, False), "uint16", [32768, 34406, 49152, 0], [0.0, 0.5, 5.0, -10.0]),
        ((-10.0, 10.0, 12, False), "uint16", [2048, 2150, 3072, 0], [0.0, 0.5, 5.0, -10.0]),
        ((0.0, 10.0, 16, False), "uint16", [0, 3277, 32768, 65535], [0.0, 0.5, 5.0, 10.0]),
        ((-10.0, 10.0, 24, True), "int32", [0, 419430, 4194304, -8388608], [0.0, 0.5, 5.0, -10.0]),
    ],
)
def test_codes_of_every_encoding_keep_their_type(monkeypatch, tmp_path, scaling, dtype, codes, volts):
    table = np.array(codes, dtype=dtype)
    bench = bench_of(monkeypatch, codes=lambda physical, first, count: table[np.arange(first, first + count) % 4])
    monkeypatch.setattr(bench.backend, "get_scaling", lambda hdass: scaling)
    (run,) = acquire_all(config_of(device_of(samples=BLOCK)), tmp_path)
    (block,) = blocks_of(run)
    assert str(block.raw_codes.dtype) == dtype
    assert block.raw_codes[0, :4].tolist() == codes
    assert block.data[0, :4] == pytest.approx(volts, abs=20 / 2 ** scaling[2])


# ---- what the driver is asked for ----


def test_inputs_are_taken_one_after_another_and_the_clock_is_shared(bench):
    device = device_of(rate_hz=1000.0)
    board = opened(device)
    plan = board.blocks(device.tasks[0]).plan
    board.close()
    ((_, clock),) = [payload[:2] for name, payload in bench.backend.operations if name == "set_clock"]
    assert clock == 2000.0
    assert plan.rate_hz == 1000.0
    assert [channel.offset_ns for channel in plan.channels] == [0, 500_000]


def test_the_rate_is_the_one_read_back(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench.backend, "get_clock_frequency", lambda hdass: 19_999.5)
    (run,) = acquire_all(config_of(device_of(samples=BLOCK)), tmp_path)
    assert run.info.rate_hz == 9_999.75
    assert blocks_of(run)[0].sample_rate_hz == 9_999.75


def furnace(physical, first, count):
    """A cold junction of 25 °C on input 0, and a thermocouple that warms up, one code a sample, and breaks."""
    if physical == 0:
        return np.full(count, 32768 + 819, np.uint16)
    at = np.arange(first, first + count)
    return np.where(at < 60, 32768 + at, 65535).astype(np.uint16)


def test_a_thermocouple_brings_its_cold_junction_and_comes_in_degrees(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "_codes", furnace)
    channels = (ChannelConfig("oven", physical=3, thermocouple="R", gain=1.0),)
    device = device_of(channels=channels, options={"wiring": "differential"}, samples=BLOCK)
    (run,) = acquire_all(config_of(device), tmp_path)
    assert [(channel.name, channel.physical) for channel in run.info.channels] == [("oven", 3), ("cold_junction", 0)]
    assert [channel.sensor for channel in run.info.channels] == ["thermocouple R", "cold junction"]
    assert {channel.unit for channel in run.info.channels} == {"°C"}
    (block,) = blocks_of(run)
    np.testing.assert_array_equal(block.raw_codes, [furnace(3, 0, BLOCK), furnace(0, 0, BLOCK)])
    junction = 819 * 10 / 32768 / 0.01  # 10 mV/°C
    np.testing.assert_allclose(block.data[1], junction)
    mv = np.arange(60) * 10_000 / 32768
    true = thermocouple.celsius("R", thermocouple.compensated_mv("R", mv, junction))
    assert true[0] == pytest.approx(25, abs=0.1)
    np.testing.assert_allclose(block.data[0, :60], true, atol=1e-6)
    assert np.isnan(block.data[0, 60:]).all()
    assert block.sensor_status["oven"].tolist() == [0] * 60 + [SensorStatus.SENSOR_OPEN] * (BLOCK - 60)


def test_a_polled_thermocouple_comes_in_degrees(bench, monkeypatch):
    codes = {0: 32768 + 819, 3: 32768 + 30, 4: 65535}
    monkeypatch.setattr(bench.backend, "get_single_value", lambda hdass, channel, gain: codes[channel])
    channels = tuple(ChannelConfig(name, physical=n, thermocouple="R", gain=1.0) for name, n in (("a", 3), ("b", 4)))
    device = device_of(channels=channels, options={"wiring": "differential"}, kind="readings", block_samples=None)
    board = opened(device)
    found = board.readings(device.tasks[0]).poll(0)
    board.close()
    emf = thermocouple.compensated_mv("R", 30 * 10_000 / 32768, 819 * 10 / 32768 / 0.01)
    assert found.values["a"] == pytest.approx(float(thermocouple.celsius("R", emf)), abs=1e-6)
    assert np.isnan(found.values["b"])
    assert found.sensor_status == {"b": SensorStatus.SENSOR_OPEN}


def test_the_cold_junction_keeps_the_name_that_the_task_gives_it(bench):
    channels = (ChannelConfig("cj", physical=0), ChannelConfig("oven", physical=3, thermocouple="K", gain=100.0))
    device = device_of(channels=channels, options={"wiring": "differential"})
    board = opened(device)
    junction, oven = board.blocks(device.tasks[0]).plan.channels
    assert (junction.name, junction.unit, junction.scale) == ("cj", "°C", pytest.approx(20 / 65536 / 0.01))
    assert oven.conversion == Thermocouple("K", "cj")
    board.close()


def test_an_external_clock_is_divided_and_its_rate_is_the_one_given(bench):
    device = device_of(rate_hz=1000.0, options={"clock": "external", "external_divider": 4})
    board = opened(device)
    assert board.blocks(device.tasks[0]).plan.rate_hz == 1000.0
    board.close()
    ((_, rate_hz, _, divider),) = [payload for name, payload in bench.backend.operations if name == "set_clock"]
    assert (rate_hz, divider) == (8000.0, 4)


@pytest.mark.parametrize(
    ("options", "kind", "more"),
    [
        ({}, "OL_TRG_SOFT", (None, None)),
        ({"trigger": "external"}, "OL_TRG_EXTERN", (None, None)),
        ({"trigger": "rising", "threshold_input": 1, "threshold_v": 2.5}, "OL_TRG_THRESHPOS", (1, 2.5)),
        ({"trigger": "falling", "threshold_input": 1, "threshold_v": -2.5}, "OL_TRG_THRESHNEG", (1, -2.5)),
    ],
)
def test_the_trigger_is_the_one_asked_for(bench, options, kind, more):
    from dtollib.capi import constants

    device = device_of(options=options)
    board = opened(device)
    plan = board.blocks(device.tasks[0]).plan
    board.close()
    ((_, given, *threshold),) = [payload for name, payload in bench.backend.operations if name == "set_trigger"]
    assert (given, tuple(threshold)) == (getattr(constants, kind), more)
    assert plan.is_triggered == bool(options)


def test_a_threshold_beyond_the_range_is_refused_by_check_and_by_the_acquisition(bench, tmp_path):
    options = {"trigger": "rising", "threshold_input": 1, "threshold_v": 12.0}
    config = config_of(device_of(options=options))
    says = "options.threshold_v: 12 V: the input 1 at gain 1 takes -10 to 10 V: give what lies between"
    assert [problem for problem in look(config).problems if says in problem]
    with pytest.raises(UsageError, match="threshold_v: 12 V: the input 1 at gain 1 takes -10 to 10 V"):
        acquire_all(config, tmp_path)


def test_a_trigger_that_comes_late_is_waited_for_and_dates_the_first_sample(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(dtblocks, "_SILENT_S", 0.05)
    bench.hold.clear()
    triggered_ns = []

    def trigger():
        triggered_ns.append(time.perf_counter_ns())
        bench.hold.set()

    threading.Timer(0.4, trigger).start()
    (run,) = acquire_all(config_of(device_of(options={"trigger": "external"}, samples=500)), tmp_path)
    blocks = blocks_of(run)
    np.testing.assert_array_equal(codes_in(blocks), expected(500))
    assert not events_of(run)
    assert blocks[0].t_mono_ns > triggered_ns[0] - 100_000_000  # armed 400 ms before; a callback may be 100 ms late


def test_a_stop_before_the_trigger_does_not_wait_for_it(bench):
    bench.hold.clear()
    board, source = started(device_of(options={"trigger": "external"}))
    assert source.read(0.0) is None
    source.stop()
    assert source.read(PATIENCE_S) is End.END
    board.close()
    assert "abort" in bench.operations
    assert "stop" not in bench.operations


def test_the_buffers_hold_two_seconds_or_what_the_options_say():
    assert buffer_count(options_of(device_of()), 0.01) == 200
    assert buffer_count(options_of(device_of()), 0.5) == 8
    assert buffer_count(options_of(device_of(options={"buffers": 5})), 0.01) == 5


def test_a_board_is_found_by_its_name_or_is_the_first(bench, tmp_path):
    from dtollib.testing import make_fake_dt9805

    bench.backend.boards.append(make_fake_dt9805(name="DT9805(01)"))
    for board, name in [("dtollib", "DT9806(00)"), ("dtollib:DT9805(01)", "DT9805(01)")]:
        (run,) = acquire_all(config_of(device_of(board=board, samples=1)), tmp_path / name)
        assert run.info.board == name
    with pytest.raises(CannotStartError, match=r"no board 'DT1': there are DT9806\(00\), DT9805\(01\); connect"):
        acquire_all(config_of(device_of(board="dtollib:DT1")), tmp_path)
    bench.backend.boards.clear()
    with pytest.raises(CannotStartError, match=r"'dev': no DT-Open Layers board is there"):
        acquire_all(config_of(device_of()), tmp_path)


@pytest.mark.parametrize(
    ("second", "options", "is_refused"),
    [
        ("dtollib", {}, True),
        ("dtollib:DT9806(00)", {}, True),
        ("dtollib:DT9805(01)", {}, False),
        ("dtollib:DT9806(00)", {"element": 1}, False),
    ],
)
def test_check_refuses_two_devices_on_one_board(bench, tmp_path, capsys, second, options, is_refused):
    from dtollib.testing import make_fake_dt9805

    bench.backend.boards.append(make_fake_dt9805(name="DT9805(01)"))
    devices = [
        {**msgspec.to_builtins(device_of(board=board, options=chosen)), "name": name}
        for name, board, chosen in (("left", "dtollib", {}), ("right", second, options))
    ]
    report = look(config_from({"data": str(tmp_path), "device": devices}))
    told = [problem for problem in report.problems if "has already" in problem]
    assert bool(told) == is_refused
    if is_refused:
        assert told == [
            f"device 'right': board = '{second}' is DT9806(00), which the device 'left' has already; name another in "
            f"`board`, see `dtolbus boards`"
        ]
        assert report.devices[1].problem is not None


def test_the_boards_that_are_connected_are_listed_and_one_that_is_taken_by_its_name(bench, monkeypatch):
    kind = finding.find_kind("dtollib")
    (found,) = kind.boards
    assert (found.board, found.model, found.inputs) == ("dtollib:DT9806(00)", "DT9806(00)", 17)
    assert found.throughput_hz == 50_000
    device = device_of(board=found.board)
    opened(device).close()

    def taken(name):
        raise OSError("in use")

    monkeypatch.setattr(bench.backend, "initialize", taken)
    (found,) = finding.find_kind("dtollib").boards
    assert (found.board, found.inputs) == ("dtollib:DT9806(00)", None)


def test_without_windows_boards_and_doctor_say_what_is_needed():
    found = finding.find_kind("dtollib")
    assert not found.is_usable
    assert "needs Windows and Data Translation's DataAcq SDK" in found.about
    (line,) = software.boards([found], {"dtollib"})
    assert (line.state, "DataAcq SDK" in line.what) == ("problem", True)


def test_without_windows_the_message_says_what_is_needed(tmp_path):
    with pytest.raises(CannotStartError, match=r"needs Windows and Data Translation's DataAcq SDK: .*Windows-only"):
        acquire_all(config_of(device_of()), tmp_path)


# ---- configuration ----


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ({"options": {"wirring": "differential"}}, "options.wirring: there is no such key; did you mean 'wiring'"),
        ({"options": {"wiring": "both"}}, "options.wiring = 'both': allowed are 'single_ended', 'differential'"),
        ({"options": {"buffers": 2}}, "options.buffers = 2: expected int >= 3"),
        ({"options": {"trigger": "rising"}}, "options.threshold_input: trigger = 'rising' needs it"),
        ({"options": {"threshold_v": 1.0}}, "options.threshold_v: 1: only with trigger = 'rising' or 'falling'"),
        ({"options": {"external_divider": 2}}, "options.external_divider: 2: only with clock = 'external'"),
        ({"options": {"clock": "external"}, "rate_hz": None}, "task[0].rate_hz: an external clock's rate"),
        ({"channels": ()}, "task[0].channels: the task 't' has no channels"),
        ({"channels": (ChannelConfig("a", physical=-1),)}, "channels[0].physical: -1: inputs are numbered from 0"),
        ({"channels": (ChannelConfig("a", gain=-1.0),)}, "channels[0].gain: -1: give a number above 0"),
        (
            {"channels": (ChannelConfig("a", gain=1.0, range=1.0),)},
            "channels[0].gain: 1 beside range = 1: give the gain or",
        ),
        ({"channels": (ChannelConfig("a", unit="g"),)}, "channels[0].unit: 'g' from volts: give sensitivity_v"),
        ({"channels": (ChannelConfig("a", thermocouple="K", physical=1),)}, "need options.wiring = 'differential'"),
        (
            {"channels": (ChannelConfig("a", thermocouple="K"),), "options": {"wiring": "differential"}},
            "channels[0].physical: 0 is the cold junction's input",
        ),
    ],
)
def test_a_config_that_cannot_be_names_key_value_and_what_is_allowed(device, says):
    with pytest.raises(UsageError) as refused:
        config_of(device_of(**device))
    assert says in str(refused.value)
    assert "device[0]." in str(refused.value)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (
            {"channels": (ChannelConfig("a", physical=17),)},
            "[0].physical: 17: the board has the inputs 0 to 16",
        ),
        ({"channels": (ChannelConfig("a", range=12.0),)}, "channels[0].range: 12 V: the board takes 10 V at most"),
        (
            {"channels": (ChannelConfig("a", range=0.02),)},
            "[0].gain: it is missing: ±0.02 V of ±10 V need one, and the driver does not tell its gains",
        ),
        (
            {
                "channels": (ChannelConfig("a", thermocouple="K", physical=1),),
                "options": {"wiring": "differential"},
            },
            "[0].gain: it is missing: ±0.08 V of ±10 V need one, and the driver does not tell its gains",
        ),
        (
            {"rate_hz": 30_000.0},
            "30000 Hz on 2 channels need a clock of 60000 Hz; the board does 50000: at most",
        ),
    ],
)
def test_what_the_connected_board_cannot_do_is_told_at_once(bench, tmp_path, device, says):
    with pytest.raises(UsageError) as refused:
        acquire_all(config_of(device_of(**device)), tmp_path)
    assert says in str(refused.value)
