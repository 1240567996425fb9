"""Copies of runs within the journal, and runs that go while they are served: told, and nothing else suffers."""

import logging
import shutil
from pathlib import Path

import pytest
from tests.faults.feed import BLOCKS, Feed, WorkerThread
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run

from dtolbus.errors import DtolbusError
from dtolbus.registrations import read_registrations
from dtolbus.runs import RUN_FILE, RunFolder, list_runs
from dtolbus.wire import Fetch, Refused, RunRecord
from dtolbus_producer import listing
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalfacts import journal_facts
from dtolbus_producer.progress import JournalWatch
from dtolbus_producer.pruning import prune
from dtolbus_producer.recovery import recover_device
from dtolbus_producer.retention import Policy
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.worker import WorkerConfig

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")


def copied(folder: Path, aside: Path) -> Path:
    """Copy the folder beside itself, as `cp -r X X.bak` does, but at once: no half of it is seen."""
    return Path(shutil.copytree(folder, aside)).rename(folder.with_name(f"{folder.name}.bak"))


def told(caplog: pytest.LogCaptureFixture, path: Path) -> list[str]:
    """What was warned of about the path."""
    found = [str(vars(record)) for record in caplog.records if record.levelno >= logging.WARNING]
    return [text for text in found if str(path) in text]


@pytest.mark.parametrize("level", [0, 1, 2], ids=["run", "task", "device"])
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_a_copy_within_the_journal_does_not_take_the_place_of_the_run_that_is_written(
    tmp_path: Path, level: int, is_before: bool, caplog: pytest.LogCaptureFixture
) -> None:
    writer = RunWriter(tmp_path / "journal", RUN, sync_ms=1)
    writer.append(block(RUN, 0))
    eventually(lambda: writer.head == 1)
    folder = (writer.path, *writer.path.parents)[level]
    if is_before:
        copied(folder, tmp_path / "aside")
    with RunningGateway(tmp_path) as gateway, gateway.client() as client, gateway.subscriber() as live:
        client.hello()
        live.until(lambda m: not isinstance(m, RunRecord))
        if not is_before:
            copied(folder, tmp_path / "aside")
            copy_of = folder.with_name(f"{folder.name}.bak")
            eventually(lambda: bool(told(caplog, copy_of)))
        writer.append(block(RUN, 1))
        eventually(lambda: client.hello().runs[0].head == 2)
        live.until(lambda m: isinstance(m, RunRecord) and m.record.index == 1)
        records = client.fetch(Fetch(RUN.device, RUN.task, RUN.run_id, 0, 2))
        assert [m.record.index for m in records if isinstance(m, RunRecord)] == [0, 1]
    writer.close()
    (copy,) = [path.parent for path in tmp_path.rglob(RUN_FILE) if ".bak" in str(path)]
    assert RunFolder(copy).status().state == "running", "the copy was recovered"
    (line,) = told(caplog, copy)
    assert "move it out of the journal" in line


def test_a_copy_is_left_out_of_everything_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Feed(tmp_path) as feed:
        destination = SqliteDestination(tmp_path / "x.sqlite", blocks="both")
        with feed.thread("sqlite", destination, str(tmp_path / "x.sqlite"), blocks="both"):
            feed.catches_up("sqlite")
    journal = tmp_path / "journal"
    (original,) = [folder.path for folder in list_runs(journal) if folder.info.run_id == BLOCKS.run_id]
    copy = copied(original, tmp_path / "aside")
    (copy / RUN_FILE).write_bytes((copy / RUN_FILE).read_bytes().replace(b'"ended"', b'"running"'))
    caplog.clear()
    assert {folder.path for folder in list_runs(journal)} & {copy} == set()
    assert len(told(caplog, copy)) == 1
    lines, left_out = listing.run_lines(tmp_path)
    assert (len(lines), len(left_out)) == (2, 1)
    assert str(left_out[0]).count(str(copy)) == 1
    assert "restore" not in str(left_out[0])
    watch = JournalWatch(journal)
    watch.update()
    assert {status.state for status in watch.statuses.values()} == {"ended"}
    watch.close()
    assert len(journal_facts(journal)) == 2
    assert recover_device(journal, BLOCKS.device) == []
    certificate = verify(tmp_path)
    assert certificate.complete, certificate
    assert len(certificate.lines) == 2
    (remark,) = [remark for remark in certificate.remarks if str(copy) in remark]
    assert "move it out of the journal" in remark
    prune(tmp_path, Policy(keep_s=0.0), dry_run=False)
    assert RunFolder(copy).segments() == [0]
    assert RunFolder(original).segments() == []


def test_the_only_folder_of_a_run_under_another_name_is_no_complete_journal(tmp_path: Path) -> None:
    with Feed(tmp_path) as feed:
        destination = SqliteDestination(tmp_path / "x.sqlite", blocks="both")
        with feed.thread("sqlite", destination, str(tmp_path / "x.sqlite"), blocks="both"):
            feed.catches_up("sqlite")
    assert verify(tmp_path).complete
    other = block_run("0190a5f4-0000-7000-8000-00000000000f")
    writer = RunWriter(tmp_path / "journal", other, sync_ms=0)
    writer.append(block(other, 0))
    writer.close()
    away = writer.path.rename(writer.path.with_name("renamed"))
    certificate = verify(tmp_path)
    assert not certificate.complete
    (failure,) = certificate.failures
    assert str(away) in failure
    assert str(writer.path) in failure


@pytest.mark.parametrize("is_over", [True, False], ids=["over", "running"])
def test_a_run_that_goes_while_it_is_served_is_told_and_comes_back(
    tmp_path: Path, is_over: bool, caplog: pytest.LogCaptureFixture
) -> None:
    other = block_run("0190a5f4-0000-7000-8000-000000000009")
    writer, goes_on = (RunWriter(tmp_path / "journal", run, sync_ms=1) for run in (RUN, other))
    writer.append(block(RUN, 0))
    if is_over:
        writer.close()
    with RunningGateway(tmp_path) as gateway, gateway.client() as client, gateway.subscriber() as live:
        eventually(lambda: len(client.hello().runs) == 2)
        live.next()  # it is connected
        writer.path.rename(tmp_path / "aside")
        eventually(lambda: [status.info.run_id for status in client.hello().runs] == [other.run_id])
        assert isinstance(client.fetch(Fetch(RUN.device, RUN.task, RUN.run_id, 0, 1))[-1], Refused)
        goes_on.append(block(other, 0))
        live.until(lambda m: isinstance(m, RunRecord) and m.run.run_id == other.run_id)
        (tmp_path / "aside").rename(writer.path)
        eventually(lambda: len(client.hello().runs) == 2)
        eventually(lambda: isinstance(client.fetch(Fetch(RUN.device, RUN.task, RUN.run_id, 0, 1))[0], RunRecord))
    writer.close()
    goes_on.close()
    (line,) = told(caplog, writer.path)
    assert "gone from the journal" in line


def test_a_worker_whose_run_goes_before_it_has_it_ends_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, place = tmp_path / "data", tmp_path / "x.sqlite"
    kept = block_run("0190a5f4-0000-7000-8000-000000000009")
    for run, count in ((RUN, 50), (kept, 2)):
        writer = RunWriter(data / "journal", run)
        for index in range(count):
            writer.append(block(run, index))
        writer.close()
    with RunningGateway(data, catchup_mb_s=0.003) as gateway:
        config = WorkerConfig("x", gateway.endpoints, str(place), until_end=True, options={"blocks": "both"})
        with WorkerThread(SqliteDestination(place, blocks="both"), config) as worker:
            eventually(lambda: any(RUN.run_id in known.positions for known in read_registrations(data)))
            (folder,) = [folder.path for folder in list_runs(data / "journal") if folder.info.run_id == RUN.run_id]
            folder.rename(tmp_path / "aside")
            failure = worker.ended()
    assert isinstance(failure, DtolbusError)
    assert f"not all is stored: the journal does not hold any more what this sink lacks of {RUN.run_id}" in str(failure)
    assert sum(record.getMessage() == "run is gone from the journal" for record in caplog.records) == 1
    assert not verify(data).complete
    (tmp_path / "aside").rename(folder)
    with RunningGateway(data) as gateway:
        config = WorkerConfig("x", gateway.endpoints, str(place), until_end=True, options={"blocks": "both"})
        with WorkerThread(SqliteDestination(place, blocks="both"), config) as worker:
            assert worker.ended() is None
    assert verify(data).complete
