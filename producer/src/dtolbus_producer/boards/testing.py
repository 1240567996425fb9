"""The suite that every board passes: a board's test class inherits BoardConformance and says how to make one.

::

    class TestMyBoard(BoardConformance):
        faults = frozenset({"overrun", "loss"})
        def device(self, place, fault="", **task): return DeviceConfig("dev", "mine", {…}, (TaskConfig("t", **task),))
        def expected(self, channel, first, count): return …   # the codes that the input gives
"""

import math
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dtolbus.records import DaqBlock, DaqEvent, Record
from dtolbus.remarks import is_remark
from dtolbus_producer.boards import End, Readout, board_class
from dtolbus_producer.boards.conformance import (
    BLOCK,
    PATIENCE_S,
    RATE_HZ,
    SAMPLES,
    ConformanceBase,
    buffers_of,
    records_of,
    rest_of,
    within_patience,
)

__all__ = ["BLOCK", "RATE_HZ", "SAMPLES", "BoardConformance"]

_UNREAD_S = 0.3
_FAULTS = ("short", "error", "overrun", "loss")


class BoardConformance(ConformanceBase):
    """What every board must do; a subclass gives `device` and `expected`, and plays the faults that it can.

    Its device has one clocked task, of RATE_HZ and BLOCK where the board lets one choose, with `**task` added.
    """

    # ---- configuration ----

    def test_its_options_are_strict(self, tmp_path: Path) -> None:
        """An option that does not exist is refused, and the device of the suite is not."""
        kind = board_class(self.device(tmp_path).board_kind)
        kind.check(self.device(tmp_path))
        with pytest.raises(msgspec.ValidationError, match="no_such_option"):
            msgspec.convert({"no_such_option": 1}, kind.options_type, strict=True)

    def test_the_plan_says_what_runs(self, tmp_path: Path) -> None:
        """Channels, rate and block are those asked for, as far as the board lets one choose."""
        board, source = self.source_of(tmp_path)
        (task,) = self.device(tmp_path).tasks
        names = [channel.name for channel in source.plan.channels]
        assert len(set(names)) == len(names) > 0
        assert [channel.name for channel in task.channel_configs] in (names[: len(task.channels)], [])
        assert 0 < source.plan.rate_hz < math.inf
        assert task.rate_hz is None or abs(source.plan.rate_hz / task.rate_hz - 1) < 0.01
        assert source.plan.block_samples == task.samples_in_block(source.plan.rate_hz)
        assert source.plan.board
        source.stop()
        board.close()

    def test_calibration(self, tmp_path: Path) -> None:
        """A range goes from the lowest code to the one after the highest; known codes have their value."""
        board, source = self.source_of(tmp_path)
        for channel in source.plan.channels:
            if channel.encoding == "float":
                continue
            assert channel.resolution_bits is not None
            assert channel.range is not None
            half = 2 ** (channel.resolution_bits - 1)
            first = 0 if channel.encoding == "offset_binary" else -half
            assert np.dtype(source.plan.dtype).kind == ("u" if first == 0 and channel.resolution_bits <= 16 else "i")
            limits = [(first + code) * channel.scale + channel.offset for code in (0, 2 * half)]
            assert limits[1] - limits[0] > 0
            if channel.unit == "V":
                assert limits == pytest.approx(channel.range, abs=1e-9)
        for code, value in self.calibrated:
            channel = source.plan.channels[0]
            assert code * channel.scale + channel.offset == pytest.approx(value, abs=abs(channel.scale) / 2)
        source.stop()
        board.close()

    # ---- samples ----

    def test_codes(self, tmp_path: Path) -> None:
        """Every code is the board's, of the plan's type; a buffer that was handed over does not change any more."""
        board, source = self.source_of(tmp_path)
        source.start()
        buffers = buffers_of(source, SAMPLES)
        copies = [buffer.codes.copy() for buffer in buffers]
        buffers += buffers_of(source, SAMPLES // 2)
        source.stop()
        board.close()
        for buffer, copy in zip(buffers, copies, strict=False):
            np.testing.assert_array_equal(buffer.codes, copy)
        assert {str(buffer.codes.dtype) for buffer in buffers} == {source.plan.dtype}
        self.check_codes(source, buffers)

    def test_times(self, tmp_path: Path) -> None:
        """A buffer is never there before its last sample is over; it was waited for before it came."""
        board, source = self.source_of(tmp_path)
        before_ns = time.perf_counter_ns()
        source.start()
        over = 0
        for buffer in buffers_of(source, SAMPLES):
            over += buffer.codes.shape[1]
            assert buffer.asked_mono_ns <= buffer.arrived_mono_ns <= time.perf_counter_ns()
            if source.plan.keeps_time:
                assert buffer.arrived_mono_ns >= before_ns + over * 1e9 / source.plan.rate_hz * (1 - 200e-6)
        source.stop()
        board.close()

    def test_a_finite_run_ends_at_exactly_its_last_sample(self, tmp_path: Path) -> None:
        """What was asked for is in the journal: not one sample less, not one more."""
        (run,) = self.acquired(self.device(tmp_path, samples=2 * BLOCK + 50), tmp_path)
        assert self.checked(run) == 2 * BLOCK + 50
        assert run.status().state == "ended"

    # ---- faults ----

    @pytest.mark.parametrize("fault", _FAULTS)
    def test_a_fault_in_mid_run(self, tmp_path: Path, fault: str) -> None:
        """No sample is missing untold, none doubled, none in another's place; errors are events, never values."""
        if fault not in self.faults:
            pytest.skip(f"{type(self).__name__} cannot play {fault!r}")
        runs = self.acquired(self.device(tmp_path, fault, samples=SAMPLES), tmp_path)
        assert sum(self.checked(run) for run in runs) == SAMPLES
        assert [run.status().state for run in runs] == ["interrupted"] * (len(runs) - 1) + ["ended"]
        records = [[found for found in records_of(run) if not _is_of_signals(found)] for run in runs]
        events = [record for found in records for record in found if isinstance(record, DaqEvent)]
        if fault == "short":
            assert not events
            assert any(record.samples_per_channel < BLOCK for record in records[0] if isinstance(record, DaqBlock))
        elif fault == "error":
            assert len(runs) == 1
            assert "sdk_error" in {event.kind for event in events}
        elif fault == "overrun":
            assert "overrun" in {event.kind for event in events}
            assert len(runs) > 1 or sum(event.lost_samples for event in events) > 0
        else:
            assert len(runs) > 1
            assert isinstance(records[0][-1], DaqEvent)
            assert records[0][-1].kind == "device_lost"

    def test_a_stop_while_nobody_reads(self, tmp_path: Path) -> None:
        """The board stops in time however much is unread; what it had delivered comes, in order, and then the end."""
        board, source = self.source_of(tmp_path)
        source.start()
        buffers = buffers_of(source, BLOCK)
        threading.Event().wait(_UNREAD_S)
        within_patience(source.stop)
        within_patience(lambda: buffers.extend(rest_of(source)))
        assert source.read(PATIENCE_S) is End.END
        source.stop()
        board.close()
        assert all(buffer.asked_mono_ns <= buffer.arrived_mono_ns for buffer in buffers)
        self.check_codes(source, buffers)

    def test_a_stop_loses_nothing_that_was_delivered(self, tmp_path: Path) -> None:
        """A run that is stopped ends; its records follow each other."""
        device, stop = self.device(tmp_path), threading.Event()
        threading.Timer(_UNREAD_S, stop.set).start()
        (run,) = self.acquired(device, tmp_path, stop)
        assert self.checked(run) > 0
        assert run.status().state == "ended"

    def test_a_restart_begins_anew(self, tmp_path: Path) -> None:
        """A board runs again, after a stop and after it was closed; closing it twice does nothing."""
        board = self.opened(self.device(tmp_path))
        (task,) = self.device(tmp_path).tasks
        for is_closed_between in (False, True, False):
            source = board.blocks(task)
            source.start()
            buffers = buffers_of(source, 3 * BLOCK)
            source.stop()
            buffers += rest_of(source)
            self.check_codes(source, buffers)
            if is_closed_between:
                board.close()
                board.close()
                board.open()
        board.close()

    def test_polled_values(self, tmp_path: Path) -> None:
        """Each poll gives a number, or NaN, for each channel of the plan."""
        device = self.polled(tmp_path)
        if device is None:
            pytest.skip(f"the board of {type(self).__name__} cannot be polled")
        board = self.opened(device)
        source = board.readings(device.tasks[0])
        for slot in range(3):
            found = source.poll(slot)
            assert isinstance(found, Readout)
            assert set(found.values) == {channel.name for channel in source.plan.channels}
            assert all(isinstance(value, float) for value in found.values.values())
        board.close()


def _is_of_signals(record: Record) -> bool:
    return isinstance(record, DaqEvent) and is_remark(record)
