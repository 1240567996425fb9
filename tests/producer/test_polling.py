import json
import statistics
import subprocess
import sys
import threading
from itertools import pairwise

import pytest
from tests.producer.acquired import acquire_all, config_of, events_of, readings_of, records_of

from dtolbus.errors import BoardError, UsageError
from dtolbus.records import DaqEvent, DaqReading
from dtolbus.runs import list_runs
from dtolbus_producer.boards import Fault
from dtolbus_producer.boards.sim import SimReadings
from dtolbus_producer.config import dump_config

SLOW = {"name": "t", "kind": "readings", "channels": [{"name": "tc", "thermocouple": "K"}]}


def slots_of(run):
    """Each reading with the slot it was polled in, as the events between them tell."""
    slot, found = 0, []
    for record in records_of(run):
        if isinstance(record, DaqEvent):
            if record.lost_samples:
                assert record.sample_index == slot
            slot += record.lost_samples
        else:
            assert isinstance(record, DaqReading)
            found.append((slot, record))
            slot += 1
    return slot, found


def slowed(monkeypatch, slow_slots, seconds):
    real, waited = SimReadings.poll, threading.Event()

    def poll(self, slot):
        if slot in slow_slots:
            waited.wait(seconds)
        return real(self, slot)

    monkeypatch.setattr(SimReadings, "poll", poll)


def test_polls_keep_step_with_the_start_however_long_each_takes(tmp_path, monkeypatch):
    slowed(monkeypatch, range(60), 0.008)
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 50.0, "samples": 60}), tmp_path)
    total, polled = slots_of(run)

    assert total == 60
    late_ns = [reading.t_mono_ns - (run.info.started_mono_ns + slot * 20_000_000) for slot, reading in polled]
    assert min(late_ns) >= 0
    assert statistics.median(late_ns) < 20_000_000, "the polls fell behind: 60 times 8 ms would be 480 ms"


def test_each_slow_poll_is_an_event_of_exactly_the_polls_it_cost(tmp_path, monkeypatch):
    slowed(monkeypatch, {3, 20}, 0.15)
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 50.0, "samples": 40}), tmp_path)
    total, polled = slots_of(run)

    assert total == 40
    events = events_of(run)
    assert {event.kind for event in events} == {"overrun"}
    assert {4, 21} <= {event.sample_index for event in events}
    for event in events:
        assert f"{event.lost_samples} polls from number {event.sample_index} on were missed" in event.message
    assert sum(event.lost_samples for event in events) >= 2 * 5
    late = {slot: reading for slot, reading in polled if slot in (3, 20)}
    assert late
    for reading in late.values():
        assert reading.latency_s >= 0.15
        assert reading.t_midpoint_mono_ns == pytest.approx(reading.t_mono_ns + reading.latency_s * 5e8, abs=1e3)
        half_s = (reading.t_utc - reading.requested_at).total_seconds()
        assert half_s == pytest.approx(reading.latency_s / 2, abs=2e-6)
    for (left, before), (right, after) in pairwise(polled):
        assert left < right
        assert before.t_mono_ns < after.t_mono_ns


def failing_at(monkeypatch, slots):
    real = SimReadings.poll

    def poll(self, slot):
        if slot in slots:
            raise TimeoutError("the thermometer does not answer")
        return real(self, slot)

    monkeypatch.setattr(SimReadings, "poll", poll)


@pytest.mark.parametrize("on_error", [{}, {"on_error": "return"}])
def test_a_poll_that_fails_is_a_reading_with_the_error_unless_told_otherwise(tmp_path, monkeypatch, on_error):
    failing_at(monkeypatch, {0})
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 20.0, "samples": 4, **on_error}), tmp_path)

    failed = [reading for reading in readings_of(run) if reading.error is not None]
    assert [reading.error.message for reading in failed] == ["the thermometer does not answer"]
    assert failed[0].values == {}
    assert run.status().state == "ended"


def test_skip_makes_an_event_of_it_and_goes_on(tmp_path, monkeypatch):
    failing_at(monkeypatch, {1, 2})
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 20.0, "samples": 5, "on_error": "skip"}), tmp_path)
    total, polled = slots_of(run)

    events = [event for event in events_of(run) if event.kind == "poll_failed"]
    assert [(event.sample_index, event.lost_samples) for event in events] == [(1, 1), (2, 1)]
    assert "TimeoutError: the thermometer does not answer" in events[0].message
    assert total == 5
    assert all(reading.error is None for _, reading in polled)
    assert run.status().state == "ended"


def test_raise_ends_the_run_as_interrupted_and_the_acquisition_with_an_error(tmp_path, monkeypatch):
    failing_at(monkeypatch, {2})
    config = config_of({**SLOW, "rate_hz": 20.0, "samples": 100, "on_error": "raise"})
    with pytest.raises(BoardError, match=r"device 'dev', task 't': poll 2 failed: .*does not answer.*on_error"):
        acquire_all(config, tmp_path)

    (run,) = list_runs(tmp_path / "journal")
    assert run.status().state == "interrupted"
    assert [(event.kind, event.sample_index) for event in events_of(run)] == [("poll_failed", 2)]
    assert len(readings_of(run)) == 2


@pytest.mark.parametrize("told", [0, 1, 7])
def test_a_fault_that_is_not_fatal_is_one_lost_poll_whatever_the_board_tells(tmp_path, monkeypatch, told):
    real = SimReadings.poll
    fault = Fault("sdk_error", "the converter was busy", told)
    monkeypatch.setattr(SimReadings, "poll", lambda self, slot: fault if slot == 2 else real(self, slot))
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 20.0, "samples": 5}), tmp_path)
    total, polled = slots_of(run)

    (event,) = [event for event in events_of(run) if event.kind == "sdk_error"]
    assert (event.sample_index, event.lost_samples) == (2, 1)
    assert total == 5
    assert 2 not in [slot for slot, _ in polled]


CHILD = """
from dtolbus_producer.boards.sim import SimReadings
def poll(self, slot):
    raise TimeoutError("the thermometer does not answer")
SimReadings.poll = poll
import dtolbus_producer.__main__
"""


def test_the_exit_code_says_so(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(dump_config(config_of({**SLOW, "rate_hz": 20.0, "samples": 100, "on_error": "raise"})))
    command = [sys.executable, "-c", CHILD, "producer", "run", "--config", str(path), "--data", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    assert ended.returncode == 1, ended.stderr
    assert "poll 0 failed: builtins.TimeoutError: the thermometer does not answer" in ended.stderr
    (run,) = list_runs(tmp_path / "journal")
    assert json.loads((run.path / "run.json").read_text())["state"] == "interrupted"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({**SLOW, "on_error": "ignore"}, r"on_error = 'ignore': allowed are 'return', 'raise', 'skip'"),
        ({**SLOW, "on_eror": "skip"}, r"on_eror: there is no such key; did you mean 'on_error'"),
        ({"name": "t", "channels": ["a"], "on_error": "skip"}, r"task\[0\]\.on_error: 'skip': the task 't' is clocked"),
    ],
)
def test_an_error_policy_that_cannot_be_is_refused(task, says):
    with pytest.raises(UsageError, match=says):
        config_of(task)
