"""How late the blocks of a run were in acquisition's hands, and on the disk, from the instant of their last sample."""

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, ns_from_utc
from dtolbus.runs import HEAD_FILE, RunFolder, decode_head

_LOOK_S = 0.002


class Lateness(NamedTuple):
    """Of each block of a run, by its number; shape (blocks,) each."""

    over_ns: NDArray[np.int64]
    """Monotonic instant when its last sample's period was over, by the run's clock."""
    hands_ms: NDArray[np.float64]
    """From then until acquisition had it: `read_finished_at`, when the board's call returned."""
    disk_ms: NDArray[np.float64]
    """From then until it was durable, and the head said so."""

    def p99_ms(self, *phases: tuple[int, int]) -> tuple[float, float]:
        """Return the 99th percentile, hands and disk, of the blocks that were over in [start, end), ns."""
        chosen = np.zeros(len(self.over_ns), dtype=bool)
        for start, end in phases:
            chosen |= (self.over_ns >= start) & (self.over_ns < end)
        if not chosen.any():
            raise RuntimeError("no block was recorded in a phase")
        hands, disk = (float(np.percentile(late[chosen], 99)) for late in (self.hands_ms, self.disk_ms))
        return hands, disk


class HeadWatch:
    """Notes, on a thread, when the head of a run moved: the file's own time, so that looking late costs nothing.

    Those times have the kernel's steps (1 to 10 ms), and a head that was written over unseen counts as the next.
    """

    def __init__(self, run: Path) -> None:
        self._fd = os.open(run / HEAD_FILE, os.O_RDONLY)
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        self._seen: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._fd)

    def durable_ns(self, blocks: int) -> NDArray[np.int64]:
        """Return when each of the first blocks was durable, monotonic ns, shape (blocks,). Records are blocks."""
        heads, when = np.array(self._seen, np.int64).T
        first_beyond = np.searchsorted(heads, np.arange(blocks), side="right").clip(max=len(when) - 1)
        found: NDArray[np.int64] = when[first_beyond]
        return found

    def _look(self) -> None:
        while True:
            is_last = self._stop.wait(_LOOK_S)
            found = decode_head(os.pread(self._fd, 64, 0))
            if found is not None and (not self._seen or found.head > self._seen[-1][0]):
                self._seen.append((found.head, os.fstat(self._fd).st_mtime_ns - self._offset_ns))
            if is_last:
                return


def lateness(folder: RunFolder, watch: HeadWatch) -> Lateness:
    """Return the lateness of a run that is over. Raises RuntimeError where it holds anything but blocks."""
    records = list(folder.records(0, folder.head()))
    blocks = [record for record in records if isinstance(record, DaqBlock)]
    if len(blocks) != len(records):
        raise RuntimeError(f"{len(records) - len(blocks)} records are no blocks: {records[0]}")
    lengths_ns = [round(block.samples_per_channel * block.period_ns) for block in blocks]
    over = np.array([block.t_mono_ns + length for block, length in zip(blocks, lengths_ns, strict=True)], np.int64)
    hands_ns = [
        ns_from_utc(block.read_finished_at) - block.t_utc_ns - length
        for block, length in zip(blocks, lengths_ns, strict=True)
        if block.read_finished_at is not None
    ]
    return Lateness(over, np.array(hands_ns) / 1e6, (watch.durable_ns(len(blocks)) - over) / 1e6)
