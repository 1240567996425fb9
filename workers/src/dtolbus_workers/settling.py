"""How far a run is that is not over, once all that is on disk counts: no certificate may leave out what is there."""

import time

from dtolbus.abandoned import is_abandoned, records_on_disk
from dtolbus.records import RunStatus
from dtolbus.remote import RemoteJournal
from dtolbus.runs import RunFolder

_PATIENCE_S = 10.0
"""How long a head may take to reach what was on disk."""
_TURN_S = 0.02
_ASK_EVERY_S = 0.2
_TOLD_S = 3.0
"""A gateway has noticed by then that a run's head stands still, and ended it where nobody writes it; then another."""
_EACH_S = 1.5


def settled(run: RunFolder) -> tuple[RunStatus, str]:
    """Return how far a run is, and what keeps it from being called complete; empty where nothing does.

    Of a run that nobody writes and nobody ended all counts that is on disk. Else the head is waited for until it has
    reached what was on disk before: it is being recovered, perhaps. Raises RawFormatError, OSError.
    """
    status = run.status()
    if status.state != "running":
        return status, ""
    on_disk, end = records_on_disk(run), time.monotonic() + _PATIENCE_S
    while status.state == "running":
        if is_abandoned(run):
            return _unrecovered(run)
        if status.head >= on_disk:
            return status, ""
        if time.monotonic() > end:
            why = f"{on_disk} records on disk, {status.head} of them known as safe"
            return status, f"{why}: it is being recovered, or its disk stands still; verify again"
        time.sleep(_TURN_S)
        status = run.status()
    return status, ""


def _unrecovered(run: RunFolder) -> tuple[RunStatus, str]:
    count = records_on_disk(run)
    what = "interrupted, not recovered yet (no process of this machine writes it)"
    why = f"{what}: {count} records on disk; start `dtolbus up --catch-up` or `dtolbus-gateway serve`, which recover it"
    return RunStatus(run.info, "interrupted", run.first(), count), why


def settle(journal: RemoteJournal) -> None:
    """Ask how far the runs are until each that is not over has got on, or its gateway has looked whether it is.

    Raises CannotStartError, WireError.
    """
    before = {run.info.run_id: run.told.head for run in journal.runs if run.told.state == "running"}
    end = time.monotonic() + _TOLD_S + _EACH_S * len(before)
    while time.monotonic() < end and any(
        run.told.state == "running" and run.told.head == before.get(run.info.run_id) for run in journal.runs
    ):
        time.sleep(_ASK_EVERY_S)
        journal.refresh()
