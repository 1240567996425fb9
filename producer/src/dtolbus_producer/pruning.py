"""`dtolbus prune`: what every sink has goes, by age and size; what stays is told, and for whose sake."""

import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from dtolbus.errors import RawFormatError
from dtolbus.ranges import in_words
from dtolbus.registrations import Registration, read_registrations
from dtolbus.topics import stream_name
from dtolbus_producer.deletion import delete, deleting
from dtolbus_producer.journalfacts import journal_facts, journal_of
from dtolbus_producer.quantities import show_size
from dtolbus_producer.retention import Holder, Policy, Removal, Stay, plan

_LOCK_S = 60.0
SUMMARIES_ONLY = "only summaries of it are stored"


def prune(data: Path, policy: Policy, *, dry_run: bool) -> list[str]:
    """Delete what the policy lets go, unless `dry_run`; return what to tell.

    Raises UsageError (no journal), CannotStartError (another deletes), RawFormatError (a registration that cannot be
    read: then nothing goes), DtolbusError (no room for a manifest).
    """
    journal = journal_of(data)
    with deleting(data, _LOCK_S):
        found = plan(journal_facts(journal), _sinks(data), policy, time.time_ns())
        gone = list(found.removals) if dry_run else delete(data, found.removals, had)
    lines = list(_told(gone, "would go" if dry_run else "deleted"))
    lines += [stayed(stay) for stay in found.stays]
    if found.stays and not found.removals:
        lines.append("nothing would go" if dry_run else "nothing is deleted")
    if found.excess_bytes:
        lines.append(f"the journal stays {show_size(found.excess_bytes)} larger than asked")
    if len(gone) < len(found.removals):
        lines.append(f"{len(found.removals) - len(gone)} segments could not be deleted; the log says why")
    return lines or ["nothing to do: the journal is within what is to be kept"]


def _sinks(data: Path) -> list[Registration]:
    try:
        return read_registrations(data)
    except (RawFormatError, OSError) as error:
        raise RawFormatError(f"nothing is deleted, as nobody knows what one of the sinks lacks: {error}") from error


def had(removal: Removal) -> str:
    """Return who had what goes, as its manifest tells."""
    return f"every sink registered then had it{', as summaries only' if removal.is_summarised else ''}"


def stayed(stay: Stay) -> str:
    """Return what stays of a run, and why."""
    count = _counted(stay.segments)
    run = f"{stream_name(stay.run.device, stay.run.task)} {stay.run.run_id}"
    if stay.is_running:
        why = "it is being written"
    elif stay.is_unclaimed:
        why = "no registered sink takes this run, so nobody else has it"
    elif stay.is_summarised and not stay.holders:
        why = f"{SUMMARIES_ONLY}: add a sink that keeps samples, or say --summaries-suffice"
    else:
        why = f"for the sake of {named(stay.holders)}; `dtolbus up --catch-up` lets them catch up"
    return f"stays    {run}: {count}, {show_size(stay.bytes)}: {why}"


def named(holders: Iterable[Holder]) -> str:
    """Return the sinks with their lag."""
    return ", ".join(f"{holder.name} ({holder.lag} records behind)" for holder in holders)


def _told(gone: Iterable[Removal], done: str) -> Iterator[str]:
    """Yield a line for each run of which anything goes, and the sum."""
    by_run = sorted(gone, key=lambda removal: (removal.run.run_id, removal.segment.first_index))
    for _, group in groupby(by_run, key=lambda removal: removal.run.run_id):
        removals = list(group)
        run, size = removals[0].run, sum(removal.segment.bytes for removal in removals)
        where = f"{stream_name(run.device, run.task)} {run.run_id}"
        records = f"records {in_words(removals[0].segment.first_index, removals[-1].segment.end_index)}"
        yield f"{done:8} {where}: {records}, {_counted(len(removals))}, {show_size(size)}"
    if by_run:
        yield f"{done}: {show_size(sum(removal.segment.bytes for removal in by_run))} in all"


def _counted(segments: int) -> str:
    return "1 segment" if segments == 1 else f"{segments} segments"
