"""A clocked task of a board of libuldaq: the library fills a ring, which a thread of the board's own empties."""

import contextlib
import logging
import threading
import time

import numpy as np

from dtolbus.errors import BoardError
from dtolbus.records import Codes
from dtolbus_producer.boards import Buffer, End, Fault, TaskPlan
from dtolbus_producer.boards.outbox import Outbox
from dtolbus_producer.boards.uldriver import Scan, fault_of

log = logging.getLogger(__name__)

_SILENT_BLOCKS = 5
_SILENT_S = 3.0
_PACKET_SAMPLES = 1024
"""A board that gives nothing for so long, so many blocks and such a packet of all channels, is gone."""
_LONGEST_PAUSE_S = 0.01
"""How often the ring is looked at, s: the library moves data every 10 ms."""
_STOP_S = 10.0
"""How long the library may take to stop, s."""


class UlBlocks:
    """The task. The library tells only how much it has written: what was written over is found by counting."""

    def __init__(self, scan: Scan, plan: TaskPlan, asked_hz: float) -> None:
        self.plan = plan
        self._scan = scan
        self._asked_hz = asked_hz
        self._dtype = np.dtype(plan.dtype)
        self._highest_code = 2 ** (plan.channels[0].resolution_bits or 0) - 1
        self._block_s = plan.block_samples / plan.rate_hz
        block_bytes = plan.block_samples * len(plan.channels) * self._dtype.itemsize
        self._outbox = Outbox(plan.board, block_bytes)
        self._silent_s = max(
            _SILENT_S, _SILENT_BLOCKS * self._block_s, _PACKET_SAMPLES / (len(plan.channels) * plan.rate_hz)
        )
        self._taken = 0
        self._over = 0
        self._last_ns = 0
        self._is_dead = False
        self._stopping = threading.Event()
        self._emptying = threading.Thread(target=self._empty_all, name="ul ring", daemon=True)

    def start(self) -> None:
        """Start the clock. Raises BoardError."""
        rate_hz = self._scan.start(self._asked_hz)
        self._last_ns = time.perf_counter_ns()
        self._emptying.start()
        if rate_hz != self.plan.rate_hz:
            board, planned_hz = self.plan.board, self.plan.rate_hz
            raise BoardError(f"{board}: the clock started at {rate_hz!r} Hz, where it had said {planned_hz!r} before")

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return the next buffer or fault."""
        is_stopped = self._stopping.is_set()
        found = self._outbox.take(time.perf_counter_ns(), 0 if is_stopped else timeout_s)
        if found is not None:
            return found
        return End.END if is_stopped else self._silence(time.perf_counter_ns())

    def stop(self) -> None:
        """Stop the clock, and wait for what had come; a library that does not come back is left alone."""
        self._stopping.set()
        if self._emptying.ident is None:
            return
        self._emptying.join(_STOP_S)
        if self._emptying.is_alive():
            log.error("library does not stop", extra={"board": self.plan.board})

    def _empty_all(self) -> None:
        fault: Fault | None = None
        pause_s = min(self._block_s / 4, _LONGEST_PAUSE_S)
        try:
            while fault is None and not self._stopping.wait(pause_s):
                fault = self._empty_whole()
            if fault is None:
                self._scan.stop()
                fault = self._empty_rest()
        except BoardError as error:
            fault = fault_of(error)
        self._outbox.tell_lost()
        if fault is not None:
            self._is_dead = True
            self._outbox.put_fault(fault)
            with contextlib.suppress(BoardError):
                self._scan.stop()

    def _empty_whole(self) -> Fault | None:
        """Pass on the whole blocks that are there; return what ends the run."""
        is_running = self._look()
        while self._over - self._taken >= self.plan.block_samples:
            fault = self._take(self.plan.block_samples)
            if fault is not None:
                return fault
        if is_running:
            return None
        return self._empty_rest() or Fault("overrun", f"{self.plan.board}: the scan stopped by itself", fatal=True)

    def _empty_rest(self) -> Fault | None:
        """Pass on everything that a scan which was stopped has left."""
        self._look()
        while self._over > self._taken:
            fault = self._take(min(self.plan.block_samples, self._over - self._taken))
            if fault is not None:
                return fault
        return None

    def _look(self) -> bool:
        """Ask how far the scan is; return whether it is running."""
        over, is_running = self._scan.over()
        if over > self._over:
            self._over, self._last_ns = over, time.perf_counter_ns()
        return is_running

    def _take(self, count: int) -> Fault | None:
        """Pass on the next samples, unless the library has written over them before they were copied."""
        arrived_ns = time.perf_counter_ns()
        values = self._scan.copy(self._taken, count)
        self._look()
        board = self.plan.board
        if self._over - self._taken >= self._scan.samples:  # and the next one may be half written already
            why = f"{self._over - self._taken} samples waited in a ring of {self._scan.samples}, and were written over"
            return Fault("overrun", f"{board}: {why}", fatal=True)
        if self._dtype.kind != "f" and not self._are_codes(values):
            return Fault("sdk_error", f"{board}: the library gave a number that is no code of the board", fatal=True)
        self._taken += count
        self._outbox.put_codes(values.astype(self._dtype), arrived_ns)
        return None

    def _are_codes(self, values: Codes) -> bool:
        return bool(np.all((values >= 0) & (values <= self._highest_code) & (values == np.rint(values))))

    def _silence(self, now_ns: int) -> Fault | None:
        """Return the loss of the board where its clock should run and nothing has come for long."""
        silent_s = (now_ns - self._last_ns) / 1e9
        if self._is_dead or silent_s < self._silent_s:
            return None
        self._is_dead = True
        return Fault("device_lost", f"{self.plan.board}: nothing came for {silent_s:.1f} s", fatal=True)
