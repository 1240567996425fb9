"""What the data folder says about earlier and running recordings."""

import json
from pathlib import Path

from dtolbus.runs import RunFolder
from dtolbus_producer.doctor.finding import Finding
from dtolbus_producer.journalfacts import each_run
from dtolbus_producer.locking import is_locked
from dtolbus_producer.stack import LOCK_FILE, PIDS_FILE


def is_up_running(data: Path) -> bool:
    """Return whether a `dtolbus up` runs in the folder."""
    try:
        return is_locked(data / LOCK_FILE)
    except OSError:
        return False


def examine_recordings(data: Path, is_running: bool) -> list[Finding]:
    """Tell whether a `dtolbus up` runs in the folder, and of runs whose producer was killed."""
    found = [running(is_running, _pids(data) if is_running else {})]
    journal = data / "journal"
    if journal.is_dir() and not is_running:
        statuses, unreadable = each_run(journal, RunFolder.status)
        found.append(interrupted(sum(status.state == "running" for status in statuses)))
        found += [Finding("runs", "problem", str(run)) for run in unreadable]
    return found


def running(is_running: bool, pids: dict[str, int]) -> Finding:
    """Tell whether a `dtolbus up` runs in the folder."""
    if not is_running:
        return Finding("dtolbus up", "ok", "none runs in this folder, no lock is held")
    parts = ", ".join(f"{name} {pid}" for name, pid in pids.items())
    return Finding("dtolbus up", "ok", f"runs in this folder: {parts or 'just started'}")


def interrupted(count: int) -> Finding:
    """Tell how many runs no producer ended."""
    if not count:
        return Finding("runs", "ok", "every run of the journal was ended")
    what = f"{count} {'run has' if count == 1 else 'runs have'} not been ended: the producer runs alone, or was killed"
    return Finding("runs", "warning", what, "nothing durable is lost: the next `dtolbus up` of this folder ends them")


def _pids(data: Path) -> dict[str, int]:
    try:
        found = json.loads((data / "logs" / PIDS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): pid for name, pid in found.items() if isinstance(pid, int)} if isinstance(found, dict) else {}
