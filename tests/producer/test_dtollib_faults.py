"""The Data Translation board when something goes wrong, and polled; on dtollib's fake of a DT9806."""

import math
import threading

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, events_of, readings_of, records_of
from tests.producer.bus import eventually

from dtolbus_producer.boards import Buffer, Fault, dtblocks, outbox
from dtolbus_producer.boards.conformance import BLOCK, within_patience
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
    rest_of,
    started,
)

__all__ = ["bench"]  # a fixture


# ---- what goes wrong ----


def kinds_of(run):
    return [event.kind for event in events_of(run)]


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("overrun", "overrun", "own memory overran"),
        ("reused", "overrun", "wrote over a buffer"),
        ("stopped", "overrun", "stopped by itself"),
        ("loss", "device_lost", "unplugged"),
        ("gone", "device_lost", "went away"),
        ("silence", "device_lost", "nothing came for"),
    ],
)
def test_what_ends_a_run_is_told_and_a_new_run_goes_on(monkeypatch, tmp_path, fault, kind, says):
    monkeypatch.setattr(dtblocks, "_SILENT_S", 0.3)
    bench_of(monkeypatch, fault)
    runs = []
    within_patience(lambda: runs.extend(acquire_all(config_of(device_of(samples=1000)), tmp_path)))
    first, second = runs
    (event,) = events_of(first)
    assert (event.kind, event.sample_index, event.lost_samples) == (kind, 400, 0)
    assert says in event.message
    assert (first.status().state, second.status().state) == ("interrupted", "ended")
    np.testing.assert_array_equal(codes_in(blocks_of(first)), expected(400))
    np.testing.assert_array_equal(codes_in(blocks_of(second)), expected(600))


def test_an_error_is_an_event_of_its_own_and_never_a_value(monkeypatch, tmp_path):
    bench_of(monkeypatch, "error")
    (run,) = acquire_all(config_of(device_of(samples=1000)), tmp_path)
    assert [record.index for record in records_of(run)] == list(range(11))
    assert kinds_of(run) == ["sdk_error"]
    assert all(block.error is None and block.raw_codes is not None for block in blocks_of(run))
    np.testing.assert_array_equal(codes_in(blocks_of(run)), expected(1000))


def test_a_driver_that_has_no_buffer_left_is_an_overrun_and_a_new_run_follows(bench, monkeypatch, tmp_path):
    """Nothing may take the buffers for so long that the driver stops, and the run look complete."""
    taken, stalled = bench.backend.get_buffer, [True]

    def stall(hdass):
        if stalled and bench.delivered >= 2 * BLOCK:
            assert bench.is_starved.wait(PATIENCE_S)
            stalled.clear()
        return taken(hdass)

    monkeypatch.setattr(bench.backend, "get_buffer", stall)
    first, second = acquire_all(config_of(device_of(samples=2000, options={"buffers": 4})), tmp_path)
    assert kinds_of(first) == ["overrun"]
    assert "no buffer left" in events_of(first)[0].message
    assert first.status().state == "interrupted"
    over = blocks_of(first)[-1].end_sample_index
    np.testing.assert_array_equal(codes_in(blocks_of(first)), expected(over))
    np.testing.assert_array_equal(codes_in(blocks_of(second)), expected(2000 - over))


def test_a_consumer_that_stalls_does_not_keep_the_driver_waiting(bench):
    """Many more buffers than the driver has are taken while nobody reads: none is dropped, the driver never starves."""
    board, source = started(device_of(options={"buffers": 3}))
    eventually(lambda: bench.delivered >= 40 * BLOCK)
    assert not bench.is_starved.is_set()
    source.stop()
    found = rest_of(source)
    board.close()
    assert len(found) >= 40
    codes = np.concatenate([buffer.codes for buffer in found], axis=1)
    np.testing.assert_array_equal(codes, expected(codes.shape[1]))


def test_what_finds_no_room_is_an_overrun_with_its_exact_samples(bench, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_WAITING_BYTES", 10 * BLOCK * 2 * 2)
    board, source = started(device_of())
    eventually(lambda: bench.delivered >= 20 * BLOCK)
    over, lost = 0, 0
    while not lost or over < lost + 20 * BLOCK:
        found = source.read(PATIENCE_S)
        if isinstance(found, Fault):
            assert (found.kind, found.fatal) == ("overrun", False)
            lost += found.lost_samples
            over += found.lost_samples
        else:
            np.testing.assert_array_equal(found.codes[0], codes_of(1, over, BLOCK))
            over += BLOCK
    source.stop()
    board.close()
    assert lost >= 10 * BLOCK


def test_leaving_while_everything_is_full_does_not_hang(bench, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_WAITING_BYTES", 2 * BLOCK * 2 * 2)
    board, source = started(device_of(options={"buffers": 3}))
    eventually(lambda: bench.delivered >= 20 * BLOCK)
    closing = threading.Thread(target=board.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    *buffers, lost = rest_of(source)
    assert all(isinstance(buffer, Buffer) for buffer in buffers)
    assert sum(buffer.codes.shape[1] for buffer in buffers) + lost.lost_samples == bench.delivered
    assert not bench.backend._open_devices
    assert not bench.backend._open_subsystems
    assert not bench.backend._hbuf_payload


def test_a_driver_that_hangs_in_its_stop_is_left_alone(bench, monkeypatch):
    monkeypatch.setattr(dtblocks, "_STOP_S", 0.2)
    _board, source = started(device_of())
    assert isinstance(source.read(PATIENCE_S), Buffer)
    hanging, came_back = threading.Event(), []
    monkeypatch.setattr(bench.backend, "stop", lambda hdass: came_back.append(hanging.wait(PATIENCE_S)))
    source.stop()
    assert not came_back
    assert all(isinstance(found, Buffer) for found in rest_of(source))
    hanging.set()


@pytest.mark.parametrize("operation", ["get_buffer", "read_buffer_payload", "put_buffer"])
def test_a_driver_call_that_fails_ends_the_run_and_a_new_one_goes_on(monkeypatch, tmp_path, operation):
    bench_of(monkeypatch, f"failing {operation}")
    runs = []
    within_patience(lambda: runs.extend(acquire_all(config_of(device_of(samples=1000)), tmp_path)))
    assert [run.status().state for run in runs] == ["interrupted", "ended"]
    (event,) = events_of(runs[0])
    assert event.kind == "sdk_error"
    assert "ECODE=99" in event.message
    assert "\n" not in event.message
    assert sum(blocks_of(run)[-1].end_sample_index for run in runs) == 1000
    for run in runs:
        np.testing.assert_array_equal(codes_in(blocks_of(run)), expected(blocks_of(run)[-1].end_sample_index))
    copied = 5 if operation == "put_buffer" else 4  # a buffer that was read counts, though it could not be given back
    assert blocks_of(runs[0])[-1].end_sample_index == copied * BLOCK


@pytest.mark.parametrize("operation", ["get_dass", "set_clock", "commit", "alloc_buffer", "arm", "start"])
def test_a_start_that_fails_is_tried_again_and_leaves_nothing_behind(bench, tmp_path, operation):
    bench.backend.fail_next(operation, code=99)
    runs = acquire_all(config_of(device_of(samples=BLOCK)), tmp_path)
    assert blocks_of(runs[-1])[-1].end_sample_index == BLOCK
    assert not bench.backend._open_devices
    assert not bench.backend._open_subsystems
    assert not bench.backend._hbuf_payload


def test_a_finite_run_takes_exactly_what_was_asked(bench, tmp_path):
    (run,) = acquire_all(config_of(device_of(samples=250)), tmp_path)
    assert [block.samples_per_channel for block in blocks_of(run)] == [100, 100, 50]
    np.testing.assert_array_equal(codes_in(blocks_of(run)), expected(250))


def test_nothing_that_was_delivered_before_the_stop_is_missing(monkeypatch, tmp_path):
    """The driver stops with a buffer that it had begun: its samples count."""
    bench = bench_of(monkeypatch, tail=37)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    (run,) = acquire_all(config_of(device_of()), tmp_path, stop)
    over = blocks_of(run)[-1].end_sample_index
    assert over == bench.delivered
    assert blocks_of(run)[-1].samples_per_channel == 37
    assert not events_of(run)
    np.testing.assert_array_equal(codes_in(blocks_of(run)), expected(over))


# ---- polled ----


def scripted(bench, values):
    """Give each input its code, whatever the handle."""
    bench.backend.get_single_value = lambda hdass, channel, gain: values[channel]


def test_polled_values_are_volts(bench, tmp_path):
    scripted(bench, {0: 32768, 1: 34406, 2: 49152, 3: 0})
    channels = tuple(ChannelConfig(f"v{n}", physical=n) for n in range(4))
    device = device_of(channels=channels, kind="readings", rate_hz=50.0, block_samples=None, samples=3)
    (run,) = acquire_all(config_of(device), tmp_path)
    for reading in readings_of(run):
        values = [reading.values[f"v{n}"] for n in range(4)]
        assert values == pytest.approx([0.0, 0.5, 5.0, -10.0], abs=20 / 65536 / 2)
        assert set(reading.units.values()) == {"V"}
    assert len(readings_of(run)) + sum(event.lost_samples for event in events_of(run)) == 3


def test_polled_codes_of_twos_complement_are_signed(bench, monkeypatch):
    monkeypatch.setattr(bench.backend, "get_scaling", lambda hdass: (-10.0, 10.0, 16, True))
    scripted(bench, {1: -16384, 5: 0xC000})
    device = device_of(kind="readings", rate_hz=50.0, block_samples=None)
    board = opened(device)
    assert board.readings(device.tasks[0]).poll(0).values == {"a": -5.0, "b": -5.0}
    board.close()


def test_a_poll_that_fails_is_a_reading_with_the_error_never_a_value(bench, tmp_path):
    bench.backend.fail_next("get_single_value", code=99)
    device = device_of(kind="readings", rate_hz=50.0, block_samples=None, samples=4)
    (run,) = acquire_all(config_of(device), tmp_path)
    first, *others = readings_of(run)
    assert first.values == {}
    assert "ECODE=99" in first.error.message
    assert all(reading.error is None for reading in others)


def test_a_polled_board_that_goes_away_is_polled_again_when_it_is_back(bench, tmp_path):
    polls = []

    def value(hdass, channel, gain):
        polls.append(channel)
        if len(polls) == 5:
            bench._away = 2
            bench.backend.fail_next("get_scaling", code=99)
            return bench.backend.get_scaling(hdass)
        return 32768

    bench.backend.get_single_value = value
    device = device_of(kind="readings", rate_hz=50.0, block_samples=None, samples=50)
    first, second = acquire_all(config_of(device), tmp_path)
    assert kinds_of(first)[-1] == "device_lost"
    assert all(math.isclose(value, 0.0) for reading in readings_of(second) for value in reading.values.values())
    assert second.status().state == "ended"
