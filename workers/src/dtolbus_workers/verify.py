"""`dtolbus verify`: every registered sink against the journal, run by run."""

import json
import logging
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dtolbus.errors import DtolbusError, UsageError
from dtolbus.records import DaqEvent, RunInfo
from dtolbus.registrations import Registration, read_registrations
from dtolbus.runs import RunFolder, list_runs
from dtolbus.topics import stream_name
from dtolbus_workers.certificate import Line, compare
from dtolbus_workers.destination import Stored
from dtolbus_workers.registry import destination_class

log = logging.getLogger(__name__)


@dataclass
class Certificate:
    """What `verify` found."""

    lines: list[Line] = field(default_factory=list)
    runs: int = 0
    lost_at_board: dict[str, int] = field(default_factory=dict)
    """Samples of each channel that the board or the disk lost before the journal, by run."""
    failures: list[str] = field(default_factory=list)
    """Sinks that could not be read."""

    @property
    def complete(self) -> bool:
        """Whether every sink has all of every run."""
        return not self.failures and all(line.complete for line in self.lines)


def verify(data: Path, run_ids: Collection[str] = (), sink_names: Collection[str] = ()) -> Certificate:
    """Compare every registered sink of a data folder with its journal; all sinks and runs, or those named.

    Raises UsageError where there is no journal, no such run, or no such sink.
    """
    journal = data / "journal"
    if not journal.is_dir():
        raise UsageError(f"{data} holds no journal; name the data folder with --data")
    folders = [folder for folder in list_runs(journal) if not run_ids or folder.info.run_id in run_ids]
    unknown = set(run_ids) - {folder.info.run_id for folder in folders}
    if unknown:
        raise UsageError(f"there is no run {min(unknown)} in {journal}")
    sinks = [sink for sink in read_registrations(data) if not sink_names or sink.name in sink_names]
    absent = set(sink_names) - {sink.name for sink in sinks}
    if absent:
        raise UsageError(f"no sink {min(absent)} has registered in {data}")
    certificate = Certificate(runs=len(folders))
    for folder in folders:
        with folder:
            _check_run(certificate, folder, sinks)
    return certificate


def _check_run(certificate: Certificate, folder: RunFolder, sinks: Iterable[Registration]) -> None:
    status = folder.status()
    run = status.info
    lost = sum(r.lost_samples for r in folder.records(0, status.head) if isinstance(r, DaqEvent))
    if lost:
        certificate.lost_at_board[run.run_id] = lost
    for sink in sinks:
        if not sink.takes(run):
            continue
        line = Line(sink.name, stream_name(run.device, run.task), run.run_id, status.state, status.head)
        try:
            stored = _stored(sink, run)
        except (DtolbusError, OSError) as error:
            certificate.failures.append(f"{sink.name}: {error}")
            continue
        if stored is None:
            line.missing = line.expected
        else:
            compare(line, folder.records(0, status.head), stored, sink.sink)
        certificate.lines.append(line)


def _stored(sink: Registration, run: RunInfo) -> Stored | None:
    found: Stored | None = destination_class(sink.sink).stored(sink.place, sink.options, run)
    return found


def as_json(certificate: Certificate) -> str:
    """Return the certificate for machines."""
    body: dict[str, Any] = {
        "complete": certificate.complete,
        "runs": certificate.runs,
        "lost_at_board": certificate.lost_at_board,
        "failures": certificate.failures,
        "sinks": [
            {**asdict(line), "gaps": [msgspec.structs.asdict(gap) for gap in line.gaps], "complete": line.complete}
            for line in certificate.lines
        ],
    }
    return json.dumps(body, indent=2)


def as_text(certificate: Certificate) -> list[str]:
    """Return the certificate for people, a line each."""
    lines = _table([_HEADINGS, *(_cells(line) for line in certificate.lines)]) if certificate.lines else []
    for line in certificate.lines:
        where = f"{line.sink} {line.stream} {line.run_id}"
        lines += [f"  {where}: gap {gap.from_index} to {gap.to_index}: {gap.cause}" for gap in line.gaps]
        lines += [f"  {where}: {remark}" for remark in line.remarks]
        if line.missing:
            lines.append(f"  {where}: {line.missing} records missing; start its worker again: the journal fills in")
        if line.put_aside:
            lines.append(f"  {where}: {line.put_aside} records put aside; `put_aside` says why")
    for run_id, lost in certificate.lost_at_board.items():
        lines.append(f"  {run_id}: {lost} samples a channel never reached the journal; its events say why")
    lines += [f"  {failure}" for failure in certificate.failures]
    if not certificate.lines and not certificate.failures:
        lines.append("no sink has registered here: nothing to compare")
    lines.append("COMPLETE: nothing is missing" if certificate.complete else "INCOMPLETE")
    return lines


_HEADINGS = ("sink", "stream", "run", "expected", "stored", "backfilled", "gaps", "twice", "compared with the journal")
_NUMBERS = range(3, 8)


def _cells(line: Line) -> tuple[str, ...]:
    numbers = (line.expected, line.stored, line.backfilled, len(line.gaps), line.duplicates)
    return line.sink, line.stream, line.run_id, *map(str, numbers), _compared(line)


def _compared(line: Line) -> str:
    if line.different:
        return f"{line.different} records DIFFER"
    equal = [f"{line.samples} values" if line.samples else "", f"{line.summaries} summaries" if line.summaries else ""]
    text = " and ".join(filter(None, equal))
    return (f"{text} equal" if text else "nothing to compare") + ("" if line.complete else ", INCOMPLETE")


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
