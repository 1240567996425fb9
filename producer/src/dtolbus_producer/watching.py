"""What one `up` sees of its data folder: the runs of the journal, and how far its sinks are with them."""

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from dtolbus.errors import RawFormatError
from dtolbus.records import Gap, Record, RunStatus
from dtolbus.registrations import Registration
from dtolbus.runs import placed_run, run_path
from dtolbus.topics import stream_name
from dtolbus_producer.progress import JournalWatch, SinkProgress, SinkWatch, Snapshot, sink_progress, snapshot
from dtolbus_producer.progress import what_is_behind as behind_with
from dtolbus_producer.resuming import Before, before_of, newest_of
from dtolbus_producer.silences import silence_in

log = logging.getLogger(__name__)


class Watch:
    """The journal and the sinks of one session; runs that were there when it was made are earlier sessions'."""

    def __init__(self, data: Path, sinks: Collection[str]) -> None:
        self._path = data / "journal"
        self._sinks = sinks
        self._journal = JournalWatch(self._path)
        self._journal.update()
        self._before = set(self._journal.statuses)
        self._stored_before: set[str] = set()
        """Runs of earlier sessions that every sink has: nothing more to watch."""
        self._caught_up: dict[str, int] | None = None
        """By sink: records of such runs that were not stored everywhere when the boards started."""
        self._registered = SinkWatch(data, sinks)

    def update(self) -> None:
        """Read what changed."""
        self._journal.update()
        self._registered.update()

    def close(self) -> None:
        """Read the journal once more, and close what is open."""
        self._journal.update()
        self._journal.close()

    def new_runs(self) -> list[RunStatus]:
        """Return the runs of this session, the oldest first."""
        return [self._journal.statuses[run_id] for run_id in sorted(set(self._journal.statuses) - self._before)]

    def had(self) -> dict[tuple[str, str], Before]:
        """Return what this session recorded, by device and task."""
        found = {}
        for stream, info in newest_of(run.info for run in self.new_runs()).items():
            try:
                found[stream] = before_of(placed_run(run_path(self._path, info.device, info.task, info.run_id)))
            except (RawFormatError, OSError) as error:
                log.warning("run cannot be read", extra={"run": info.run_id, "cause": str(error)})
        return found

    def backwards(self, status: RunStatus) -> Iterator[Record | Gap]:
        """Yield a run's records from its head backwards; none where they cannot be read, which is logged."""
        info = status.info
        try:
            with placed_run(run_path(self._path, info.device, info.task, info.run_id)) as folder:
                for index in range(status.head - 1, status.first - 1, -1):
                    yield from folder.records(index, index + 1)
        except (RawFormatError, OSError) as error:
            log.warning("run cannot be read", extra={"run": info.run_id, "cause": str(error)})

    def silent(self) -> dict[str, str]:
        """Return what the newest run of each stream says, by its name, where its board gave nothing to its end."""
        found = {}
        newest = newest_of(status.info for status in self.new_runs())
        ids = {info.run_id for info in newest.values()}
        for status in self.new_runs():
            told = None
            if status.info.run_id in ids:
                told = silence_in(self.backwards(status))
            if told is not None:
                found[stream_name(status.info.device, status.info.task)] = told
        return found

    def was_heard(self, sink: str) -> bool:
        """Whether the sink has said Hello in this session."""
        return self._registered.was_heard(sink)

    def left_running(self) -> set[str]:
        """Return the devices of runs that are not over."""
        return {status.info.device for status in self._watched() if status.state == "running"}

    def behind(self, ours: Collection[str]) -> dict[str, SinkProgress]:
        """Return the sinks that lack something of the runs that are over, or are of these devices."""
        runs = [status for status in self._watched() if status.state != "running" or status.info.device in ours]
        return behind_with(self._registrations(), runs)

    def snapshot(self, now: float) -> Snapshot:
        """Return how far everything is; `now` is monotonic, s."""
        self._leave_out_what_is_stored()
        return snapshot(now, self._watched(), self._registrations(), self._before, self._caught_up or {})

    def _registrations(self) -> dict[str, Registration | None]:
        return {name: self._registered.registrations.get(name) for name in self._sinks}

    def _watched(self) -> list[RunStatus]:
        return [status for run_id, status in self._journal.statuses.items() if run_id not in self._stored_before]

    def _leave_out_what_is_stored(self) -> None:
        registrations = self._registrations()
        caught_up = dict.fromkeys(registrations, 0) if self._caught_up is None else self._caught_up
        for status in self._watched():
            if status.info.run_id in self._before and not behind_with(registrations, [status]):
                self._stored_before.add(status.info.run_id)
                for name, registration in registrations.items():
                    if self._caught_up is not None:
                        caught_up[name] += sink_progress(registration, [status]).position
        self._caught_up = caught_up
