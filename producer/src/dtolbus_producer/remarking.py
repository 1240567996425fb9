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
from dtolbus.remarks import Remark

log = logging.getLogger(__name__)

REMARKS_FILE = "remarks.json"
_EVERY_S = 1.0


class RemarksFile:
    """Keeps the file of one run as things are, at most once a second; used by one thread."""

    def __init__(self, run: Path) -> None:
        self._path = run / REMARKS_FILE
        self._kept: tuple[Remark, ...] = ()
        self._kept_at = -_EVERY_S
        self._is_problem_told = False

    def keep(self, remarks: tuple[Remark, ...], *, now: bool = False) -> None:
        """Write the remarks where they are others than before; later, where it is too soon, unless `now`."""
        at = time.monotonic()
        if remarks == self._kept or not (now or at - self._kept_at >= _EVERY_S):
            return
        self._kept, self._kept_at = remarks, at
        try:
            files.replace(self._path, msgspec.json.encode(remarks), synced=False)
        except OSError as error:  # the events tell it too
            if not self._is_problem_told:
                self._is_problem_told = True
                log.warning("remarks not kept", extra={"file": str(self._path), "cause": str(error)})


def read_remarks(run: Path) -> tuple[Remark, ...]:
    """Return what there is to say of the run in this folder; nothing where the file is missing or damaged."""
    try:
        return msgspec.json.decode((run / REMARKS_FILE).read_bytes(), type=tuple[Remark, ...])
    except (OSError, msgspec.MsgspecError):
        return ()


class RemarksWatch:
    """The remarks of some runs, read again where their file changed."""

    def __init__(self) -> None:
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._remarks: dict[Path, tuple[Remark, ...]] = {}

    def update(self, runs: Iterable[Path]) -> dict[Path, tuple[Remark, ...]]:
        """Return the remarks of those of these run folders that have any."""
        for run in runs:
            try:
                stat = (run / REMARKS_FILE).stat()
            except OSError:
                continue
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if self._stamps.get(run) != stamp:
                self._stamps[run], self._remarks[run] = stamp, read_remarks(run)
        return self._remarks
