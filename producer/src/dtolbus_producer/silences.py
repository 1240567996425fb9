"""Boards that give nothing although they run, as the journal tells: for `up`, which does not talk to them."""

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record, RunStatus
from dtolbus.topics import stream_name
from dtolbus_producer.attending import AGAIN, SILENT

_LAST_RECORDS = 16
_QUIET_S = 1.0

Backwards = Callable[[RunStatus], Iterable[Record | Gap]]
"""Gives a run's records from its head backwards; none where they cannot be read."""


def silence_in(backwards: Iterable[Record | Gap]) -> str | None:
    """Return what the run's last records, the newest first, say of a board that gives nothing.

    None where it gave something since. No more of them are looked at than must be.
    """
    for record in itertools.islice(backwards, _LAST_RECORDS):
        if isinstance(record, DaqBlock | DaqReading):
            return None
        if isinstance(record, DaqEvent) and record.kind == SILENT:
            return None if record.message.startswith(AGAIN) else record.message
    return None


class _Seen(NamedTuple):
    head: int
    since_s: float
    """Monotonic instant when the head was first so, s."""
    is_read: bool


class Silences:
    """Watches runs for boards that fall silent; only a run that does not get on is read, and once."""

    def __init__(self, backwards: Backwards) -> None:
        self._backwards = backwards
        self._seen: dict[str, _Seen] = {}
        self._silent: dict[str, float] = {}
        """By run: since when its board is known to be silent, monotonic s."""

    def note(self, now: float, runs: Iterable[RunStatus]) -> list[str]:
        """Take how far the runs are at `now`, monotonic s; return what is to be said."""
        return [line for status in runs if (line := self._of(now, status)) is not None]

    def _of(self, now: float, status: RunStatus) -> str | None:
        run, stream = status.info.run_id, stream_name(status.info.device, status.info.task)
        seen = self._seen.get(run)
        if seen is None or seen.head != status.head:
            seen = self._seen[run] = _Seen(status.head, now, is_read=False)
            is_due = run in self._silent  # perhaps it gives again
        else:
            is_due = not seen.is_read and now - seen.since_s >= _QUIET_S and status.state == "running"
        if not is_due or not status.head:
            return None
        self._seen[run] = seen._replace(is_read=True)
        told = silence_in(self._backwards(status))
        if told is not None and run not in self._silent:
            self._silent[run] = now
            return f"{stream}: {told}"
        if told is None and run in self._silent:
            return f"{stream}: the board gives again, about {now - self._silent.pop(run):.0f} s later"
        return None
