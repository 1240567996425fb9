"""What the acquisition of a device tells of itself: what it journals, how the disk keeps up, whether it records."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtolbus.metrics import Durations, Histogram, Metric, counter, gauge
from dtolbus.topics import stream_name
from dtolbus_producer.attending import Attendance
from dtolbus_producer.disks import room
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_producer.quota import free_bytes_asked

STALLED_S = 5.0
"""A disk on which records wait for so long to be durable, beyond what they are let wait, is not healthy."""
_YOUNG_S = 1.0
"""Before, a run tells nothing of how much a second comes."""


@dataclass(frozen=True)
class Written:
    """What the runs of a task that are over came to."""

    runs: int = 0
    records: int = 0
    samples: int = 0
    size: int = 0
    overruns: int = 0
    lost_samples: int = 0


class TaskFacts:
    """Of one task: its newest run as it is, the others added up. Told by the acquisition, read by any thread."""

    def __init__(self, device: str, task: str) -> None:
        self.stream = stream_name(device, task)
        self.syncs = Durations()
        self.is_done = False
        """Whether nothing of it is left to acquire."""
        self._run: tuple[Written, RunWriter | None] = (Written(), None)
        """What was written before, and who writes now: put in place together."""
        self._attendance: tuple[tuple[int, int], Attendance | None] = ((0, 0), None)
        """Overruns and lost samples of those before, and the one of now."""

    def attended(self, attendance: Attendance) -> None:
        """Note who looks after the task's next run."""
        self._attendance = self._lost(), attendance

    def opened(self, writer: RunWriter) -> None:
        """Note who writes the task's next run."""
        writer.syncs = self.syncs
        self._run = self.written(), writer

    @property
    def writer(self) -> RunWriter | None:
        """Who writes, or wrote, the newest run."""
        return self._run[1]

    @property
    def is_recording(self) -> bool:
        """Whether a run is being written."""
        writer = self.writer
        return writer is not None and writer.ended is None

    @property
    def fill(self) -> float:
        """How full the queue between board and disk is, from 0 to 1."""
        attendance = self._attendance[1]
        intake = None if attendance is None else attendance.intake
        return intake.fill if intake is not None and self.is_recording else 0.0

    def written(self) -> Written:
        """Return what was written until now."""
        before, writer = self._run
        overruns, lost_samples = self._lost()
        if writer is None:
            return Written(overruns=overruns, lost_samples=lost_samples)
        return Written(
            before.runs + 1,
            before.records + writer.next_index,
            before.samples + writer.samples,
            before.size + writer.appended_bytes,
            overruns,
            lost_samples,
        )

    def bytes_s(self, now: float) -> float:
        """Return how many bytes a second are written, on the run's average; `now` is monotonic, s."""
        writer = self.writer
        if writer is None or not self.is_recording or now - writer.opened_at < _YOUNG_S:
            return 0.0
        return writer.appended_bytes / (now - writer.opened_at)

    def problem(self, now: float) -> str:
        """Return why the task does not record; empty where it does, or is done."""
        writer, attendance = self.writer, self._attendance[1]
        if self.is_done:
            return ""
        if writer is None:
            return f"{self.stream} has no run yet"
        if writer.ended == "interrupted":
            return f"{self.stream} does not record: its run was interrupted after {writer.next_index} records"
        if writer.ended is not None:
            return ""
        waiting, waited_s = writer.next_index - writer.head, now - writer.synced_at
        if (waiting > 0 or self.fill > 0) and waited_s > STALLED_S + writer.sync_s:  # it may be the write that hangs
            what = f"{waiting} records have" if waiting > 0 else "what the board gives has"
            return f"{self.stream}: {what} waited for the disk for {waited_s:.0f} s"
        if attendance is not None and attendance.is_silent:
            return f"{self.stream}: the board gives nothing, although it runs"
        return ""

    def _lost(self) -> tuple[int, int]:
        (overruns, lost_samples), attendance = self._attendance
        intake = None if attendance is None else attendance.intake
        if intake is None:
            return overruns, lost_samples
        return overruns + intake.overruns, lost_samples + intake.lost_samples


class AcquisitionFacts:
    """Of one device; `full` tells why there is no room for more."""

    def __init__(
        self,
        device: str,
        tasks: Sequence[str],
        data: Path,
        settings: JournalConfig,
        full: Callable[[], str | None],
    ) -> None:
        self._device = device
        self._data = data
        self._settings = settings
        self.tasks = {task: TaskFacts(device, task) for task in tasks}
        self._full = full

    def problems(self) -> list[str]:
        """Return why it does not record."""
        now, full = time.monotonic(), self._full()
        found = [task.problem(now) for task in self.tasks.values()]
        return [problem for problem in (full or "", *found) if problem]

    def facts(self) -> list[str]:
        """Return what it does."""
        streams = [f"{task.stream}: {task.written().records} records" for task in self.tasks.values()]
        return [f"records; {', '.join(streams)}"]

    def metrics(self) -> Iterable[Metric | Histogram]:
        """Yield all of it."""
        tasks = list(self.tasks.values())
        written = {task.stream: task.written() for task in tasks}
        for name, about, key in (
            ("runs", "Runs begun.", "runs"),
            ("records", "Records journaled: blocks, readings, events.", "records"),
            ("samples", "Samples journaled of each channel, or polls.", "samples"),
            ("written_bytes", "Bytes appended to the journal.", "size"),
            ("overruns", "Times that the queue to the disk was full.", "overruns"),
            ("lost_samples", "Samples of each channel that were lost by that.", "lost_samples"),
        ):
            samples = [({"stream": stream}, float(getattr(one, key))) for stream, one in written.items()]
            yield counter(f"dtolbus_producer_{name}_total", about, samples)
        for name, about, value in (
            ("recording", "1 while a run is being written.", lambda task: float(task.is_recording)),
            ("queue_fill_ratio", "How full the queue to the disk is, 0 to 1.", lambda task: task.fill),
            ("unsynced_records", "Records that are not durable yet.", _unsynced),
        ):
            yield gauge(f"dtolbus_producer_{name}", about, [({"stream": task.stream}, value(task)) for task in tasks])
        series = [task.syncs.series({"stream": task.stream}) for task in tasks]
        yield Histogram("dtolbus_producer_sync_seconds", "How long it took to make records durable.", series)
        yield from self._disk()

    def _disk(self) -> Iterable[Metric]:
        """Yield how long the disk lasts at the rate of the runs under way."""
        try:
            disk = room(self._data / "journal")
        except OSError:
            return
        device = {"device": self._device}
        usable = max(0, disk.free - free_bytes_asked(self._settings.min_free_bytes, disk.total))
        now = time.monotonic()
        bytes_s = sum(task.bytes_s(now) for task in self.tasks.values())
        yield gauge("dtolbus_producer_disk_usable_bytes", "Room for the journal, above min_free.", [(device, usable)])
        if bytes_s > 0:
            about = "How long the room lasts at the rate of this device's runs."
            yield gauge("dtolbus_producer_disk_left_seconds", about, [(device, usable / bytes_s)])


def _unsynced(task: TaskFacts) -> float:
    writer = task.writer
    return 0.0 if writer is None else float(max(0, writer.next_index - writer.head))
