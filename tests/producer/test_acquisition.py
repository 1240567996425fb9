import errno
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of, readings_of, records_of

from dtolbus import files
from dtolbus.errors import BoardError, CannotStartError, UsageError
from dtolbus.records import DaqBlock, DaqEvent, SensorStatus
from dtolbus.runs import RunFolder, list_runs
from dtolbus_producer import boards
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.boards import Buffer, guarding
from dtolbus_producer.boards.sim import SimBlocks, SimReadings
from dtolbus_producer.boards.simsignal import simulated_codes, simulated_temperatures
from dtolbus_producer.config import dump_config
from dtolbus_producer.journal import JournalError

FAST = {"name": "t", "rate_hz": 10_000.0, "block_samples": 100, "channels": ["a", {"name": "b", "physical": 7}]}
SLOW = {"name": "t", "kind": "readings", "channels": [{"name": "tc", "thermocouple": "K"}]}
MAX = {"speed": "max"}


def test_a_finite_run_ends_at_exactly_the_asked_sample(tmp_path):
    (run,) = acquire_all(config_of({**FAST, "samples": 250}, options=MAX), tmp_path)
    assert [block.samples_per_channel for block in blocks_of(run)] == [100, 100, 50]
    status = run.status()
    assert (status.state, status.final, run.info.samples_asked) == ("ended", 3, 250)
    assert run.refresh().samples == 250


def test_a_duration_ends_at_the_sample_of_that_instant(tmp_path):
    (run,) = acquire_all(config_of({**FAST, "duration_s": 0.0333}, options=MAX), tmp_path)
    assert blocks_of(run)[-1].end_sample_index == 333


def test_the_journal_holds_the_simulated_codes_bit_for_bit(tmp_path):
    options = {**MAX, "seed": 42}
    (run,) = acquire_all(config_of({**FAST, "samples": 5000}, options=options), tmp_path)
    blocks = blocks_of(run)

    codes = np.concatenate([block.raw_codes for block in blocks], axis=1)
    expected = np.stack([simulated_codes(42, physical, 0, 5000, rate_hz=10_000.0) for physical in (0, 7)])
    np.testing.assert_array_equal(codes, expected)
    assert codes.dtype == np.uint16
    values = np.concatenate([block.data for block in blocks], axis=1)
    np.testing.assert_array_equal(values, expected * (20 / 65536) - 10)
    assert [block.block_index for block in blocks] == list(range(50))
    assert [block.first_sample_index for block in blocks] == list(range(0, 5000, 100))


def test_short_buffers_make_no_gap_and_no_sample_is_counted_twice(tmp_path, monkeypatch):
    whole, rests = SimBlocks.read, []

    def in_pieces(self, timeout_s):
        found = rests.pop() if rests else whole(self, timeout_s)
        if isinstance(found, Buffer) and found.codes.shape[1] > 30:
            rests.append(found._replace(codes=found.codes[:, 30:]))
            found = found._replace(codes=found.codes[:, :30])
        return found

    monkeypatch.setattr(SimBlocks, "read", in_pieces)
    config = config_of(
        {"name": "t", "rate_hz": 1000, "channels": ["a"], "block_samples": 100, "samples": 950},
        options={"speed": "max"},
    )
    (run,) = acquire_all(config, tmp_path)
    assert all(isinstance(record, DaqBlock) for record in records_of(run))
    blocks = blocks_of(run)
    assert {block.samples_per_channel for block in blocks} >= {10, 30}
    ends = [0, *(block.end_sample_index for block in blocks)]
    assert [block.first_sample_index for block in blocks] == ends[:-1]
    assert ends[-1] == 950
    codes = simulated_codes(0, 0, 0, 950, rate_hz=run.info.rate_hz)
    assert np.array_equal(np.concatenate([block.raw_codes[0] for block in blocks]), codes)


def test_the_rate_stored_is_the_one_read_back_not_the_one_asked_for(tmp_path):
    task = {**FAST, "rate_hz": 12_000.0, "channels": ["a", "b", "c"], "samples": 100}
    (run,) = acquire_all(config_of(task, options=MAX), tmp_path)
    assert run.info.rate_hz == 24e6 / 667 / 3
    assert blocks_of(run)[0].sample_rate_hz == run.info.rate_hz


def test_late_callbacks_do_not_move_the_sample_grid(tmp_path):
    options = {"lateness_ms": 60.0}
    (run,) = acquire_all(config_of({**FAST, "samples": 10_000}, options=options), tmp_path)
    blocks = blocks_of(run)

    for before, after in pairwise(blocks):
        assert abs(after.t_mono_ns - before.t_mono_ns - 100 * before.period_ns) <= 1.5
        assert after.t_utc_ns - after.t_mono_ns == before.t_utc_ns - before.t_mono_ns
    assert abs(blocks[0].t_utc_ns - run.info.started_utc_ns) < 1_000_000
    span_ns = blocks[-1].t_mono_ns - blocks[0].t_mono_ns
    assert abs(span_ns / 0.99e9 - 1) < 1e-3
    assert all(block.read_finished_at > block.t_utc for block in blocks)


def test_run_metadata_is_in_the_run_header(tmp_path):
    config = config_of({**FAST, "samples": 1}, options=MAX, run={"operator": "Ada", "specimen": {"id": 7}})
    (run,) = acquire_all(config, tmp_path)
    assert run.info.meta == {"operator": "Ada", "specimen": {"id": 7}}


def test_an_overrun_is_an_event_with_its_exact_samples(tmp_path):
    options = {**MAX, "overrun_at_s": 0.03}
    (run,) = acquire_all(config_of({**FAST, "samples": 1000}, options=options), tmp_path)

    (event,) = events_of(run)
    assert (event.kind, event.index, event.sample_index, event.lost_samples) == ("overrun", 3, 300, 100)
    after = blocks_of(run)[3]
    assert (after.block_index, after.first_sample_index) == (4, 400)
    np.testing.assert_array_equal(after.raw_codes[0], simulated_codes(0, 0, 400, 100, rate_hz=10_000.0))
    assert blocks_of(run)[-1].end_sample_index == 1000


def test_a_board_that_goes_away_ends_the_run_and_what_follows_is_a_new_one(tmp_path):
    options = {**MAX, "lose_device_at_s": 0.05, "lost_for_s": 0.3}
    first, second = acquire_all(config_of({**FAST, "samples": 1000}, options=options), tmp_path)

    assert first.status().state == "interrupted"
    (event,) = events_of(first)
    assert (event.kind, event.sample_index, event.index) == ("device_lost", 500, 5)
    assert second.status().state == "ended"
    assert second.info.samples_asked == 500
    assert blocks_of(second)[0].first_sample_index == 0
    assert blocks_of(second)[-1].end_sample_index == 500
    assert first.info.run_id < second.info.run_id


def test_a_polled_board_that_goes_away_is_polled_again_when_it_is_back(tmp_path):
    options = {"lose_device_at_s": 0.02, "lost_for_s": 0.1}
    first, second = acquire_all(config_of({**SLOW, "rate_hz": 200.0, "samples": 10}, options=options), tmp_path)
    lost = events_of(first)[-1]
    assert lost.kind == "device_lost"
    for run, slots in [(first, lost.sample_index), (second, 10 - lost.sample_index)]:
        assert len(readings_of(run)) + sum(event.lost_samples for event in events_of(run)) == slots


def test_a_board_that_stays_away_is_an_error_not_a_complete_run(tmp_path):
    options = {**MAX, "lose_device_at_s": 0.05, "lost_for_s": 1000.0}
    config = config_of({**FAST, "samples": 1000}, options=options, device={"reconnect_s": 0.3})
    with pytest.raises(BoardError, match=r"'dev'.*did not come back within 0.3 s \(reconnect_s\)"):
        acquire_all(config, tmp_path)
    (run,) = list_runs(tmp_path / "journal")
    assert run.status().state == "interrupted"


def test_stopping_drains_what_was_delivered(tmp_path):
    stop = threading.Event()
    seen = threading.Thread(target=_set_when_journaled, args=(tmp_path, 5, stop))
    seen.start()
    (run,) = acquire_all(config_of(FAST), tmp_path, stop)
    seen.join()
    status = run.status()
    assert status.state == "ended"
    assert status.final >= 5
    assert [record.index for record in records_of(run)] == list(range(status.final))


def _set_when_journaled(data, count, stop):
    for _ in range(2000):
        if any(run.head() >= count for run in _closing(list_runs(data / "journal"))):
            break
        stop.wait(0.01)
    stop.set()


def _closing(runs):
    for run in runs:
        with run:
            yield run


class StalledDisk:
    """Holds every append once it is told to, until it is let go."""

    def __init__(self, monkeypatch, after):
        self.go = threading.Event()
        self._left = after
        self._append = files.append
        monkeypatch.setattr(files, "append", self)

    def __call__(self, fd, parts):
        self._left -= 1
        if self._left < 0:
            assert self.go.wait(30)
        return self._append(fd, parts)


def test_a_disk_that_stalls_makes_an_overrun_with_its_exact_samples_never_silence(tmp_path, monkeypatch):
    disk = StalledDisk(monkeypatch, after=10)
    config = config_of({**FAST, "rate_hz": 20_000.0, "samples": 20_000}, journal={"queue_s": 0.05})
    threading.Timer(0.5, disk.go.set).start()
    (run,) = acquire_all(config, tmp_path)

    events = events_of(run)
    assert events
    assert {event.kind for event in events} == {"overrun"}
    lost, first = events[0].lost_samples, events[0].sample_index
    assert events[0].message == f"the journal stalled: {lost} samples from number {first} on were not stored"
    expected = 0
    for record in records_of(run):
        if isinstance(record, DaqEvent):
            assert record.sample_index == expected
            expected += record.lost_samples
        else:
            assert isinstance(record, DaqBlock)
            assert record.first_sample_index == expected
            expected = record.end_sample_index
    assert expected == 20_000
    assert sum(event.lost_samples for event in events) >= 1000


def test_a_source_that_can_wait_loses_nothing_to_a_disk_that_stalls(tmp_path, monkeypatch):
    disk = StalledDisk(monkeypatch, after=10)
    threading.Timer(0.3, disk.go.set).start()
    (run,) = acquire_all(config_of({**FAST, "samples": 20_000}, options=MAX), tmp_path)
    assert not events_of(run)
    assert sum(block.samples_per_channel for block in blocks_of(run)) == 20_000


@pytest.mark.parametrize("options", [{}, MAX])
def test_a_full_disk_ends_the_acquisition_loudly(tmp_path, monkeypatch, options):
    real, left = files.append, [20]

    def append(fd, parts):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, parts)

    monkeypatch.setattr(files, "append", append)
    with pytest.raises(JournalError, match="No space left on device"):
        acquire_all(config_of(FAST, options=options), tmp_path)


def test_readings_have_their_values_units_times_and_index(tmp_path):
    channels = [{"name": f"tc{n}", "thermocouple": "K", "physical": n} for n in range(3)]
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 100.0, "samples": 20, "channels": channels}), tmp_path)
    readings = readings_of(run)
    polled = [reading for reading in readings if reading.error is None]

    assert [record.index for record in records_of(run)] == list(range(len(readings) + len(events_of(run))))
    expected = {
        f"tc{n}": [simulated_temperatures(0, n, slot, 1, rate_hz=100.0)[0] for slot in range(20)] for n in range(3)
    }
    for reading in polled:
        assert reading.units == {"tc0": "°C", "tc1": "°C", "tc2": "°C"}
        assert all(reading.values[name] in expected[name] for name in expected)
        assert reading.requested_at <= reading.t_utc <= reading.received_at
        assert reading.t_mono_ns <= reading.t_midpoint_mono_ns
        assert reading.latency_s >= 0
    missed = sum(event.lost_samples for event in events_of(run))
    assert len(readings) + missed == 20
    assert run.status().state == "ended"


def test_polls_keep_step_with_the_start_and_what_is_missed_is_told(tmp_path, monkeypatch):
    real, waited = SimReadings.poll, threading.Event()

    def slow_poll(self, slot):
        if slot == 3:
            waited.wait(0.2)
        return real(self, slot)

    monkeypatch.setattr(SimReadings, "poll", slow_poll)
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 50.0, "samples": 30}), tmp_path)
    readings, events = readings_of(run), events_of(run)

    missed = sum(event.lost_samples for event in events)
    assert missed >= 5
    assert events[0].sample_index == 4
    assert len(readings) + missed == 30
    start_ns = run.info.started_mono_ns
    assert all(reading.t_mono_ns >= start_ns for reading in readings)
    assert readings[-1].t_mono_ns >= start_ns + 28 * 20_000_000


def test_an_open_thermocouple_is_nan_with_a_status(tmp_path):
    options = {"open_thermocouple": {"channel": "tc"}}
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 500.0, "samples": 3}, options=options), tmp_path)
    readings = readings_of(run)
    assert all(math.isnan(reading.values["tc"]) for reading in readings)
    assert [reading.sensor_status for reading in readings] == [{"tc": SensorStatus.SENSOR_OPEN}] * len(readings)


def test_a_poll_that_fails_is_a_reading_with_the_error_and_the_next_one_is_due(tmp_path, monkeypatch):
    real = SimReadings.poll

    def failing(self, slot):
        if slot == 0:
            raise TimeoutError("the thermometer does not answer")
        return real(self, slot)

    monkeypatch.setattr(SimReadings, "poll", failing)
    (run,) = acquire_all(config_of({**SLOW, "rate_hz": 50.0, "samples": 4}), tmp_path)
    first, *rest = readings_of(run)
    assert first.values == {}
    assert (first.error.type, first.error.message) == ("builtins.TimeoutError", "the thermometer does not answer")
    assert rest
    assert all(reading.error is None for reading in rest)


def test_the_acquisition_opens_no_socket(tmp_path, monkeypatch):
    def refused(*_args, **_settings):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    (run,) = acquire_all(config_of({**FAST, "samples": 100}, options=MAX), tmp_path)
    assert run.status().state == "ended"


def test_a_board_that_is_not_there_cannot_start(tmp_path, monkeypatch):
    class Absent(boards.board_class("sim")):
        def open(self):
            raise BoardError("no board with serial 123")

    monkeypatch.setattr(guarding, "board_class", lambda kind: Absent)
    with pytest.raises(CannotStartError, match="'dev': no board with serial 123; connect the board"):
        acquire_all(config_of(FAST), tmp_path)


def test_an_unknown_device_and_a_bad_folder_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="no device 'x'"):
        acquire(config_of(FAST), "x", tmp_path, threading.Event())
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStartError, match="cannot be written"):
        acquire_all(config_of(FAST), tmp_path / "file")


CHILD = """
import sys, threading
from pathlib import Path
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.config import load_config
acquire(load_config(Path(sys.argv[1])), "dev", Path(sys.argv[2]), threading.Event())
"""


def test_an_acquisition_killed_in_its_run_is_readable_and_the_next_start_ends_it(tmp_path):
    config_path = tmp_path / "config.json"
    config_path.write_bytes(dump_config(config_of(FAST)))
    command = [sys.executable, "-c", CHILD, str(config_path), str(tmp_path)]
    with subprocess.Popen(command) as child:
        stop = threading.Event()
        _set_when_journaled(tmp_path, 10, stop)
        os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    (killed,) = list_runs(tmp_path / "journal")
    durable = killed.head()
    killed.close()
    assert killed.status().state == "running"
    killed.close()

    first, second = acquire_all(config_of({**FAST, "samples": 300}), tmp_path)

    assert first.path == killed.path
    status = RunFolder(first.path).status()
    assert status.state == "interrupted"
    assert status.final >= durable >= 10
    blocks = blocks_of(first)
    assert [block.block_index for block in blocks] == list(range(status.final))
    for block in blocks:
        expected = simulated_codes(0, 0, block.first_sample_index, 100, rate_hz=10_000.0)
        np.testing.assert_array_equal(block.raw_codes[0], expected)
    assert Path(second.path) != Path(first.path)
    assert blocks_of(second)[-1].end_sample_index == 300
