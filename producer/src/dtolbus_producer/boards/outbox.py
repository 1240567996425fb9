"""Between the thread that empties a driver and the one that reads the board: bounded, so that no driver waits."""

import queue

from dtolbus.records import Codes
from dtolbus_producer.boards import Buffer, Fault

MOST_WAITING_BYTES = 64 << 20
"""How much may wait to be read; what comes beyond is lost, and told."""


class Outbox:
    """What `board` has delivered and nobody has read yet, blocks of about `block_bytes`. One thread puts, one takes."""

    def __init__(self, board: str, block_bytes: int) -> None:
        self._board = board
        self._most = max(MOST_WAITING_BYTES // block_bytes, 2)
        self._queue: queue.SimpleQueue[Buffer | Fault] = queue.SimpleQueue()
        self._lost = 0

    def put_codes(self, codes: Codes, arrived_ns: int) -> None:
        """Let the codes, shape (channels, samples), wait to be read; where too much waits already they are lost."""
        if self._queue.qsize() >= self._most:
            self._lost += codes.shape[1]
            return
        self.tell_lost()
        self._queue.put(Buffer(codes, arrived_ns, arrived_ns))

    def put_fault(self, fault: Fault) -> None:
        """Let a fault wait to be read; there is always room for one."""
        self._queue.put(fault)

    def tell_lost(self) -> None:
        """Put an overrun in the place of what was lost since the last codes, if anything was."""
        if self._lost:
            message = f"{self._board}: {self._lost} samples of each channel found no room: they were not read"
            self._queue.put(Fault("overrun", message, self._lost))
            self._lost = 0

    def take(self, asked_ns: int, timeout_s: float) -> Buffer | Fault | None:
        """Return what waits longest, a buffer with when it was asked for, monotonic ns; None where nothing comes."""
        try:
            found = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(found, Buffer):
            return found._replace(asked_mono_ns=min(asked_ns, found.arrived_mono_ns))
        return found
