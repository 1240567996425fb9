"""`dtolbus runs` and `dtolbus sinks`: what a data folder holds, read from its files; nobody has to be asked."""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from dtolbus.abandoned import is_abandoned, records_on_disk
from dtolbus.errors import UsageError
from dtolbus.records import RunInfo, utc_from_ns
from dtolbus.registrations import Registration, forget, readable_registrations, registration_path
from dtolbus.remarks import Remark
from dtolbus.runs import RunClock, RunFile, RunFolder
from dtolbus.topics import name_fault, stream_name
from dtolbus_producer.columns import columns
from dtolbus_producer.corrections import corrected_run, original_run
from dtolbus_producer.journalfacts import each_run, journal_of, run_facts
from dtolbus_producer.progress import sink_progress
from dtolbus_producer.quantities import show_age, show_size
from dtolbus_producer.remarking import read_remarks


class SinkShare(msgspec.Struct, frozen=True):
    """How much of a run a sink has acknowledged."""

    name: str
    position: int
    lag: int
    has_samples: bool
    """Whether of what it has, and the journal still holds, it keeps all samples; else of blocks only summaries."""


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    run_id: str
    device: str
    task: str
    kind: str
    state: str
    started_utc: str
    duration_s: float
    """From the first sample to the last, by the rate."""
    first: int
    """First record still there."""
    head: int
    bytes: int
    """What is still there."""
    segments: int
    board: str
    clock: RunClock | None
    """How the clock went, of a run that its producer closed."""
    sinks: tuple[SinkShare, ...]
    corrects: str | None
    """run_id of the run that this one is, with another calibration."""
    original: str
    """run_id of the run that was recorded: the same of all its corrections, the newest of which counts."""
    corrected_by: str | None = None
    """run_id of the newest correction of the same recording; None of that itself."""
    remarks: tuple[Remark, ...]
    """What there is to say of the signals."""
    is_recovered: bool = True
    """False: its producer was killed, and nobody ended it yet; `head` is what is on disk."""


class SinkLine(msgspec.Struct, frozen=True, kw_only=True):
    """One registered sink."""

    name: str
    kind: str
    place: str
    heard_utc: str
    runs: int
    """Runs of the journal that it takes."""
    lag: int
    """Records that it has not acknowledged, over all runs."""
    topics: tuple[str, ...]


def run_lines(data: Path) -> tuple[list[RunLine], list[str]]:
    """Return the runs of a data folder, the oldest first, and what of runs and sinks cannot be read.

    Raises UsageError.
    """
    sinks, damaged = readable_registrations(data)
    found, unreadable = each_run(journal_of(data), lambda folder: _line(folder, sinks))
    newest: dict[str, str] = {}
    for line in found:
        newest[line.original] = max(line.run_id, newest.get(line.original, ""))
    lines = [
        line
        if newest[line.original] == line.run_id
        else msgspec.structs.replace(line, corrected_by=newest[line.original])
        for line in found
    ]
    return sorted(lines, key=lambda line: line.run_id), [*map(str, unreadable), *damaged]


def sink_lines(data: Path) -> tuple[list[SinkLine], list[str]]:
    """Return the registered sinks by name, and what cannot be read: sinks, and runs, which no lag counts.

    Raises UsageError.
    """
    sinks, damaged = readable_registrations(data)
    statuses, unreadable = each_run(journal_of(data), RunFolder.status)
    lines = [
        SinkLine(
            name=sink.name,
            kind=sink.sink,
            place=sink.place,
            heard_utc=sink.seen_utc,
            runs=sum(sink.takes(status.info) for status in statuses),
            lag=sink_progress(sink, statuses).lag,
            topics=sink.topics,
        )
        for sink in sinks
    ]
    return lines, [*map(str, unreadable), *damaged]


def runs_text(lines: Sequence[RunLine], left_out: Sequence[str] = ()) -> list[str]:
    """Return the runs for people; `left_out` is what could not be read."""
    if not lines:
        return [f"the journal holds no runs{' that can be read' if left_out else ''}"]
    rows = [
        (
            "run",
            "stream",
            "state",
            "started (UTC)",
            "duration",
            "records",
            "on disk",
            "board",
            "clock",
            "acknowledged by",
            "remarks",
        )
    ]
    for line in lines:
        rows.append(
            (
                line.run_id,
                stream_name(line.device, line.task),
                line.state if line.is_recovered else f"{line.state} (not recovered)",
                line.started_utc.partition("+")[0].replace("T", " "),
                show_age(line.duration_s),
                f"{line.first}..{line.head}",
                show_size(line.bytes),
                line.board or "-",
                _drift(line.clock),
                ", ".join(map(_shown, line.sinks)) or "no sink takes it",
                "; ".join(_remarks(line)),
            )
        )
    return columns(rows)


def sinks_text(lines: Sequence[SinkLine], left_out: Sequence[str] = ()) -> list[str]:
    """Return the sinks for people; `left_out` is what could not be read."""
    if not lines:
        return [f"no sink {'that can be read ' if left_out else ''}has registered here"]
    rows = [("sink", "kind", "last heard", "runs", "lag", "topics", "place")]
    for line in lines:
        ago = _ago(line.heard_utc)
        topics = " ".join(line.topics) or "all"
        rows.append((line.name, line.kind, ago, str(line.runs), str(line.lag), topics, line.place))
    return columns(rows)


def as_json(lines: Sequence[RunLine] | Sequence[SinkLine]) -> str:
    """Return the lines for machines."""
    found: list[Any] = [msgspec.to_builtins(line) for line in lines]
    return json.dumps(found, indent=2)


def forget_sink(data: Path, name: str) -> list[str]:
    """Unregister a sink; return what to tell.

    Raises UsageError where there is none of that name, with the nearest right one.
    """
    journal = journal_of(data)
    names = [sink.name for sink in readable_registrations(data)[0]]
    if name not in names and (name_fault(name) or not registration_path(data, name).is_file()):
        nearest = get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(names) or 'none'}"
        raise UsageError(f"no sink {name!r} is registered in {data}; {hint}")
    sink = forget(data, name)
    if sink is None:
        return [f"{name} is forgotten: its registration was damaged, so nobody knows what it lacked"]
    statuses, unreadable = each_run(journal, RunFolder.status)
    lag = sink_progress(sink, statuses).lag
    lacked = f"{lag} record{'' if lag == 1 else 's'} that it lacked stay in the journal no longer for its sake"
    known = lacked if lag else "it had all that the journal holds"
    return [
        f"{name} is forgotten: {known}; `dtolbus verify` does not check it any more",
        f"its data in {sink.place} stay; a worker that still runs, or is started again, registers it anew",
        *map(str, unreadable),
    ]


def _line(folder: RunFolder, sinks: Sequence[Registration]) -> RunLine:
    file, facts = folder.refresh(), run_facts(folder)
    info, state, head = file.info, facts.state, facts.head
    is_recovered = not is_abandoned(folder)
    if not is_recovered:
        state, head = "interrupted", records_on_disk(folder)
    first = facts.segments[0].first_index if facts.segments else head
    return RunLine(
        run_id=info.run_id,
        device=info.device,
        task=info.task,
        kind=info.kind,
        state=state,
        started_utc=utc_from_ns(info.started_utc_ns).isoformat(timespec="seconds"),
        duration_s=_duration_s(file, head),
        first=first,
        head=head,
        bytes=facts.bytes,
        segments=len(facts.segments),
        board=info.board,
        clock=file.clock,
        sinks=tuple(_share(sink, info, first, head) for sink in sinks if sink.takes(info)),
        corrects=corrected_run(info),
        original=original_run(info),
        remarks=read_remarks(folder.path),
        is_recovered=is_recovered,
    )


def _remarks(line: RunLine) -> Iterator[str]:
    if line.corrects is not None:
        yield f"corrects {line.corrects}"
    if line.corrected_by is not None:
        yield f"corrected by {line.corrected_by}"
    for remark in line.remarks:
        yield str(remark)


def _shown(share: SinkShare) -> str:
    summaries = "" if share.has_samples else " (summaries)"
    return f"{share.name} {'all' if not share.lag else share.position}{summaries}"


def _share(sink: Registration, run: RunInfo, first: int, head: int) -> SinkShare:
    known = sink.positions.get(run.run_id)
    position = 0 if known is None else min(known.position, head)
    return SinkShare(sink.name, position, head - position, sink.has_samples(run, first))


def _duration_s(file: RunFile, head: int) -> float:
    samples = file.samples if file.samples is not None else head * file.info.block_samples
    return samples / file.info.rate_hz


def _drift(clock: RunClock | None) -> str:
    if clock is None or clock.drift_ppm is None:
        return "-"
    return f"{clock.drift_ppm:+.1f} ± {clock.drift_uncertainty_ppm:.1f} ppm"


def _ago(instant: str) -> str:
    try:
        seconds = time.time() - datetime.fromisoformat(instant).astimezone(UTC).timestamp()
    except ValueError:
        return "never"
    return f"{show_age(max(0.0, seconds))} ago"
