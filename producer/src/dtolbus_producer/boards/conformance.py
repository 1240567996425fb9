"""What the boards' conformance suite needs: a board under test, its runs, checks of what they hold."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.records import Channel, DaqBlock, DaqEvent, Record
from dtolbus.remarks import KINDS
from dtolbus.runs import RunFolder, list_runs
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.boards import BlockSource, Board, Buffer, End, Fault, board_class
from dtolbus_producer.config import config_from
from dtolbus_producer.tasks import DeviceConfig

RATE_HZ = 10_000.0
"""What the board's task asks for, unless the board knows its rate."""
BLOCK = 100
"""Samples of a channel in its blocks."""
SAMPLES = 1000
"""How many a finite run takes; faults come before."""

_KINDS = ("overrun", "device_lost", "sdk_error", *KINDS)
PATIENCE_S = 20.0
"""How long anything may take, s."""


class ConformanceBase:
    """A board under test: how to make it, what it gives, which faults it can play."""

    faults: ClassVar[frozenset[str]] = frozenset()
    """What `device` can play: `short` buffers, an `error` that the run survives, an `overrun`, the `loss` of the board
    and its return; each before SAMPLES.
    """
    calibrated: ClassVar[tuple[tuple[int, float], ...]] = ()
    """Codes of the first channel, and the value that each stands for."""

    def device(self, place: Path, fault: str = "", **task: Any) -> DeviceConfig:
        """Return a device whose board plays the fault; files that it needs lie in `place`."""
        raise NotImplementedError

    def expected(self, channel: Channel, first: int, count: int) -> NDArray[Any]:
        """Return a channel's codes of a run's samples [first, first + count), lost ones counted; shape (count,)."""
        raise NotImplementedError

    def polled(self, place: Path) -> DeviceConfig | None:
        """Return a device with one polled task; None where the board cannot be polled."""
        return None

    def opened(self, device: DeviceConfig) -> Board:
        """Return the device's board, open."""
        kind = board_class(device.board_kind)
        kind.check(device)
        board = kind(device)
        board.close()
        board.open()
        return board

    def source_of(self, place: Path) -> tuple[Board, BlockSource]:
        """Return the board without a fault, open, and its clocked task, not started."""
        device = self.device(place)
        board = self.opened(device)
        return board, board.blocks(device.tasks[0])

    def acquired(self, device: DeviceConfig, place: Path, stop: threading.Event | None = None) -> list[RunFolder]:
        """Acquire the device to its end; return the runs, the oldest first."""
        config = config_from({"device": [msgspec.to_builtins(device)]})
        within_patience(lambda: acquire(config, device.name, place / "data", stop or threading.Event()))
        return list_runs(place / "data" / "journal")

    def checked(self, run: RunFolder) -> int:
        """Assert that the run's records follow each other with the right codes; return how many samples are over."""
        over = 0
        for index, record in enumerate(records_of(run)):
            assert record.index == index
            if isinstance(record, DaqEvent):
                assert record.kind in _KINDS
                assert record.message
                assert record.sample_index == over
                over += record.lost_samples
                continue
            assert isinstance(record, DaqBlock)
            assert record.first_sample_index == over
            assert record.samples_per_channel > 0
            assert record.sample_rate_hz == run.info.rate_hz
            self.check_block(run.info.channels, record.data if record.raw_codes is None else record.raw_codes, over)
            over = record.end_sample_index
        return over

    def check_codes(self, source: BlockSource, buffers: list[Buffer]) -> None:
        """Assert that the buffers are the run's first, with the right codes."""
        first = 0
        for buffer in buffers:
            self.check_block(source.plan.channels, buffer.codes, first)
            first += buffer.codes.shape[1]

    def check_block(self, channels: tuple[Channel, ...], codes: NDArray[Any], first: int) -> None:
        """Assert that these are the codes of the samples from `first` on."""
        assert codes.shape[0] == len(channels)
        for channel, row in zip(channels, codes, strict=True):
            np.testing.assert_array_equal(row, self.expected(channel, first, codes.shape[1]))


def records_of(run: RunFolder) -> list[Record]:
    """Return what the run holds."""
    with run:
        found = list(run.records(0, run.status().head))
    return [record for record in found if isinstance(record, DaqBlock | DaqEvent)]


def buffers_of(source: BlockSource, samples: int) -> list[Buffer]:
    """Read at least so many samples, without a fault among them."""
    found: list[Buffer] = []
    deadline = time.monotonic() + PATIENCE_S
    while sum(buffer.codes.shape[1] for buffer in found) < samples:
        assert time.monotonic() < deadline, f"{samples} samples did not come"
        buffer = source.read(0.1)
        assert not isinstance(buffer, Fault), buffer.message
        assert buffer is not End.END
        found += [buffer] if isinstance(buffer, Buffer) else []
    return found


def rest_of(source: BlockSource) -> list[Buffer]:
    """Read a stopped source to its end."""
    found: list[Buffer] = []
    while isinstance(buffer := source.read(PATIENCE_S), Buffer):
        found.append(buffer)
    assert buffer is End.END
    return found


def within_patience(work: Callable[[], object]) -> None:
    """Do it on a thread; raise what it raises, and fail where it does not come back."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), f"it did not come back within {PATIENCE_S:g} s"
    if errors:
        raise errors[0]
