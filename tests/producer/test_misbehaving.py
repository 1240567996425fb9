"""Another package's board that raises, hangs, falls silent or tells impossible times: told, and nothing is lost."""

import dataclasses
import threading
import time

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of, readings_of

from dtolbus.errors import BoardError, CannotStartError
from dtolbus.runs import list_runs
from dtolbus_producer import attending, prepared
from dtolbus_producer.boards import Buffer, End, Readout
from dtolbus_producer.boards.sim import SimBlocks, SimBoard, SimReadings

CLOCKED = {"name": "t", "rate_hz": 1000.0, "samples": 300, "block_samples": 100, "channels": ["x", "y"]}
ENDLESS = {"name": "t", "rate_hz": 1000.0, "block_samples": 100, "channels": ["x"]}
POLLED = {"name": "t", "kind": "readings", "rate_hz": 100.0, "samples": 4, "channels": ["x"]}
IMPATIENT = {"device": {"reconnect_s": 0.3}}


def samples_of(run):
    return sum(block.samples_per_channel for block in blocks_of(run))


def at_second_buffer(monkeypatch, act):
    """Let `act(source, buffer)` give what the second buffer's read gives."""
    real, count = SimBlocks.read, iter(range(10**9))

    def read(self, timeout_s):
        found = real(self, timeout_s)
        return act(self, found) if isinstance(found, Buffer) and next(count) == 1 else found

    monkeypatch.setattr(SimBlocks, "read", read)


def raiser(error):
    def act(*args):
        raise error

    return act


class Unshowable(Exception):
    def __str__(self):
        raise ValueError("no words")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("odd\nthing"), r"read raised RuntimeError('odd\nthing')"),
        (SystemExit(5), "read raised SystemExit(5)"),
        (KeyboardInterrupt(), "read raised KeyboardInterrupt()"),
        (Unshowable(), "read raised Unshowable, which cannot be shown"),
        (CannotStartError("not now"), "read raised CannotStartError('not now')"),
    ],
)
def test_whatever_read_raises_is_an_event_with_the_package_and_a_new_run_follows(tmp_path, monkeypatch, error, says):
    at_second_buffer(monkeypatch, raiser(error))
    first, second = acquire_all(config_of(CLOCKED), tmp_path)
    (event,) = events_of(first)
    assert (event.kind, event.message) == ("sdk_error", f"the board 'sim' of dtolbus-producer: {says}")
    assert (samples_of(first), first.status().state) == (100, "interrupted")
    assert (samples_of(second), second.status().state) == (200, "ended")


@pytest.mark.parametrize("error", [BoardError("it does not stop"), RuntimeError("it does not stop"), SystemExit(1)])
def test_a_stop_that_raises_costs_no_sample_and_no_outcome(tmp_path, monkeypatch, error):
    monkeypatch.setattr(SimBlocks, "stop", raiser(error))
    (run,) = acquire_all(config_of(CLOCKED), tmp_path)
    assert (samples_of(run), run.status().state) == (300, "ended")
    (event,) = events_of(run)
    assert event.kind == "sdk_error"
    assert "it does not stop" in event.message or "stop raised SystemExit(1)" in event.message


@pytest.mark.parametrize(
    ("name", "raised", "says"),
    [
        ("__init__", CannotStartError, "making it raised OSError('odd')"),
        ("open", CannotStartError, "open raised OSError('odd')"),
        ("blocks", BoardError, "blocks raised OSError('odd')"),
    ],
)
def test_what_the_set_up_raises_is_one_line(tmp_path, monkeypatch, name, raised, says):
    config = config_of(CLOCKED, **IMPATIENT)
    monkeypatch.setattr(SimBoard, name, raiser(OSError("odd")))
    with pytest.raises(raised, match="the board 'sim' of dtolbus-producer: ") as refused:
        acquire_all(config, tmp_path)
    assert says in str(refused.value)


def test_a_check_that_raises_is_one_line(monkeypatch):
    monkeypatch.setattr(SimBoard, "check", staticmethod(raiser(SystemExit("odd"))))
    with pytest.raises(
        CannotStartError, match=r"the board 'sim' of dtolbus-producer: check raised SystemExit\('odd'\)"
    ):
        config_of(CLOCKED)


@pytest.mark.parametrize(("given", "says"), [(None, "blocks gave nothing"), (3, "blocks gave a int without plan")])
def test_a_source_that_is_none_is_told(tmp_path, monkeypatch, given, says):
    monkeypatch.setattr(SimBoard, "blocks", lambda self, task: given)
    with pytest.raises(BoardError, match=says):
        acquire_all(config_of(CLOCKED, **IMPATIENT), tmp_path)


def test_a_start_that_raises_begins_no_run_and_the_next_try_does(tmp_path, monkeypatch):
    real, count = SimBlocks.start, iter(range(10))
    monkeypatch.setattr(SimBlocks, "start", lambda self: raiser(OSError("odd"))() if next(count) == 0 else real(self))
    (run,) = acquire_all(config_of(CLOCKED), tmp_path)
    assert samples_of(run) == 300


@pytest.mark.parametrize(
    ("error", "says"),
    [(SystemExit(5), "poll raised SystemExit(5)"), (Unshowable(), "Unshowable, which cannot be shown")],
)
def test_a_poll_that_raises_anything_is_a_failed_reading(tmp_path, monkeypatch, error, says):
    count = iter(range(10**9))
    monkeypatch.setattr(SimReadings, "poll", lambda self, slot: raiser(error)() if next(count) else Readout({"x": 1.0}))
    (run,) = acquire_all(config_of(POLLED), tmp_path)
    first, *others = readings_of(run)
    assert first.error is None
    assert others
    assert all(says in reading.error.message for reading in others)
    assert run.status().state == "ended"


def test_a_board_that_ends_by_itself_before_all_was_given_is_told_and_goes_on(tmp_path, monkeypatch):
    at_second_buffer(monkeypatch, lambda source, buffer: End.END)
    first, second = acquire_all(config_of(CLOCKED), tmp_path)
    (event,) = events_of(first)
    assert event.message == "DT9806 (simulated): the board ended by itself after 100 of 300 samples"
    assert first.status().state == "interrupted"
    assert samples_of(second) == 200


@pytest.fixture
def impatient(monkeypatch):
    """Silence is told, and a hanging board given up, after a moment."""
    monkeypatch.setattr(attending, "_SILENT_S", 0.2)
    monkeypatch.setattr(attending, "_SILENT_BLOCKS", 1)
    monkeypatch.setattr(prepared, "HANG_S", 0.2)


def until_event(data, stop, count=1):
    """Set `stop` once the journal has so many events, from a thread."""

    def wait():
        while not stop.is_set():
            if sum(len(events_of(run)) for run in list_runs(data / "journal")) >= count:
                stop.set()
            stop.wait(0.05)

    threading.Thread(target=wait, daemon=True).start()


def test_a_board_that_gives_nothing_is_told_and_again_when_it_gives(tmp_path, monkeypatch, impatient):
    real, silent = SimBlocks.read, []

    def read(self, timeout_s):
        if (
            self._next == 100
            and len(silent) < 100
            and not any(events_of(run) for run in list_runs(tmp_path / "journal"))
        ):
            silent.append(time.sleep(timeout_s))
            return None
        return real(self, timeout_s)

    monkeypatch.setattr(SimBlocks, "read", read)
    (run,) = acquire_all(config_of(CLOCKED), tmp_path)
    one, other = events_of(run)
    assert (one.kind, one.sample_index) == (other.kind, other.sample_index) == ("silent", 100)
    assert one.message.startswith("the board has given nothing for ")
    assert other.message.startswith("the board gives again, after ")
    assert (samples_of(run), run.status().state) == (300, "ended")


def test_a_read_that_hangs_is_told_and_at_the_stop_the_run_ends_with_what_is_there(tmp_path, monkeypatch, impatient):
    never, stop = threading.Event(), threading.Event()
    at_second_buffer(monkeypatch, lambda source, buffer: never.wait())
    until_event(tmp_path, stop)
    with pytest.raises(BoardError, match=r"the board 'sim' of dtolbus-producer: read has not come back for"):
        acquire_all(config_of(ENDLESS), tmp_path, stop)
    (run,) = list_runs(tmp_path / "journal")
    assert run.status().state == "interrupted"
    assert samples_of(run) == 100
    assert [event.kind for event in events_of(run)] == ["silent", "sdk_error"]
    never.set()  # what comes too late is in no journal


def test_a_poll_that_hangs_is_told_and_ends_likewise(tmp_path, monkeypatch, impatient):
    never, stop = threading.Event(), threading.Event()
    count = iter(range(10**9))
    monkeypatch.setattr(
        SimReadings, "poll", lambda self, slot: Readout({"x": 1.0}) if next(count) < 2 else never.wait()
    )
    until_event(tmp_path, stop)
    with pytest.raises(BoardError, match="poll has not come back"):
        acquire_all(config_of({**POLLED, "samples": 1000}), tmp_path, stop)
    (run,) = list_runs(tmp_path / "journal")
    assert (len(readings_of(run)), run.status().state) == (2, "interrupted")
    never.set()


def test_a_stop_that_hangs_at_the_end_does_not_keep_the_run_open(tmp_path, monkeypatch, impatient):
    never = threading.Event()
    monkeypatch.setattr(SimBlocks, "stop", lambda self: never.wait())
    with pytest.raises(BoardError, match="stop has not come back"):
        acquire_all(config_of(CLOCKED), tmp_path)
    (run,) = list_runs(tmp_path / "journal")
    assert (samples_of(run), run.status().state) == (300, "interrupted")
    never.set()


@pytest.mark.parametrize("allowed", ["is_triggered", "can_wait"])
def test_a_board_that_waits_for_its_trigger_or_its_reader_is_not_silent(tmp_path, monkeypatch, impatient, allowed):
    real, looks, asked = SimBlocks.read, [], []

    def read(self, timeout_s):
        self.plan = dataclasses.replace(self.plan, **{allowed: True})
        asked.append(len(looks))
        return real(self, timeout_s) if len(looks) > asked[0] + 10 else time.sleep(timeout_s)

    def blocks(self, task):
        source = SimBlocks(self, task, self._options)
        source.plan = dataclasses.replace(source.plan, **{allowed: True})
        return source

    looked = attending.Attendance.look
    monkeypatch.setattr(attending.Attendance, "look", lambda self: looks.append(looked(self)))
    monkeypatch.setattr(SimBlocks, "read", read)
    monkeypatch.setattr(SimBoard, "blocks", blocks)
    (run,) = acquire_all(config_of(CLOCKED), tmp_path)
    assert events_of(run) == []
    assert samples_of(run) == 300


@pytest.mark.parametrize(
    ("moved", "says"),
    [
        (lambda b: b._replace(arrived_mono_ns=time.time_ns() + 10**15), "which is at"),
        (lambda b: b._replace(arrived_mono_ns=b.arrived_mono_ns - 10**10), "before those that it gave before"),
    ],
)
def test_an_instant_that_cannot_be_is_told_once_and_dates_nothing(tmp_path, monkeypatch, moved, says):
    real, count = SimBlocks.read, iter(range(10**9))

    def read(self, timeout_s):
        found = real(self, timeout_s)
        return moved(found) if isinstance(found, Buffer) and next(count) else found

    monkeypatch.setattr(SimBlocks, "read", read)
    (run,) = acquire_all(config_of(CLOCKED), tmp_path)
    (event,) = events_of(run)
    assert event.kind == "sdk_error"
    assert says in event.message
    for block in blocks_of(run):
        assert abs(block.t_mono_ns - run.info.started_mono_ns - block.first_sample_index * 10**6) < 50_000_000
        assert block.anchor is None or block.anchor.mono_ns < time.perf_counter_ns()


def test_callbacks_at_half_of_the_time_are_told(tmp_path, monkeypatch):
    real = SimBlocks.read

    def read(self, timeout_s):
        found = real(self, timeout_s)
        if not isinstance(found, Buffer):
            return found
        return found._replace(arrived_mono_ns=(self.started_mono_ns + found.arrived_mono_ns) // 2)

    monkeypatch.setattr(SimBlocks, "read", read)
    (run,) = acquire_all(config_of({**CLOCKED, "samples": 800}), tmp_path)
    (event,) = events_of(run)
    assert "after the start, of which" in event.message


def test_more_samples_than_the_time_can_hold_are_no_samples(tmp_path, monkeypatch):
    huge = np.zeros((2, 5_000_000), np.uint16)
    at_second_buffer(monkeypatch, lambda source, buffer: buffer._replace(codes=huge))
    first, second = acquire_all(config_of(CLOCKED), tmp_path)
    (event,) = events_of(first)
    assert event.message.startswith(
        "DT9806 (simulated): the board gave 5000000 samples of each channel, which take 5e+03"
    )
    assert (samples_of(first), samples_of(second)) == (100, 200)


def test_a_buffer_larger_than_a_message_is_several_records(tmp_path, monkeypatch):
    """What a board gives at once, of a time when it could be taken, is real however large it is."""
    real = SimBlocks.read
    codes = np.arange(2 * 9_000_000).reshape(2, -1).astype(np.uint16)

    def read(self, timeout_s):
        found = real(self, timeout_s)
        return found._replace(codes=codes) if isinstance(found, Buffer) else found

    monkeypatch.setattr(SimBlocks, "read", read)
    task = {**CLOCKED, "rate_hz": 100e6, "samples": 9_000_000, "block_samples": 100_000}
    (run,) = acquire_all(config_of(task, options={"throughput_hz": 1e9}), tmp_path)
    blocks = blocks_of(run)
    assert len(blocks) > 4
    assert [block.first_sample_index for block in blocks] == np.cumsum(
        [0, *(block.samples_per_channel for block in blocks[:-1])]
    ).tolist()
    np.testing.assert_array_equal(np.concatenate([block.raw_codes for block in blocks], axis=1), codes)


def test_buffers_without_samples_make_no_records_and_are_told_once(tmp_path, monkeypatch):
    real, count = SimBlocks.read, iter(range(10**9))

    def read(self, timeout_s):
        if next(count) % 2:
            now_ns = time.perf_counter_ns()
            return Buffer(np.empty((2, 0), np.uint16), now_ns, now_ns)
        return real(self, timeout_s)

    monkeypatch.setattr(SimBlocks, "read", read)
    (run,) = acquire_all(config_of(CLOCKED), tmp_path)
    assert [block.samples_per_channel for block in blocks_of(run)] == [100, 100, 100]
    (event,) = events_of(run)
    assert event.message == "DT9806 (simulated): the board gives buffers without samples, which are left out"
