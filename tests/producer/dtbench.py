"""A Data Translation board to test with: dtollib's fake of a DT9806, and what driver and clock would do to it."""

import threading
import time
from collections import deque

import msgspec
import numpy as np
import pytest
from dtollib.capi import constants
from dtollib.tasks import BufferState, SdkEventKind
from dtollib.testing import make_fake_backend
from tests.producer.bus import eventually

from dtolbus_producer.boards import End, dtdriver
from dtolbus_producer.boards.conformance import BLOCK, RATE_HZ
from dtolbus_producer.boards.dt import DtBoard
from dtolbus_producer.boards.simsignal import simulated_codes
from dtolbus_producer.config import config_from
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig

PATIENCE_S = 20.0
TWO = (ChannelConfig("a", physical=1), ChannelConfig("b", physical=5))


def codes_of(physical, first, count):
    """The codes that input `physical` gives in every run, shape (count,), uint16."""
    return simulated_codes(0, physical, first, count, rate_hz=RATE_HZ)


class Bench:
    """Fills the buffers of each run of the fake board as its clock would, and does to it what `fault` says, once.

    `hold` keeps the clock from ticking until it is set: a trigger. With a `tail` a stop leaves so many samples in the
    buffer that was being filled, and no message of it. A buffer that was given back is written over.
    """

    def __init__(self, fault="", *, codes=codes_of, tail=0):
        self.backend = make_fake_backend(include_dt9806=True)
        self.hold = threading.Event()
        self.hold.set()
        self.delivered = 0
        """Samples of each channel given to the board in the newest run."""
        self.is_starved = threading.Event()
        self._fault = fault
        self._codes = codes
        self._tail = tail
        self._away = 0
        self._over = threading.Event()
        self._players = []
        self._real = {name: getattr(self.backend, name) for name in ("start", "stop", "abort", "enum_boards")}
        for name in self._real:
            setattr(self.backend, name, getattr(self, f"_{name}"))

    @property
    def operations(self):
        return [name for name, _ in self.backend.operations]

    def _start(self, hdass):
        self._real["start"](hdass)
        if hdass in self.backend._channel_lists:
            self._over = threading.Event()
            player = threading.Thread(target=self._play, args=(hdass, self._over, time.perf_counter_ns()), daemon=True)
            self._players.append(player)
            player.start()

    def _stop(self, hdass):
        self._end()
        if self._tail:
            self._fill(hdass, self._tail)
        self._real["stop"](hdass)
        for kind in (SdkEventKind.QUEUE_STOPPED, SdkEventKind.IO_COMPLETE):
            self.fire(hdass, kind)

    def _abort(self, hdass):
        self._end()
        self._real["abort"](hdass)

    def _end(self):
        self._over.set()
        for player in self._players:
            player.join(PATIENCE_S)

    def _enum_boards(self):
        self._away -= 1
        return [] if self._away >= 0 else self._real["enum_boards"]()

    def _play(self, hdass, over, started_ns):
        channels = self.backend._channel_lists[hdass]
        rate_hz = self.backend._clock_rate_hz[hdass] / len(channels)
        size = self.backend._hbuf_payload[self.backend._ready_queue[hdass][0]].size // len(channels)
        self.delivered = number = 0
        self._buffers = len(self.backend._ready_queue[hdass])
        while not self.hold.is_set() and not over.is_set():
            self.hold.wait(0.01)
            started_ns = time.perf_counter_ns()
        while not over.is_set():
            count = 37 if self._fault == "short" and number % 3 == 2 else size
            due_ns = started_ns + (self.delivered + count) * 1e9 / rate_hz
            if over.wait(max(due_ns - time.perf_counter_ns(), 0) / 1e9):
                return
            if not self._fill(hdass, count):
                self.is_starved.set()
                self.fire(hdass, SdkEventKind.QUEUE_DONE)
                return
            self.fire(hdass, SdkEventKind.BUFFER_DONE)
            number += 1
            if number == 4 and self._happens(hdass):
                return

    def _fill(self, hdass, count):
        """Fill the next buffer with `count` scans; say whether there was one."""
        channels = self.backend._channel_lists[hdass]
        rows = [self._codes(physical, self.delivered, count) for physical in channels]
        flat = np.stack(rows).T.reshape(-1)
        with self.backend._lock:
            if not self.backend._ready_queue[hdass]:
                return False
            buffer = self.backend._ready_queue[hdass].popleft()
            payload = self.backend._hbuf_payload[buffer]
            payload[:] = -1
            payload[: flat.size] = flat.view(payload.dtype)
            self.backend._hbuf_valid_samples[buffer] = flat.size
            self.backend._hbuf_state[buffer] = BufferState.COMPLETED
            self.backend._done_queue.setdefault(hdass, deque()).append(buffer)
            self.delivered += count
        return True

    def _happens(self, hdass):
        """Do what the fault is; say whether it stops the clock."""
        fault, self._fault = self._fault, self._fault if self._fault == "short" else ""
        if fault == "error":
            self.fire(hdass, SdkEventKind.TRIGGER_ERROR)
        elif fault == "overrun":
            self.fire(hdass, SdkEventKind.OVERRUN_ERROR)
            return True
        elif fault == "reused":
            self.delivered += BLOCK  # written over by the buffer that follows
            self._fill(hdass, BLOCK)
            self.fire(hdass, SdkEventKind.BUFFER_REUSED)
            return True
        elif fault == "loss":
            self._away = 2
            self.backend._notify_callbacks[hdass](constants.OLDA_WM_DEVICE_REMOVAL, 0, 0)
            return True
        elif fault in ("stopped", "gone"):
            self._away = 3 if fault == "gone" else 0
            self.fire(hdass, SdkEventKind.QUEUE_STOPPED)
            return True
        elif fault.startswith("failing "):
            eventually(lambda: len(self.backend._ready_queue[hdass]) == self._buffers)
            self.backend.fail_next(fault.removeprefix("failing "), code=99)
        return fault == "silence"

    def fire(self, hdass, kind):
        self.backend.fire_event(hdass, kind)


@pytest.fixture
def bench(monkeypatch):
    return bench_of(monkeypatch)


def bench_of(monkeypatch, fault="", **settings):
    made = Bench(fault, **settings)
    monkeypatch.setattr(dtdriver, "new_driver", lambda: made.backend)
    return made


def device_of(*, board="dtollib", options=None, channels=TWO, **task):
    task = TaskConfig("t", **{"rate_hz": RATE_HZ, "block_samples": BLOCK, "channels": channels, **task})
    return DeviceConfig("dev", board, options or {}, (task,))


def config_of(device, **rest):
    return config_from({"device": [msgspec.to_builtins(device)], **rest})


def opened(device):
    DtBoard.check(device)
    board = DtBoard(device)
    board.open()
    return board


def started(device):
    board = opened(device)
    source = board.blocks(device.tasks[0])
    source.start()
    return board, source


def values_of(found):
    return np.concatenate([block.data for block in found], axis=1)


def codes_in(found):
    return np.concatenate([block.raw_codes for block in found], axis=1)


def expected(count, *, inputs=(1, 5)):
    return np.stack([codes_of(physical, 0, count) for physical in inputs])


def rest_of(source):
    return list(iter(lambda: source.read(PATIENCE_S), End.END))
