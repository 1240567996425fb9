"""A board that gives what its plan does not say: told with the board's name, and never stored as something else."""

import dataclasses
import math

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of, readings_of

from dtolbus.errors import BoardError
from dtolbus.records import Channel
from dtolbus.runs import list_runs
from dtolbus_producer.boards import Buffer, Fault, Readout, TaskPlan
from dtolbus_producer.boards.sim import SimBlocks, SimReadings

CLOCKED = {"name": "t", "rate_hz": 1000.0, "samples": 300, "block_samples": 100, "channels": ["x", "y"]}
POLLED = {"name": "t", "kind": "readings", "rate_hz": 100.0, "samples": 2, "channels": ["x", "y"]}


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        (lambda b: b._replace(codes=b.codes.astype("float64")), "codes of type float64, where the plan says uint16"),
        (lambda b: b._replace(codes=b.codes.astype(">u2")), "codes of type >u2, where the plan says uint16"),
        (lambda b: b._replace(codes=b.codes.T), r"codes of shape (100, 2), where the plan has 2 channels"),
        (lambda b: b._replace(codes=b.codes[0]), r"codes of shape (100,), where the plan has 2 channels"),
        (lambda b: b._replace(codes=b.codes.tolist()), "list for codes"),
        (
            lambda b: b._replace(sensor_status={"x": np.full(100, 99)}),
            "the status 99 of 'x', which is none of 0, 1, 2, 3",
        ),
        (
            lambda b: b._replace(sensor_status={"x": np.full(100, -1)}),
            "the status -1 of 'x', which is none of 0, 1, 2, 3",
        ),
        (
            lambda b: b._replace(sensor_status={"x": np.full(100, 2**63 + 1, np.uint64)}),
            "the status 9223372036854775809",
        ),
        (lambda b: b._replace(sensor_status=None), "a NoneType for sensor_status"),
        (lambda b: b._replace(sensor_status=[1]), "a list for sensor_status"),
        (lambda b: b._replace(arrived_mono_ns=10**30), f"{10**30} for arrived_mono_ns"),
        (lambda b: b._replace(asked_mono_ns=-(10**20)), f"{-(10**20)} for asked_mono_ns"),
        (lambda b: b._replace(arrived_mono_ns=True), "True for arrived_mono_ns"),
        (lambda b: Fault("overrun", "lost", True), "a fault with True lost samples"),
        (lambda b: Fault("overrun", "lost", 10**30), "lost samples (overrun: lost)"),
        (lambda b: b._replace(arrived_mono_ns=1.5), "1.5 for arrived_mono_ns, which is a whole number"),
        (lambda b: b._replace(sensor_status={"z": np.zeros(100, int)}), "a status of the channel 'z'"),
        (lambda b: b._replace(sensor_status={"x": np.zeros(99, int)}), "no array of 100 whole numbers"),
        (lambda b: b._replace(sensor_status={"x": [0] * 100}), "no array of 100 whole numbers"),
        (lambda b: b.codes, "a ndarray, which is neither values, nor a fault, nor its end"),
        (lambda b: Fault("overrun", "lost", -50), "a fault with -50 lost samples (overrun: lost)"),
        (lambda b: Fault(None, "lost"), "a fault of kind None and message 'lost', which are texts"),
        (lambda b: Fault("overrun", b"lost"), "a fault of kind 'overrun' and message b'lost', which are texts"),
    ],
)
def test_what_the_plan_does_not_say_ends_the_run_and_is_told(tmp_path, monkeypatch, spoilt, says):
    real, count = SimBlocks.read, iter(range(10**9))

    def read(self, timeout_s):
        found = real(self, timeout_s)
        return spoilt(found) if isinstance(found, Buffer) and next(count) == 1 else found

    monkeypatch.setattr(SimBlocks, "read", read)
    first, second = acquire_all(config_of(CLOCKED), tmp_path)
    assert [block.samples_per_channel for block in blocks_of(first)] == [100]
    assert first.status().state == "interrupted"
    (event,) = events_of(first)
    assert event.kind == "sdk_error"
    assert event.message.startswith("DT9806 (simulated): the board gave ")
    assert says in event.message
    assert sum(block.samples_per_channel for block in blocks_of(second)) == 200


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "the board gave nothing"),
        (1.5, "a float, which is neither values"),
        (Readout({"x": 1.0}), "the channels 'x', where the plan has 'x', 'y'"),
        (Readout({"x": 1.0, "y": 2.0, "z": 3.0}), "the channels 'x', 'y', 'z', where the plan has 'x', 'y'"),
        (Readout({"x": 1.0, "y": [2.0]}), "[2.0] for 'y', which is neither a number nor a text"),
        (Readout({"x": 1.0, "y": 2.0}, {"z": 1}), "a status of the channel 'z'"),
        (Readout({"x": 1.0, "y": 2.0}, {"x": "open"}), "the status 'open' of 'x', which is none of 0, 1, 2, 3"),
        (Readout({"x": 1.0, "y": 2.0}, {"x": 77}), "the status 77 of 'x', which is none of 0, 1, 2, 3"),
        (Fault(7, "odd"), "a fault of kind 7 and message 'odd', which are texts"),
    ],
)
def test_a_poll_that_gives_something_else_is_a_failed_one(tmp_path, monkeypatch, given, says):
    monkeypatch.setattr(SimReadings, "poll", lambda self, slot: given)
    (run,) = acquire_all(config_of(POLLED), tmp_path)
    for reading in readings_of(run):
        assert says in reading.error.message
        assert reading.values == {}


def test_a_polled_value_of_which_the_board_tells_a_status_is_none(tmp_path, monkeypatch):
    given = Readout({"x": 5.0, "y": 7}, {"x": 1, "y": 0})
    monkeypatch.setattr(SimReadings, "poll", lambda self, slot: given)
    (run,) = acquire_all(config_of(POLLED), tmp_path)
    for reading in readings_of(run):
        assert math.isnan(reading.values["x"])
        assert reading.values["y"] == 7
        assert dict(reading.sensor_status) == {"x": 1, "y": 0}


def test_polled_numbers_of_numpy_are_stored_as_they_are(tmp_path, monkeypatch):
    given = Readout({"x": np.float32(1.5), "y": np.int64(7)}, {"x": np.int64(0)})
    monkeypatch.setattr(SimReadings, "poll", lambda self, slot: given)
    (run,) = acquire_all(config_of(POLLED), tmp_path)
    readings = readings_of(run)
    assert [reading.values for reading in readings] == [{"x": 1.5, "y": 7}] * 2
    assert [dict(reading.sensor_status) for reading in readings] == [{"x": 0}] * 2


@pytest.mark.parametrize("dtype", ["int64", ">u2", "complex128"])
def test_a_plan_of_codes_that_no_record_can_hold_is_told(tmp_path, monkeypatch, dtype):
    made, read = SimBlocks.__init__, SimBlocks.read

    def planned(self, *args):
        made(self, *args)
        self.plan = dataclasses.replace(self.plan, dtype=dtype)

    def typed(self, timeout_s):
        found = read(self, timeout_s)
        return found._replace(codes=found.codes.astype(dtype)) if isinstance(found, Buffer) else found

    monkeypatch.setattr(SimBlocks, "__init__", planned)
    monkeypatch.setattr(SimBlocks, "read", typed)
    with pytest.raises(BoardError, match=f"a plan of {dtype!r} codes, which are int16, uint16, int32 or float64"):
        acquire_all(config_of(CLOCKED, device={"reconnect_s": 0.3}), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rate_hz": math.nan}, r"plan\.rate_hz = nan: give 1e-06 to 1e\+09"),
        ({"rate_hz": 0.0}, r"plan\.rate_hz = 0\.0: give"),
        ({"rate_hz": 1e12}, r"plan\.rate_hz = 1000000000000\.0: give"),
        ({"rate_hz": None}, r"plan\.rate_hz = None: give"),
        ({"block_samples": 0}, r"plan\.block_samples = 0: give a whole number, 1 or more"),
        ({"block_samples": 1.5}, r"plan\.block_samples = 1\.5"),
        ({"speed": 0.0}, r"plan\.speed = 0\.0"),
        ({"board": None}, r"plan\.board = None: give a text"),
        ({"meta": None}, r"plan\.meta = None: give a dict"),
        ({"channels": ()}, r"plan\.channels = \(\): give a tuple of at least one"),
        (
            {"channels": (Channel("x"), Channel("x"))},
            r"plan\.channels\[1\]\.name = 'x', which is plan\.channels\[0\]'s",
        ),
        ({"channels": (Channel("x"), Channel(""))}, r"plan\.channels\[1\]\.name = ''"),
        ({"channels": (Channel("x", scale=0.0),)}, r"plan\.channels\[0\]\.scale = 0\.0: give a finite number, not 0"),
        (
            {"channels": (Channel("x", scale=math.inf),)},
            r"plan\.channels\[0\]\.scale = inf: give a finite number, not 0",
        ),
        ({"channels": (Channel("x", offset=math.nan),)}, r"plan\.channels\[0\]\.offset = nan"),
        ({"channels": (Channel("x", range=(1.0, 1.0)),)}, r"plan\.channels\[0\]\.range = \(1\.0, 1\.0\)"),
        ({"channels": (Channel("x", unit=3),)}, r"plan\.channels\[0\] \('x'\): .*unit"),
    ],
)
def test_a_plan_that_cannot_be_is_told_by_its_key(tmp_path, monkeypatch, wrong, says):
    made = SimBlocks.__init__

    def planned(self, *args):
        made(self, *args)
        self.plan = dataclasses.replace(self.plan, **wrong)

    monkeypatch.setattr(SimBlocks, "__init__", planned)
    with pytest.raises(BoardError, match=f"the board 'sim' of dtolbus-producer: {says}"):
        acquire_all(config_of(CLOCKED, device={"reconnect_s": 0.0}), tmp_path)


def test_a_plan_says_what_its_codes_are():
    with pytest.raises(TypeError, match="dtype"):
        TaskPlan(channels=(), rate_hz=1.0, board="mine")


def test_a_board_that_never_gives_what_it_plans_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(SimBlocks, "read", lambda self, timeout_s: "nonsense")
    with pytest.raises(BoardError, match="the board gave a str, which is neither"):
        acquire_all(config_of(CLOCKED, device={"reconnect_s": 0.3}), tmp_path)
    assert all(events_of(run) for run in list_runs(tmp_path / "journal"))
