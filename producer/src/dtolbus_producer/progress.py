"""How far the journal and its sinks are, read from the data folder: nobody has to be asked."""

import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dtolbus.bounds import can_be_announced
from dtolbus.errors import DtolbusError
from dtolbus.records import RunStatus
from dtolbus.registrations import Registration, read_registration, registration_path
from dtolbus.runs import RunFolder
from dtolbus.topics import stream_name, unquote
from dtolbus_producer.catalog import Catalog

log = logging.getLogger(__name__)

_RATE_OVER_S = 3.0


class JournalWatch:
    """The runs of a journal that sinks can have, and how far each is. `update` reads what changed."""

    def __init__(self, journal: Path) -> None:
        self._catalog = Catalog(journal)
        self._running: dict[str, RunFolder] = {}
        self.statuses: dict[str, RunStatus] = {}
        """By run_id."""
        self.gone: set[str] = set()
        """Runs among them whose folder is not there any more."""

    def update(self) -> None:
        """Read the heads of the running runs, and what is new."""
        found = self._catalog.discover()
        for path in self._catalog.gone():
            self._lose(unquote(path.name))
        for folder in found:
            self.gone.discard(folder.info.run_id)
            if not can_be_announced(folder.info):
                log.warning("run left out: its header is larger than a message", extra={"run": str(folder.path)})
                continue
            self._running[folder.info.run_id] = folder
        for run_id, folder in list(self._running.items()):
            try:
                status = self.statuses[run_id] = folder.status()
            except (DtolbusError, OSError) as error:
                log.warning("run cannot be read", extra={"run": str(folder.path), "cause": str(error)})
                del self._running[run_id]
                continue
            if status.state != "running":
                folder.close()
                del self._running[run_id]

    def _lose(self, run_id: str) -> None:
        if run_id in self.statuses:
            self.gone.add(run_id)
        folder = self._running.pop(run_id, None)
        if folder is not None:
            folder.close()

    def close(self) -> None:
        """Close what is open."""
        for folder in self._running.values():
            folder.close()


class SinkWatch:
    """The registrations of some sinks. `update` reads those that changed."""

    def __init__(self, data: Path, names: Iterable[str]) -> None:
        self._paths = {name: registration_path(data, name) for name in names}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, str] = {}
        self.registrations: dict[str, Registration] = {}
        """By name."""
        self.update()
        self._seen = {name: registration.seen_utc for name, registration in self.registrations.items()}

    def update(self) -> None:
        """Read what changed."""
        for name, path in self._paths.items():
            with contextlib.suppress(OSError, DtolbusError):
                stat = path.stat()
                stamp = (stat.st_mtime_ns, stat.st_ino)
                if self._stamps.get(name) != stamp:
                    self.registrations[name] = read_registration(path)
                    self._stamps[name] = stamp

    def was_heard(self, name: str) -> bool:
        """Whether the sink has said Hello since this watch was made."""
        registration = self.registrations.get(name)
        return registration is not None and registration.seen_utc != self._seen.get(name)


class SinkProgress(NamedTuple):
    """How far a sink is, over all runs that it takes."""

    position: int
    expected: int

    @property
    def lag(self) -> int:
        """Records that it does not have yet."""
        return self.expected - self.position


def sink_progress(registration: Registration | None, statuses: Iterable[RunStatus]) -> SinkProgress:
    """Return how far a sink is; one that never said Hello has nothing."""
    position = expected = 0
    for status in statuses:
        if registration is None or registration.takes(status.info):
            expected += status.head
            known = None if registration is None else registration.positions.get(status.info.run_id)
            position += 0 if known is None else min(known.position, status.head)
    return SinkProgress(position, expected)


@dataclass(frozen=True)
class Snapshot:
    """How far everything is at one time."""

    at_s: float
    """Monotonic, s."""
    samples: Mapping[str, int]
    """By stream: samples a channel (polls) journaled, about, in the runs of this session."""
    heads: Mapping[str, int]
    """By stream: records of its newest run."""
    sinks: Mapping[str, SinkProgress]
    """By name."""


def snapshot(
    at_s: float,
    statuses: Iterable[RunStatus],
    sinks: Mapping[str, Registration | None],
    before: set[str],
    caught_up: Mapping[str, int],
) -> Snapshot:
    """Return how far everything is in these runs; `before` are runs of earlier sessions, not shown as streams.

    `caught_up` are records that a sink has of runs which are left out here.
    """
    runs = sorted(statuses, key=lambda status: status.info.run_id)
    samples: dict[str, int] = {}
    heads: dict[str, int] = {}
    for status in runs:
        info = status.info
        if info.run_id in before:
            continue
        stream = stream_name(info.device, info.task)
        done = status.head * info.block_samples
        samples[stream] = samples.get(stream, 0) + min(done, info.samples_asked or done)
        heads[stream] = status.head
    progress = {}
    for name, registration in sinks.items():
        more = caught_up.get(name, 0)
        position, expected = sink_progress(registration, runs)
        progress[name] = SinkProgress(position + more, expected + more)
    return Snapshot(at_s, samples, heads, progress)


class Rates:
    """Rates over the last seconds of snapshots."""

    def __init__(self) -> None:
        self._past: deque[Snapshot] = deque()

    def add(self, now: Snapshot) -> None:
        """Take the newest snapshot."""
        self._past.append(now)
        while len(self._past) > 2 and now.at_s - self._past[1].at_s >= _RATE_OVER_S:
            self._past.popleft()

    def of_stream(self, stream: str) -> float:
        """Return samples a second and channel (polls a second)."""
        old, new = self._past[0], self._past[-1]
        return _rate(new.samples.get(stream, 0) - old.samples.get(stream, 0), new.at_s - old.at_s)

    def of_sink(self, name: str) -> float:
        """Return records a second."""
        old, new = self._past[0], self._past[-1]
        before = old.sinks.get(name, SinkProgress(0, 0)).position
        return _rate(new.sinks[name].position - before, new.at_s - old.at_s)


def _rate(count: int, over_s: float) -> float:
    return max(0, count) / over_s if over_s > 0 else 0.0


def what_is_behind(sinks: Mapping[str, Registration | None], statuses: Iterable[RunStatus]) -> dict[str, SinkProgress]:
    """Return the sinks that do not have all of these runs, or one of whose runs is not over yet."""
    runs = list(statuses)
    behind = {}
    for name, registration in sinks.items():
        progress = sink_progress(registration, runs)
        mine = [status for status in runs if registration is None or registration.takes(status.info)]
        if progress.lag or any(status.state == "running" for status in mine):
            behind[name] = progress
    return behind
