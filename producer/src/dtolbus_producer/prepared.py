"""A task that is set up on its board, and how it is run once."""

import threading
import time
from dataclasses import dataclass
from typing import cast

from dtolbus.errors import BoardError
from dtolbus_producer.attending import HANG_S
from dtolbus_producer.boards.guarding import GuardedBlocks, GuardedReadings
from dtolbus_producer.polling import run_readings
from dtolbus_producer.taskrun import Outcome, RunRequest, run_blocks


@dataclass(frozen=True, eq=False)
class Prepared:
    """A task that is set up on its board, and not started."""

    source: GuardedBlocks | GuardedReadings
    request: RunRequest

    def run(self, halt: threading.Event) -> Outcome:
        """Run it once. Raises what the journal raises."""
        try:
            if self.request.kind == "readings":
                return run_readings(cast(GuardedReadings, self.source), self.request, halt)
            return run_blocks(cast(GuardedBlocks, self.source), self.request, halt)
        except BoardError as error:
            return Outcome("lost", 0, str(error))

    def why_hung(self, halted_ns: int | None) -> str | None:
        """Return why its thread is to be given up, or None; `halted_ns` is when it was told to end."""
        busy = self.source.busy
        if busy is None or (halted_ns is None and busy.what != "stop"):
            return None
        since_s = (time.perf_counter_ns() - max(busy.since_ns, halted_ns or 0)) / 1e9
        if since_s < HANG_S:
            return None
        return self.source.said(f"{busy.what} has not come back for {since_s:.0f} s: its run ends without it")

    def drop(self) -> None:
        """Give it up without a run."""
        if self.request.kind == "blocks":
            cast(GuardedBlocks, self.source).stop()
