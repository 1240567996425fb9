"""What a journal holds, as retention and the listings need it: runs, their files, their sizes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from dtolbus.errors import MisplacedRunError, RawFormatError, UsageError
from dtolbus.manifest import read_manifest
from dtolbus.runs import RESTORE, RUN_FILE, RunFolder, placed_run, segment_name
from dtolbus_producer.retention import RunFacts, SegmentFacts

log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Unreadable(NamedTuple):
    """A run that cannot be read."""

    path: Path
    """Its folder."""
    cause: str
    is_misplaced: bool = False

    def __str__(self) -> str:
        if self.is_misplaced:
            return self.cause
        return f"{self.cause}; its run is left out: {RESTORE}"


def journal_of(data: Path) -> Path:
    """Return the journal of a data folder. Raises UsageError where there is none."""
    journal = data / "journal"
    if not journal.is_dir():
        raise UsageError(f"{data} holds no journal; name the data folder with --data")
    return journal


def run_facts(folder: RunFolder) -> RunFacts:
    """Return what the run's folder holds. Raises RawFormatError, OSError."""
    state = folder.refresh().state
    firsts = folder.segments()
    head = folder.head()  # after the listing: a segment that was there is counted with its records
    condemned = {segment.first_index for segment in read_manifest(folder.path).segments}
    segments = []
    for place, first in enumerate(firsts):
        try:
            stat = (folder.path / segment_name(folder.info.kind, first)).stat()
        except FileNotFoundError:  # deleted since it was listed
            continue
        is_newest = place == len(firsts) - 1
        end = max(head, first) if is_newest else firsts[place + 1]
        is_sealed = end <= head and (state != "running" or not is_newest)
        segments.append(SegmentFacts(first, end, stat.st_size, stat.st_mtime_ns, is_sealed, first in condemned))
    return RunFacts(folder.info, state, head, tuple(segments))


def each_run(journal: Path, read: Callable[[RunFolder], Found]) -> tuple[list[Found], list[Unreadable]]:
    """Return what `read` finds in each run, by device, task and age, and the runs that cannot be read."""
    found, unreadable = [], []
    for path in sorted(path.parent for path in journal.glob(f"*/*/*/{RUN_FILE}")):
        try:
            with placed_run(path) as folder:
                found.append(read(folder))
        except MisplacedRunError as error:
            unreadable.append(Unreadable(path, str(error), is_misplaced=True))
        except (RawFormatError, OSError) as error:
            unreadable.append(Unreadable(path, str(error)))
    return found, unreadable


def journal_facts(journal: Path) -> list[RunFacts]:
    """Return what the journal holds; a run that cannot be read is left out, and logged."""
    found, unreadable = each_run(journal, run_facts)
    for run in unreadable:
        log.warning("run cannot be read, left alone", extra={"run": str(run.path), "cause": run.cause})
    return found
