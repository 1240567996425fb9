"""Every board of this package that runs anywhere passes the conformance suite; other packages' boards are found."""

import dataclasses
import re
import sys
import threading
import time
import tomllib
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of

from dtolbus.chunkfile import ChunkFile
from dtolbus.errors import CannotStartError, UsageError
from dtolbus.runs import list_runs, segment_name
from dtolbus_producer.boards import Buffer, board_class
from dtolbus_producer.boards.sim import SimBlocks, SimBoard
from dtolbus_producer.boards.simsignal import simulated_codes
from dtolbus_producer.boards.testing import BLOCK, RATE_HZ, SAMPLES, BoardConformance
from dtolbus_producer.config import config_from, default_config
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig

CHANNELS = (ChannelConfig("a", physical=0), ChannelConfig("b", physical=7))


def clocked(**task):
    return TaskConfig("t", rate_hz=RATE_HZ, block_samples=BLOCK, channels=CHANNELS, **task)


class TestSim(BoardConformance):
    faults = frozenset({"overrun", "loss"})
    calibrated = ((32768, 0.0), (34406, 0.5), (49152, 5.0), (0, -10.0))
    options = MappingProxyType(
        {
            "": {"lateness_ms": 5.0},
            "overrun": {"overrun_at_s": 0.03},
            "loss": {"lose_device_at_s": 0.03, "lost_for_s": 0.3},
        }
    )

    def device(self, place, fault="", **task):
        return DeviceConfig("dev", "sim", self.options[fault], (clocked(**task),))

    def expected(self, channel, first, count):
        return simulated_codes(0, channel.physical, first, count, rate_hz=RATE_HZ)

    def polled(self, place):
        channels = (ChannelConfig("v", physical=1), ChannelConfig("tc", physical=2, thermocouple="K"))
        return DeviceConfig("dev", "sim", tasks=(TaskConfig("t", "readings", rate_hz=100.0, channels=channels),))


class TestSimAtFullSpeed(TestSim):
    options = MappingProxyType(
        {
            "": {"speed": "max"},
            "overrun": {"speed": "max", "overrun_at_s": 0.03},
            "loss": {"speed": "max", "lose_device_at_s": 0.03, "lost_for_s": 0.3},
        }
    )


class TestPlayback(BoardConformance):
    """Recordings of the simulated board: with an overrun, and with a damaged block that the reader steps over."""

    faults = frozenset({"error", "overrun"})
    calibrated = TestSim.calibrated

    def device(self, place, fault="", **task):
        path = place / f"recorded {fault}"
        if not path.exists():
            record_sim(path, fault)
        (run,) = list_runs(path / "journal")
        file = run.path / segment_name("blocks", 0)
        return DeviceConfig("dev", f"playback:{file}", {"speed": 20.0}, (TaskConfig("t", block_samples=BLOCK, **task),))

    def expected(self, channel, first, count):
        return simulated_codes(0, channel.physical, first, count, rate_hz=RATE_HZ)


def record_sim(path, fault):
    options = {"speed": "max", **({"overrun_at_s": 0.03} if fault == "overrun" else {})}
    task = {"name": "t", "rate_hz": RATE_HZ, "block_samples": 130, "samples": 100 * SAMPLES}
    (run,) = acquire_all(config_of({**task, "channels": ["a", {"name": "b", "physical": 7}]}, options=options), path)
    if fault == "error":
        file = run.path / segment_name("blocks", 0)
        with ChunkFile(file) as chunks:
            third = list(chunks.chunks(chunks.start))[2]
        damaged = bytearray(file.read_bytes())
        damaged[third.end - 1] ^= 1
        file.write_bytes(damaged)


MINE = """
from dtolbus_producer.boards.sim import SimBoard

class MyBoard(SimBoard):
    pass

class NoBoard:
    pass
"""


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """A package of somebody else's with three entry points: a board, what is none, and what cannot be imported."""
    folder = tmp_path / "site"
    info = folder / "their_boards-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "their_boards.py").write_text(MINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-boards\nVersion: 1.0\n")
    points = "mine = their_boards:MyBoard\nnone = their_boards:NoBoard\nbroken = their_bords:MyBoard\n"
    (info / "entry_points.txt").write_text(f"[dtolbus.boards]\n{points}sim = their_boards:NoBoard\n")
    monkeypatch.syspath_prepend(str(folder))
    yield
    sys.modules.pop("their_boards", None)


def test_a_board_of_another_package_is_used_by_its_name(other_package, tmp_path):
    task = {"name": "t", "rate_hz": RATE_HZ, "channels": ["a"], "samples": 50}
    device = {"name": "dev", "board": "mine", "task": [task]}
    (run,) = acquire_all(config_from({"device": [device]}), tmp_path)
    assert blocks_of(run)[-1].end_sample_index == 50
    assert board_class("sim") is SimBoard


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "broken",
            r"'broken' of their-boards \(their_bords:MyBoard\) cannot be loaded: .*No module named",
        ),
        ("none", r"'none' of their-boards \(their_boards:NoBoard\) is none: it lacks options_type, check, open, close"),
    ],
)
def test_a_broken_board_of_another_package_is_one_line(other_package, kind, says):
    with pytest.raises(CannotStartError, match=says) as refused:
        board_class(kind)
    assert "\n" not in str(refused.value)


def test_an_unknown_board_is_told_with_those_that_there_are(other_package):
    with pytest.raises(
        UsageError, match=r"board: 'simm' is no board; there are sim, sim-fast, playback, dtollib, uldaq, broken, mine"
    ):
        config_from({"device": [{"name": "d", "board": "simm", "task": [{"name": "t"}]}]})


def test_a_stopped_run_holds_what_the_board_had_delivered(tmp_path, monkeypatch):
    """A board with a queue of its own gives at its stop what waits there: no reader may leave it behind."""
    stop, waiting = threading.Event(), []
    taken = SimBlocks.read

    def read(self, timeout_s):
        if stop.is_set():
            if not self._is_stopped:
                return None
            return waiting.pop(0) if waiting else taken(self, timeout_s)
        found = taken(self, timeout_s)
        if isinstance(found, Buffer) and self._next == 5 * BLOCK:
            waiting.extend([found, *(taken(self, 5.0) for _ in range(3))])
            stop.set()
            return None
        return found

    monkeypatch.setattr(SimBlocks, "read", read)
    task = {"name": "t", "rate_hz": RATE_HZ, "block_samples": BLOCK, "channels": ["a"]}
    (run,) = acquire_all(config_of(task), tmp_path, stop)
    blocks = blocks_of(run)
    assert [block.first_sample_index for block in blocks] == list(range(0, 8 * BLOCK, BLOCK))
    codes = np.concatenate([block.raw_codes[0] for block in blocks])
    np.testing.assert_array_equal(codes, simulated_codes(0, 0, 0, 8 * BLOCK, rate_hz=RATE_HZ))
    assert run.status().state == "ended"


def test_a_begun_block_is_there_when_a_simulated_run_is_stopped(tmp_path):
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    task = {"name": "t", "rate_hz": 1000.0, "block_s": 30.0, "channels": ["x"]}
    (run,) = acquire_all(config_of(task), tmp_path, stop)
    (block,) = blocks_of(run)
    assert 500 <= block.samples_per_channel < 30_000
    np.testing.assert_array_equal(
        block.raw_codes[0], simulated_codes(0, 0, 0, block.samples_per_channel, rate_hz=1000.0)
    )


def test_a_triggered_run_has_the_times_of_its_trigger(tmp_path, monkeypatch):
    """Sample 0 is where the trigger was, not where the task was armed."""
    armed_ns = []

    def start(self):
        armed_ns.append(time.perf_counter_ns())
        self.started_mono_ns = armed_ns[0] + 400_000_000

    def blocks(self, task):
        source = SimBlocks(self, task, self._options)
        source.plan = dataclasses.replace(source.plan, is_triggered=True)
        return source

    monkeypatch.setattr(SimBlocks, "start", start)
    monkeypatch.setattr(SimBoard, "blocks", blocks)
    task = {"name": "t", "rate_hz": RATE_HZ, "block_samples": BLOCK, "channels": ["a"], "samples": 3000}
    (run,) = acquire_all(config_of(task, options={"drift_ppm": 0.0}), tmp_path)
    blocks = blocks_of(run)
    for block in blocks:
        true_ns = armed_ns[0] + 400_000_000 + block.first_sample_index * 100_000
        assert abs(block.t_mono_ns - true_ns) < 60_000_000
    assert run.info.started_mono_ns < armed_ns[0] + 100_000_000


def test_the_configuration_in_the_documentation_is_valid():
    text = (Path(__file__).parents[2] / "docs" / "boards.md").read_text("utf-8")
    configs = [config_from(tomllib.loads(toml)) for toml in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    channels = [[channel.name for channel in config.devices[0].tasks[0].channel_configs] for config in configs]
    assert channels == [["inlet", "outlet", "pressure"], ["x", "y", "tacho"]]


def test_a_board_without_a_config_runs_one_block_task_at_its_own_pace():
    (device,) = default_config("dtollib:DT9806(00)", rate_hz=1000.0).devices
    assert (device.name, device.board, device.options) == ("dtollib0", "dtollib:DT9806(00)", {})
    assert [(task.name, task.kind, task.rate_hz, len(task.channels)) for task in device.tasks] == [
        ("vibration", "blocks", 1000.0, 4)
    ]
    with pytest.raises(UsageError, match="--speed 2"):
        default_config("dtollib", speed=2.0)


def test_a_board_whose_package_is_missing_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "dtollib", None)
    for name in [name for name in sys.modules if name.startswith("dtollib.")]:
        monkeypatch.delitem(sys.modules, name)
    config = default_config("dtollib")
    with pytest.raises(CannotStartError, match=r"Python 3.13 or newer.*pip install 'dtolbus-producer\[dtollib\]'"):
        acquire_all(config, tmp_path)
