"""How far the runs of one recording are, and what is left of it for a process or a board that came back."""

import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from dtolbus.errors import RawFormatError, UsageError
from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record, RunInfo
from dtolbus.runs import RUN_FILE, RunFolder, placed_run
from dtolbus.topics import quote
from dtolbus_producer.corrections import FROM
from dtolbus_producer.tasks import TaskConfig

log = logging.getLogger(__name__)

_LAST_RECORDS = 16


class Before(NamedTuple):
    """What the earlier runs of a recording have of a task."""

    run_id: str
    """The newest of them."""
    samples: int
    """Samples a channel (polls) that are over in all of them, lost ones included."""
    rate_hz: float


def rest_of(task: TaskConfig, before: Before | None) -> TaskConfig | None:
    """Return the task with only what is left of it to acquire; None where nothing is."""
    asked = None if before is None else task.samples_asked(before.rate_hz)
    if before is None or asked is None:
        return task
    left = asked - before.samples
    return msgspec.structs.replace(task, samples=left, duration_s=None) if left > 0 else None


def samples_over(run: RunInfo, records: Iterable[Record | Gap]) -> int:
    """Return how many samples a channel (polls) of a run are over, lost ones included; no more than were asked.

    `records` are its last ones, of a polled run all: its readings do not say which slot they are of.
    """
    over = 0
    for record in records:
        match record:
            case DaqBlock():
                over = max(over, record.end_sample_index)
            case DaqReading():
                over += 1
            case DaqEvent():
                over = max(over, record.sample_index + record.lost_samples)
            case Gap() if run.kind == "readings":
                over += record.to_index - record.from_index
            case Gap():
                over = max(over, record.end_sample or 0)
    return over if run.samples_asked is None else min(over, run.samples_asked)


def before_of(folder: RunFolder) -> Before:
    """Return what a run, and those that it goes on from, have. Raises OSError where it cannot be read."""
    info, head = folder.info, folder.status().head
    first = 0 if info.kind == "readings" else max(0, head - _LAST_RECORDS)
    with folder:
        over = samples_over(info, folder.records(first, head))
    return Before(info.run_id, info.samples_before + over, info.rate_hz)


def earlier_runs(journal: Path, device: str, run_ids: Sequence[str]) -> dict[str, Before]:
    """Return what is gone on from, by task; `run_ids` are the newest run of each. Raises UsageError."""
    found: dict[str, Before] = {}
    for run_id in run_ids:
        paths = list((journal / quote(device)).glob(f"*/{quote(run_id)}/{RUN_FILE}"))
        try:
            folder = placed_run(paths[0].parent) if paths else None
            if folder is not None:
                found[folder.info.task] = before_of(folder)
        except (RawFormatError, OSError) as error:
            raise UsageError(f"--goes-on-from {run_id}: the run cannot be read: {error}") from error
        if folder is None:
            raise UsageError(f"--goes-on-from {run_id}: the journal has no such run of {device!r}; see `dtolbus runs`")
    return found


def run_names(journal: Path, device: str) -> set[str]:
    """Return the names of the folders of the device's runs."""
    return {path.name for path in (journal / quote(device)).glob("*/*")}


def newest_runs(journal: Path, device: str, besides: Collection[str]) -> list[str]:
    """Return the id of the newest run of each of the device's tasks, besides the folders of these names.

    One that cannot be read is left out, which is logged.
    """
    found: list[RunInfo] = []
    for path in (journal / quote(device)).glob(f"*/*/{RUN_FILE}"):
        if path.parent.name in besides:
            continue
        try:
            found.append(placed_run(path.parent).info)
        except (RawFormatError, OSError) as error:
            log.warning("run cannot be read", extra={"run": str(path.parent), "cause": str(error)})
    return sorted(info.run_id for info in newest_of(found).values())


def newest_of(runs: Iterable[RunInfo]) -> dict[tuple[str, str], RunInfo]:
    """Return the newest run of each device and task: the one that no other goes on from, whatever the wall clock did.

    What a run was recalibrated to is no run of its own.
    """
    recorded = [run for run in runs if FROM not in run.meta]
    followed = {run.goes_on_from for run in recorded}
    last = [run for run in recorded if run.run_id not in followed]
    return {(run.device, run.task): run for run in sorted(last, key=lambda run: run.run_id)}
