"""One run followed as it grows: what is durable and not yet published, and how it ended. Opens no socket."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dtolbus.errors import DtolbusError
from dtolbus.records import Gap, Record, RunEnd, RunInfo, RunStatus
from dtolbus.runs import HEAD_FILE, RUN_FILE, RunFolder
from dtolbus.wire import Frame, RunRecord, encode
from dtolbus_producer.headwatch import HeadWatch

_LOOK_EVERY_S = 0.02
"""How often `run.json` is looked at: it changes once, when the run is over."""
_LOOK_AT_LEAST_S = 0.2
"""And that at least, however often the head moves."""
_FIRST_EVERY_S = 1.0
"""How often the oldest segment is looked for."""


class Outgoing(NamedTuple):
    """A record ready to be published."""

    run: RunInfo
    next: int
    """The index of the record after it."""
    frames: list[Frame]

    @property
    def size(self) -> int:
        """Bytes of its frames."""
        return sum(map(len, self.frames))


class FollowedRun:
    """A run from `start` on. `look` reads how far it is; `take` gives what is new.

    What one sync makes durable is much at once: `prepare` has it ready before.
    """

    def __init__(self, folder: RunFolder, start: int, watch: HeadWatch) -> None:
        self.info: RunInfo = folder.info
        self.path: Path = folder.path
        self.published = start
        """Number of records taken, from 0 on."""
        self.head = start
        self.moved_at = time.monotonic()
        """When the head last moved, or the run was first seen, monotonic s."""
        self._folder = folder
        self._watch = watch
        self._watched: int | None = None
        self._ready: deque[Outgoing] = deque()
        """What follows on what is published, beyond the head too."""
        self.ready_bytes = 0
        """Of its frames."""
        self._first = folder.first()
        self._ended: RunEnd | None = None
        self._run_file_ns = -1
        self._looked_at = 0.0
        self._first_at = self.moved_at

    @property
    def is_over(self) -> bool:
        """Whether the run is over and all of it has been taken."""
        return self._ended is not None and self.published >= self.head

    @property
    def is_watched(self) -> bool:
        """Whether there is word of it when the head moves."""
        return self._watched is not None

    @property
    def status(self) -> RunStatus:
        """How far the run is, as those who listen may know it: an end only once all of it was taken."""
        state = self._ended if self._ended is not None and self.is_over else "running"
        return RunStatus(self.info, state, min(self._first, self._told), self._told)

    @property
    def _told(self) -> int:
        """What listeners know as the head: never beyond an end that a power cut moved back."""
        return self.published if self._ended is None else min(self.published, self.head)

    def look(self, now: float) -> None:
        """Read the head, and now and then whether the run is over; `now` is monotonic, s.

        Where the head moved, what is new can go out first: the rest is looked at when it stands still, or in the end.
        """
        if self._watched is None:
            self._watched = self._watch.add(self.path / HEAD_FILE)
        unlooked_s = now - self._looked_at
        if self._ended is None and unlooked_s >= _LOOK_EVERY_S:
            before = self.head
            with contextlib.suppress(DtolbusError, OSError):  # raised below, unless the run is over
                self._read_head(now)
            if self.head > before and unlooked_s < _LOOK_AT_LEAST_S:
                return
            self._looked_at = now
            self._look_for_end()
        if now - self._first_at >= _FIRST_EVERY_S:
            self._first_at, self._first = now, self._folder.first()
        self._read_head(now)  # after the end: it moved before that

    def take(self, most: int) -> Iterator[Outgoing]:
        """Yield up to `most` new records in order, without those that cannot be read; `published` follows."""
        end = min(self.head, self.published + most)
        while self._ready and self.published < end:
            outgoing = self._ready.popleft()
            self.ready_bytes -= outgoing.size
            self.published = outgoing.next
            yield outgoing
        for found in self._folder.records(self.published, end):
            if isinstance(found, Gap):
                self.published = found.to_index
            else:
                outgoing = self._outgoing(found)
                self.published = outgoing.next
                yield outgoing

    def prepare(self, records: int, size: int) -> int:
        """Read some of what is written already; `take` gives it once the head has passed it.

        So many records at most, and no more once their frames have `size` bytes. Returns how many.
        """
        begin, until = self.published + len(self._ready), self.ready_bytes + size
        with contextlib.suppress(DtolbusError, OSError):  # told when it is its turn
            for record in self._folder.read_ahead(begin, begin + records):
                self._ready.append(self._outgoing(record))
                self.ready_bytes += self._ready[-1].size
                if self.ready_bytes >= until:
                    break
        return self.published + len(self._ready) - begin

    def close(self) -> None:
        """Close what is open; following goes on when asked."""
        if self._watched is not None:
            self._watch.drop(self._watched)
            self._watched = None
        self._ready.clear()
        self.ready_bytes = 0
        self._folder.close()

    def _read_head(self, now: float) -> None:
        head = self._folder.head()
        if head > self.head:
            self.moved_at = now
        if head > self.head or self._ended is not None:
            self.head = head

    def _outgoing(self, record: Record) -> Outgoing:
        return Outgoing(self.info, record.index + 1, encode(RunRecord(self.info, record)))

    def _look_for_end(self) -> None:
        changed_ns = os.stat(self.path / RUN_FILE).st_mtime_ns
        if changed_ns == self._run_file_ns and time.time_ns() - changed_ns > 3_000_000_000:
            return
        self._run_file_ns = changed_ns
        file = self._folder.refresh()
        if file.state != "running":
            self._ended = file.state
