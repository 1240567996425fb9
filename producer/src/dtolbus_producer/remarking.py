"""`remarks.json` of a run: what there is to say of its signals so far, for whoever watches or lists runs.

It only repeats what the journal's events tell, sooner and in one place: nothing depends on it, and a run that has none
has nothing to say.
"""

import logging
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dtolbus import files
from dtolbus.jsonreading import read_json
from dtolbus.records import RunStatus
from dtolbus.remarks import Remark, what_of
from dtolbus.runs import run_path
from dtolbus.topics import stream_name

log = logging.getLogger(__name__)

REMARKS_FILE = "remarks.json"
_EVERY_S = 1.0
_AS_BEFORE_S = 60.0


class RemarksFile:
    """Keeps the file of one run as things are, at most once a second; used by one thread."""

    def __init__(self, run: Path) -> None:
        self._path = run / REMARKS_FILE
        self._counts: list[int] = []
        self._kept_at = -_AS_BEFORE_S
        self._is_problem_told = False

    def keep(self, remarks: tuple[Remark, ...], *, now: bool = False) -> None:
        """Write the remarks, if there are any and it is time, or `now`: seldom where only good samples are new."""
        if not remarks:
            return
        at, counts = time.monotonic(), [remark.samples for remark in remarks]
        if not now and at - self._kept_at < (_AS_BEFORE_S if counts == self._counts else _EVERY_S):
            return
        self._counts, self._kept_at = counts, at
        try:
            files.replace(self._path, msgspec.json.encode(remarks), synced=False)
        except OSError as error:  # the events tell it too
            if not self._is_problem_told:
                self._is_problem_told = True
                log.warning("remarks not kept", extra={"file": str(self._path), "cause": str(error)})


def read_remarks(run: Path) -> tuple[Remark, ...]:
    """Return what there is to say of the run in this folder; nothing where the file is missing or damaged."""
    try:
        return read_json(files.read(run / REMARKS_FILE), tuple[Remark, ...])
    except (OSError, ValueError):
        return ()


class RemarksWatch:
    """What there is to say of some runs of a journal; a run's file is read again where it changed."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._stamps: dict[str, tuple[int, int]] = {}
        self._remarks: dict[str, tuple[Remark, ...]] = {}

    def lines(self, runs: Iterable[RunStatus]) -> tuple[str, ...]:
        """Return a line for each channel and kind of these runs."""
        return tuple(line for status in runs for line in self._lines(status))

    def _lines(self, status: RunStatus) -> list[str]:
        info = status.info
        self._update(info.run_id, run_path(self._journal, info.device, info.task, info.run_id))
        stream = stream_name(info.device, info.task)
        return [f"{stream}: {remark} of {what_of(info)}" for remark in self._remarks.get(info.run_id, ())]

    def _update(self, run_id: str, run: Path) -> None:
        try:
            stat = (run / REMARKS_FILE).stat()
        except OSError:
            return
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if self._stamps.get(run_id) != stamp:
            self._stamps[run_id], self._remarks[run_id] = stamp, read_remarks(run)
