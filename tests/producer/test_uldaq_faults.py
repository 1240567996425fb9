"""What can go wrong with a board of libuldaq: none of it is silent, or stored as values."""

import threading

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, events_of
from tests.producer.bus import eventually
from tests.producer.ulbench import (
    DEAD_DEV,
    ERROR,
    FRACTION,
    OVERRUN,
    POLL,
    SILENCE,
    STALL,
    codes_of,
    config_of,
    device_of,
    library,
    opened,
    small_ring,
    standin,
)

from dtolbus.errors import BoardError
from dtolbus_producer.boards import Buffer, End, Fault, Readout, outbox, ulblocks
from dtolbus_producer.boards.conformance import within_patience
from dtolbus_producer.boards.testing import BLOCK, SAMPLES
from dtolbus_producer.boards.uldriver import Scan

__all__ = ["library", "standin"]  # fixtures


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OVERRUN, "overrun"),
        (27, "overrun"),
        (DEAD_DEV, "device_lost"),
        (7, "device_lost"),
        (35, "sdk_error"),
        (4711, "sdk_error"),  # of a newer library
        (0, "overrun"),  # it stopped, and says nothing
    ],
)
def test_an_error_of_the_library_is_told_and_a_new_run_goes_on(standin, tmp_path, error, kind):
    standin.happens(ERROR, 450, error=error)
    first, second = acquire_all(config_of(device_of(samples=SAMPLES)), tmp_path)
    (event,) = events_of(first)
    assert event.kind == kind
    assert event.message.startswith("DT9837A 01C0FFEE: ")
    assert "\n" not in event.message
    assert event.sample_index in ((450,) if error == 0 else (300, 400))
    assert (first.status().state, second.status().state) == ("interrupted", "ended")
    assert sum(block.samples_per_channel for run in (first, second) for block in blocks_of(run)) == SAMPLES


def test_a_ring_that_was_written_over_is_an_overrun_wherever_the_reader_was_held_up(standin, tmp_path, monkeypatch):
    small_ring(monkeypatch)
    for number, at in enumerate((0, 99, 100, 350)):
        standin.happens(STALL, at)
        first, *others = acquire_all(config_of(device_of(samples=SAMPLES)), tmp_path / str(number))
        (event,) = events_of(first)
        assert (event.kind, len(others)) == ("overrun", 1)
        assert "in a ring of 800, and were written over" in event.message
        for run in (first, *others):
            for block in blocks_of(run):
                first_sample, count = block.first_sample_index, block.samples_per_channel
                np.testing.assert_array_equal(block.raw_codes[0], codes_of(1, first_sample, count))


def test_samples_that_are_written_over_while_they_are_copied_are_not_passed_on(standin, tmp_path, monkeypatch):
    small_ring(monkeypatch)
    copied, is_held = Scan.copy, threading.Event()

    def slow_copy(scan, first, count):
        if first == 400 and not is_held.is_set():
            is_held.set()
            eventually(lambda: scan.over()[0] > first + scan.samples + BLOCK)
        return copied(scan, first, count)

    monkeypatch.setattr(Scan, "copy", slow_copy)
    first, second = acquire_all(config_of(device_of(samples=SAMPLES - BLOCK)), tmp_path)
    (event,) = events_of(first)
    assert is_held.is_set()
    assert (event.kind, event.sample_index) == ("overrun", 400)
    for run in (first, second):
        for block in blocks_of(run):
            np.testing.assert_array_equal(block.raw_codes[1], codes_of(2, block.first_sample_index, BLOCK))


def test_what_the_library_had_when_it_was_stopped_comes_also_if_it_is_no_whole_block(standin):
    device = device_of(block_samples=100_000)
    board = opened(device)
    source = board.blocks(device.tasks[0])
    source.start()
    eventually(lambda: standin.scans > 1000)
    source.stop()
    found = source.read(20.0)
    assert isinstance(found, Buffer)
    assert found.codes.shape == (2, standin.scans)
    np.testing.assert_array_equal(found.codes[0], codes_of(1, 0, standin.scans))
    assert source.read(20.0) is End.END
    board.close()


def test_a_number_that_is_no_code_is_never_journaled(standin, tmp_path):
    standin.happens(FRACTION, 250)
    first, second = acquire_all(config_of(device_of(samples=SAMPLES)), tmp_path)
    (event,) = events_of(first)
    assert (event.kind, event.sample_index) == ("sdk_error", 200)
    assert "no code" in event.message
    assert second.status().state == "ended"


def test_a_board_that_falls_silent_is_lost(standin, tmp_path, monkeypatch):
    monkeypatch.setattr(ulblocks, "_SILENT_S", 1.0)
    standin.happens(SILENCE, 12_000)
    config, runs = config_of(device_of(samples=12_500, block_samples=2000)), []
    within_patience(lambda: runs.extend(acquire_all(config, tmp_path)))
    first, second = runs
    (event,) = events_of(first)
    assert (event.kind, event.sample_index) == ("device_lost", 12_000)
    assert second.status().state == "ended"


def test_a_reader_that_stalls_does_not_stop_the_ring_and_what_found_no_room_is_told(standin, monkeypatch):
    small_ring(monkeypatch)
    monkeypatch.setattr(outbox, "MOST_WAITING_BYTES", 5 * BLOCK * 2 * 4)
    board = opened(device_of())
    source = board.blocks(device_of().tasks[0])
    source.start()
    threading.Event().wait(0.3)  # thirty blocks, of which five find room
    source.stop()
    over, kinds = 0, []
    while (found := source.read(20.0)) is not End.END:
        if isinstance(found, Buffer):
            np.testing.assert_array_equal(found.codes[1], codes_of(2, over, found.codes.shape[1]))
            over += found.codes.shape[1]
        else:
            assert isinstance(found, Fault)
            kinds.append(found.kind)
            assert not found.fatal
            assert found.lost_samples > 0
            over += found.lost_samples
    board.close()
    assert kinds == ["overrun"]


def test_a_clock_that_is_another_one_at_the_start_is_refused(standin, monkeypatch):
    board = opened(device_of())
    source = board.blocks(device_of().tasks[0])
    monkeypatch.setattr(source, "_asked_hz", 9000.0)
    with pytest.raises(BoardError, match=r"the clock started at 90\d\d\.\d+ Hz, where it had said 9998\.3"):
        source.start()
    source.stop()
    board.close()


def test_a_poll_that_fails_is_that_polls_error_and_a_lost_board_ends_the_run(standin):
    device = device_of(kind="readings", rate_hz=10.0, block_samples=None)
    board = opened(device)
    source = board.readings(device.tasks[0])
    standin.happens(POLL, 0, error=35)
    with pytest.raises(BoardError, match=r"^DT9837A 01C0FFEE: error 35 of the stand-in \(INTERNAL\)$"):
        source.poll(0)
    assert isinstance(source.poll(1), Readout)
    standin.happens(POLL, 1, error=DEAD_DEV)
    found = source.poll(2)
    board.close()
    assert isinstance(found, Fault)
    assert (found.kind, found.fatal) == ("device_lost", True)
