"""What to move away so that a sink has a damaged run stored anew: catching up alone goes on behind what it has."""

from pathlib import Path

from dtolbus.records import RunInfo
from dtolbus.registrations import Registration
from dtolbus.topics import quote
from dtolbus_workers.certificate import Line


def mending(line: Line, position: int, sink: Registration, run: RunInfo) -> str:
    """Return what mends a sink that is wrong before its position; empty where catching up does, or nothing is wrong."""
    is_damaged = line.different or line.duplicates or (line.missing and position >= line.expected)
    if line.state == "running" or not is_damaged:
        return ""
    kept = "; keep it: the journal does not have all of this run any more" if line.not_compared else ""
    return f"what it has stored is damaged: {stored_anew(sink, run)}{kept}"


def stored_anew(sink: Registration, run: RunInfo) -> str:
    """Return what is to be moved, and that the run is stored anew then."""
    place = Path(sink.place)
    stream, run_id = place / quote(run.device) / quote(run.task), quote(run.run_id)
    all_runs = "it has all runs; what was deleted from the journal is nowhere else"
    what = {
        "parquet": f"the folder {stream / run_id} out of {place}",
        "csv": f"the files {stream / run_id}.* out of {place}",
        "jsonl": f"the files {stream / run_id}.* out of {place}",
        "sqlite": f"{place} away ({all_runs})",
        "postgres": f"the schema away, ALTER SCHEMA {sink.options.get('schema', 'public')} RENAME TO … ({all_runs})",
    }[sink.sink]
    return f"move {what}; then `dtolbus up --catch-up` stores anew what the journal has"
