"""One run followed as it grows: what is durable and not yet published, and how it ended."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from dtolbus.records import Gap, Record, RunEnd, RunInfo, RunStatus
from dtolbus.runs import RUN_FILE, RunFolder

_LOOK_EVERY_S = 0.02
"""How often `run.json` is looked at: it changes once, when the run is over."""
_FIRST_EVERY_S = 1.0
"""How often the oldest segment is looked for."""


class FollowedRun:
    """A run from `start` on. `look` reads how far it is; `take` gives what is new."""

    def __init__(self, folder: RunFolder, start: int) -> None:
        self.info: RunInfo = folder.info
        self.path: Path = folder.path
        self.published = start
        """Number of records taken, from 0 on."""
        self.head = start
        self.moved_at = time.monotonic()
        """When the head last moved, or the run was first seen, monotonic s."""
        self._folder = folder
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
    def status(self) -> RunStatus:
        """How far the run is, as those who listen may know it: an end only once all of it was taken."""
        state = self._ended if self._ended is not None and self.is_over else "running"
        return RunStatus(self.info, state, min(self._first, self._told), self._told)

    @property
    def _told(self) -> int:
        """What listeners know as the head: never beyond an end that a power cut moved back."""
        return self.published if self._ended is None else min(self.published, self.head)

    def look(self, now: float) -> None:
        """Read the head, and now and then whether the run is over; `now` is monotonic, s."""
        if self._ended is None and now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._look_for_end()
        if now - self._first_at >= _FIRST_EVERY_S:
            self._first_at, self._first = now, self._folder.first()
        head = self._folder.head()
        if head > self.head:
            self.moved_at = now
        if head > self.head or self._ended is not None:
            self.head = head

    def take(self, most: int) -> Iterator[Record | Gap]:
        """Yield up to `most` new records in order; `published` follows."""
        end = min(self.head, self.published + most)
        for found in self._folder.records(self.published, end):
            self.published = found.to_index if isinstance(found, Gap) else found.index + 1
            yield found

    def close(self) -> None:
        """Close what is open; following goes on when asked."""
        self._folder.close()

    def _look_for_end(self) -> None:
        changed_ns = os.stat(self.path / RUN_FILE).st_mtime_ns
        if changed_ns == self._run_file_ns and time.time_ns() - changed_ns > 3_000_000_000:
            return
        self._run_file_ns = changed_ns
        file = self._folder.refresh()
        if file.state != "running":
            self._ended = file.state
