"""Runs in a journal, and what must hold of one whose process or whose power was cut."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tests.faults.powerloss import Disk

from dtolbus import files
from dtolbus.errors import CannotStartError
from dtolbus.manifest import DELETED
from dtolbus.records import DaqBlock, DaqReading, Gap, Record, RunInfo
from dtolbus.registrations import Registration, SinkPosition, encode_registration, registration_path
from dtolbus.runs import HEAD_FILE, RUN_FILE, RunFolder, decode_head, run_path
from dtolbus_producer import pruning
from dtolbus_producer.journal import JournalError, RunWriter, recover_run
from dtolbus_producer.retention import Policy
from dtolbus_workers.specimens import make_record, make_run

RECORDS = 7


class Kind(NamedTuple):
    """How a journal is written."""

    run: RunInfo
    sync_ms: float
    group: int
    """After so many records the writer waits until they are durable."""


JOURNALS = {
    "blocks": Kind(make_run("blocks"), 0, 1),
    "blocks, group commit": Kind(make_run("blocks"), 1, 3),
    "readings": Kind(make_run("readings"), 0, 1),
    "readings, group commit": Kind(make_run("readings"), 1, 3),
}


def folder_of(place: Path, kind: Kind) -> Path:
    return run_path(place / "journal", kind.run.device, kind.run.task, kind.run.run_id)


def write(place: Path, kind: Kind, tell: Callable[[int], None]) -> None:
    """Write the run, in segments of a few records, and tell each head; a disk that refuses ends it, as a producer's."""
    try:
        writer = RunWriter(place / "journal", kind.run, sync_ms=kind.sync_ms, segment_bytes=1500)
    except CannotStartError:
        return
    try:
        for index in range(RECORDS):
            writer.append(make_record(kind.run, index))
            while kind.sync_ms and index % kind.group == kind.group - 1 and writer.head <= index:
                time.sleep(0.0002)  # the sync thread has no event for it
                writer._raise_error()
            tell(writer.head)
            assert kind.sync_ms or _published(writer) == writer.head
        writer.close()
        tell(RECORDS)
    except JournalError:
        tell(writer.head)
        try:
            writer.close("interrupted")
        except JournalError:
            tell(writer.head)


def _published(writer: RunWriter) -> int:
    """What a reader takes for durable; through the writer's descriptor, for opening may be refused."""
    found = decode_head(os.pread(writer._head_fd, 64, 0))
    return -1 if found is None else found.head


def marked(name: str, disk: Disk) -> int:
    """How far a prune says it is."""
    del name
    return disk.marked


def told(name: str, disk: Disk) -> int:
    """How many records the writer has told durable: whoever reads its `head` takes that at its word."""
    head = disk.now(str(folder_of(Path(), JOURNALS[name]) / HEAD_FILE))
    found = None if head is None else decode_head(head)
    return max(disk.marked, 0 if found is None else found.head)


def recovered(place: Path, kind: Kind) -> int:
    """Recover the run, if it came to be one; return how many records it has."""
    folder = folder_of(place, kind)
    if not (folder / RUN_FILE).exists():
        return 0
    recover_run(folder)
    with RunFolder(folder) as run:
        assert run.status().state != "running"
        return run.head()


def check(name: str, place: Path, least: int, *, may_have_gaps: bool = False) -> None:
    """Assert that the run ends, holds at least the records told, and each as it was given.

    Where `may_have_gaps`, what was never told durable may be a gap.
    """
    kind = JOURNALS[name]
    head = recovered(place, kind)
    assert head >= least, f"{least} records were durable, {head} are there"
    if not head:
        return
    with RunFolder(folder_of(place, kind)) as run:
        found = list(run.records(0, head))
    at = 0
    for record in found:
        if isinstance(record, Gap):
            assert may_have_gaps, record
            assert record.from_index == at >= least, f"{record} in what was durable ({least})"
            at = record.to_index
        else:
            assert record.index == at
            _assert_equal(record, make_record(kind.run, at))
            at += 1
    assert at == head


def _assert_equal(found: Record, expected: Record) -> None:
    if isinstance(expected, DaqBlock):
        assert isinstance(found, DaqBlock)
        np.testing.assert_array_equal(found.data, expected.data)
        np.testing.assert_array_equal(found.raw_codes, expected.raw_codes)  # type: ignore[arg-type]
        assert (found.first_sample_index, found.t_mono_ns) == (expected.first_sample_index, expected.t_mono_ns)
    else:
        assert isinstance(found, DaqReading)
        assert isinstance(expected, DaqReading)
        assert (found.values, found.t_mono_ns, found.t_utc) == (expected.values, expected.t_mono_ns, expected.t_utc)


ACKNOWLEDGED = 5
"""So many records of the run the only sink has: what prune may delete."""


def prune(place: Path, kind: Kind) -> None:
    """Delete what of the run's journal the sink has."""
    positions = {kind.run.run_id: SinkPosition("s", ACKNOWLEDGED)}
    sink = Registration(name="a", sink="parquet", place="/p", destination_id="d", positions=positions)
    path = registration_path(place, "a")
    files.make_folder(path.parent)
    files.replace(path, encode_registration(sink))
    pruning.prune(place, Policy(keep_s=0.0), dry_run=False)


def check_pruned(name: str, place: Path, told: int) -> None:
    """Assert that a prune that was cut short lost nothing but what was to go, told as deleted, and can be finished.

    Nothing is asked of a journal of which nothing is told yet.
    """
    kind = JOURNALS[name]
    if not told:
        return
    for is_finished in (False, True):
        if is_finished:
            prune(place, kind)
        with RunFolder(folder_of(place, kind)) as run:
            found, segments = list(run.records(0, RECORDS)), run.segments()
        kept = [record for record in found if not isinstance(record, Gap)]
        gaps = [record for record in found if isinstance(record, Gap)]
        assert [record.index for record in kept] == list(range(RECORDS - len(kept), RECORDS))
        assert len(kept) >= RECORDS - ACKNOWLEDGED
        for record in kept:
            _assert_equal(record, make_record(kind.run, record.index))
        assert all(gap.cause.startswith(DELETED) for gap in gaps), gaps
        assert not is_finished or segments[1] > ACKNOWLEDGED, segments
