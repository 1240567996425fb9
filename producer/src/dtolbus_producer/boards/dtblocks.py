"""A clocked task of a Data Translation board: buffers go round between the driver and a thread that empties them."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from dtolbus.errors import BoardError
from dtolbus.records import Codes
from dtolbus_producer.boards import Buffer, End, Fault, TaskPlan
from dtolbus_producer.boards.dtdriver import AnalogInput, board_errors, load
from dtolbus_producer.boards.outbox import Outbox

log = logging.getLogger(__name__)

_SILENT_BLOCKS = 5
_SILENT_S = 3.0
"""A board whose clock runs and that gives nothing for so long, and so many blocks, is gone, s."""
_STOP_S = 10.0
"""How long the driver may take to stop beyond the block that it fills, s."""


class BufferPlan(NamedTuple):
    """The buffers between the driver and this program."""

    buffers: int
    samples: int
    """Of each channel in one buffer."""
    is_paced: bool
    """The board's own clock runs, so that buffers come at its rate."""


class DtBlocks:
    """The task. The driver's thread only notes the instant; a thread of its own copies a buffer and gives it back."""

    def __init__(self, subsystem: AnalogInput, plan: TaskPlan, buffers: BufferPlan) -> None:
        self.plan = plan
        self._subsystem = subsystem
        self._buffers = buffers
        self._dtype = np.dtype(plan.dtype)
        self._block_s = buffers.samples / plan.rate_hz
        block_bytes = buffers.samples * len(plan.channels) * self._dtype.itemsize
        self._outbox = Outbox(subsystem.board, block_bytes)
        self._messages: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._handles: list[int] = []
        self._notification: object = None
        self._last_ns: int | None = None
        self._is_dead = False
        self._is_stopping = False
        self._is_stopped = False
        self._emptying = threading.Thread(target=self._empty_all, name="dt buffers", daemon=True)

    def start(self) -> None:
        """Give the driver its buffers, and start the clock, or arm the trigger. Raises BoardError."""
        driver, handle = self._subsystem.driver, self._subsystem.handle
        with board_errors(self._subsystem.board):
            for _ in range(self._buffers.buffers):
                samples = self._buffers.samples * len(self.plan.channels)
                self._handles.append(driver.alloc_buffer(samples, self._dtype.itemsize))
            # the order that the DT9805/06 need: the window, the buffers, the second configuration, the start
            self._notification = driver.register_notification(handle, self._note)
            for buffer in self._handles:
                driver.put_buffer(handle, buffer)
            driver.arm(handle)
            self._emptying.start()
            driver.start(handle)
        if not self.plan.is_triggered:
            self._last_ns = time.perf_counter_ns()

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return the next buffer or fault."""
        is_stopped = self._is_stopped
        found = self._outbox.take(time.perf_counter_ns(), 0 if is_stopped else timeout_s)
        if found is not None:
            return found
        return End.END if is_stopped else self._silence(time.perf_counter_ns())

    def stop(self) -> None:
        """Stop the clock; a driver that does not come back is left alone."""
        if self._is_stopping:
            return
        self._is_stopping = True
        stopping = threading.Thread(target=self._shut_down, name="dt stop", daemon=True)
        stopping.start()
        stopping.join(self._block_s + _STOP_S)
        if stopping.is_alive():
            log.error("driver does not stop", extra={"board": self._subsystem.board})
        self._is_stopped = True

    def _note(self, message: int, _wparam: int, _lparam: int) -> int:
        """Take the driver's message, on its thread."""
        self._messages.put((message, time.perf_counter_ns()))
        return 0

    def _empty_all(self) -> None:
        constants = load("dtollib.capi.constants")
        try:
            while (found := self._messages.get()) is not None and not self._is_dead:
                message, arrived_ns = found
                if message == constants.OLDA_WM_BUFFER_DONE:
                    self._empty_one(arrived_ns)
                elif (fault := self._fault(message)) is not None:
                    self._take_fault(fault, are_buffers_whole=message != constants.OLDA_WM_BUFFER_REUSED)
            if not self._is_dead:
                self._empty_rest()
        except BoardError as error:
            self._take_fault(Fault("sdk_error", str(error), fatal=True), are_buffers_whole=False)

    def _take_fault(self, fault: Fault, *, are_buffers_whole: bool) -> None:
        """Pass a fault on; before a fatal one what the driver had filled, if it is known where that belongs."""
        if fault.fatal:
            self._is_dead = True
            if are_buffers_whole:
                with contextlib.suppress(BoardError):
                    self._empty_rest()
            self._outbox.tell_lost()
        self._outbox.put_fault(fault)

    def _empty_one(self, arrived_ns: int) -> bool:
        """Pass on a copy of the oldest full buffer, and give it back; return whether there was one."""
        driver, handle = self._subsystem.driver, self._subsystem.handle
        channels = len(self.plan.channels)
        with board_errors(self._subsystem.board):
            buffer = driver.get_buffer(handle)
            if buffer is None:
                return False
            count = driver.get_buffer_valid_samples(buffer) // channels
            flat = np.asarray(driver.read_buffer_payload(buffer))[: count * channels]
            if count:
                self._pass_on(np.array(flat.reshape(count, channels).T, dtype=self._dtype, order="C"), arrived_ns)
            driver.put_buffer(handle, buffer)
        return True

    def _empty_rest(self) -> None:
        """Pass on what a driver that has stopped still has; buffers that were given back come out empty."""
        for _ in self._handles:
            if not self._empty_one(time.perf_counter_ns()):
                break
        self._outbox.tell_lost()

    def _pass_on(self, codes: Codes, arrived_ns: int) -> None:
        self._last_ns = time.perf_counter_ns()
        self._outbox.put_codes(codes, arrived_ns)

    def _fault(self, message: int) -> Fault | None:
        """Return what a message other than a full buffer means; how much an overrun lost, the driver does not say."""
        constants, board = load("dtollib.capi.constants"), self._subsystem.board
        ends = (constants.OLDA_WM_QUEUE_DONE, constants.OLDA_WM_QUEUE_STOPPED, constants.OLDA_WM_IO_COMPLETE)
        if message in ends and self._is_stopping:
            return None
        if message == constants.OLDA_WM_OVERRUN_ERROR:
            return Fault("overrun", f"{board}: the board's own memory overran", fatal=True)
        if message == constants.OLDA_WM_BUFFER_REUSED:
            return Fault("overrun", f"{board}: the driver wrote over a buffer that was not read yet", fatal=True)
        if message == constants.OLDA_WM_QUEUE_DONE:
            return Fault("overrun", f"{board}: the driver had no buffer left, and stopped", fatal=True)
        if message == constants.OLDA_WM_DEVICE_REMOVAL:
            return Fault("device_lost", f"{board}: the board was unplugged", fatal=True)
        if message in ends:
            if self._subsystem.is_listed():
                return Fault("overrun", f"{board}: the driver stopped by itself", fatal=True)
            return Fault("device_lost", f"{board}: the board went away", fatal=True)
        names = {
            constants.OLDA_WM_TRIGGER_ERROR: "a trigger came while the board was not ready for it",
            constants.OLDA_WM_UNDERRUN_ERROR: "an output had nothing to give",
            constants.OLDA_WM_EVENT_ERROR: "the driver reports an error",
        }
        return Fault("sdk_error", f"{board}: {names[message]}") if message in names else None

    def _silence(self, now_ns: int) -> Fault | None:
        """Return the loss of the board where its clock should run and nothing has come for long."""
        if not self._buffers.is_paced or self._last_ns is None or self._is_dead:
            return None
        silent_s = (now_ns - self._last_ns) / 1e9
        if silent_s < max(_SILENT_S, _SILENT_BLOCKS * self._block_s):
            return None
        self._is_dead = True
        return Fault("device_lost", f"{self._subsystem.board}: nothing came for {silent_s:.1f} s", fatal=True)

    def _shut_down(self) -> None:
        """Stop, empty what is full, free everything: each step for itself, whatever the ones before it raised."""
        driver, handle = self._subsystem.driver, self._subsystem.handle
        # stopping in order waits for the buffer that is being filled, which without a clock never is
        is_running = self._buffers.is_paced and self._last_ns is not None and not self._is_dead
        steps: list[Callable[[], object]] = [partial(driver.stop if is_running else driver.abort, handle)]
        if self._notification is not None:
            steps.append(partial(driver.unregister_notification, handle, self._notification))
        steps += [self._join, partial(driver.flush_buffers, handle)]
        steps += [partial(driver.free_buffer, buffer) for buffer in self._handles]
        for step in steps:
            try:
                with board_errors(self._subsystem.board):
                    step()
            except BoardError as error:
                log.warning("board cannot be stopped in order", extra={"cause": str(error)})
        self._subsystem.release()

    def _join(self) -> None:
        self._messages.put(None)
        if self._emptying.ident is not None:
            self._emptying.join()
