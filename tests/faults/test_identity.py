"""Whose destination, whose journal, which run: what is mixed up is refused or told, and nothing is lost or doubled."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import Up, assert_complete, runs
from tests.faults.feed import Feed, WorkerThread
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus.errors import CannotStartError
from dtolbus.registrations import read_registrations
from dtolbus.wire import Hello, RunPosition
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.registering import registered
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.certificate import Certificate
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.worker import WorkerConfig

ROLLED_BACK = "the journal of this run was rolled back; what is stored beyond its end stays"


class Writing:
    """Two runs, written as far as is told."""

    def __init__(self, data: Path, *, first: int = 1) -> None:
        self._runs = [
            block_run(f"0190a5f4-0000-7000-8000-0000000000{first}1"),
            reading_run(f"0190a5f4-0000-7000-8000-0000000000{first}2"),
        ]
        self._writers = [RunWriter(data / "journal", run, sync_ms=1) for run in self._runs]
        self._count = 0

    def go_to(self, count: int) -> None:
        (blocks, readings), (block_info, reading_info) = self._writers, self._runs
        for index in range(self._count, count):
            blocks.append(block(block_info, index))
            readings.append(reading(reading_info, index))
        self._count = count
        eventually(lambda: all(writer.head == count for writer in self._writers))

    def end(self) -> None:
        for writer in self._writers:
            writer.close()

    @property
    def run_ids(self) -> set[str]:
        return {run.run_id for run in self._runs}


def sqlite_worker(gateway: RunningGateway, place: Path, name: str = "sqlite") -> WorkerThread:
    return WorkerThread(SqliteDestination(place, blocks="samples"), config(gateway, str(place), name))


def config(gateway: RunningGateway, place: str, name: str) -> WorkerConfig:
    return WorkerConfig(
        name, gateway.endpoints, place, options={"blocks": "samples"}, policy=BatchPolicy(records=50, age_s=0.05)
    )


def has(data: Path, name: str, run_ids: set[str], count: int) -> bool:
    (known,) = [sink for sink in read_registrations(data) if sink.name == name] or [None]
    return known is not None and all(
        run_id in known.positions and known.positions[run_id].position == count for run_id in run_ids
    )


def whole(certificate: Certificate, sinks: set[str], count: int) -> None:
    """Assert that all lines are complete: so many records of each of two runs in each sink."""
    assert all(line.complete for line in certificate.lines), certificate
    assert sorted((line.sink, line.stored) for line in certificate.lines) == sorted([(s, count) for s in sinks] * 2)


# ---- two workers on one destination ----


@pytest.mark.parametrize("kind", ["parquet", "sqlite", "csv", pytest.param("jsonl", marks=pytest.mark.soak)])
def test_a_second_worker_on_one_destination_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    words = ("--out", str(out), *(("--blocks", "samples") if kind in ("csv", "jsonl") else ()))
    with Feed(tmp_path / "data") as feed, feed.process(kind, *words, log=tmp_path / "log") as first:
        feed.advances(kind)
        second = run(f"dtolbus-{kind}", *words, "--name", "second", *feed.connect)
        assert (second.returncode, second.stderr.count("\n")) == (3, 1), second.stderr
        assert re.search(r"in use by another .*worker.*; stop that one", second.stderr), second.stderr
        feed.catches_up(kind)
        assert first.poll() is None
    whole(verify(feed.data), {kind}, feed.head // 2)


def test_a_second_worker_on_one_schema_is_refused_in_one_line(
    tmp_path: Path, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTOLBUS_DSN", postgres_dsn)
    target = PostgresConfig(dsn=postgres_dsn)
    first, second = (PostgresDestination(target, blocks="samples", lock_timeout_s=0.5) for _ in range(2))
    with Feed(tmp_path / "data") as feed:
        with feed.thread("postgres", first, target.target(), blocks="samples"):
            feed.advances("postgres")
            with feed.thread("second", second, target.target(), blocks="samples") as other:
                refused = other.ended()
            feed.catches_up("postgres")
        assert isinstance(refused, CannotStartError)
        assert "is in use by another worker, dtolbus-postgres (pid" in str(refused)
        assert "\n" not in str(refused)
    whole(verify(feed.data), {"postgres"}, feed.head // 2)


@pytest.mark.soak
def test_a_second_worker_process_on_one_schema_ends_with_3(tmp_path: Path, postgres_dsn: str) -> None:
    with Feed(tmp_path / "data") as feed, feed.process("postgres", log=tmp_path / "log", DTOLBUS_DSN=postgres_dsn):
        feed.advances("postgres")
        second = run("dtolbus-postgres", "--name", "second", *feed.connect, env={"DTOLBUS_DSN": postgres_dsn})
    assert (second.returncode, second.stderr.count("\n")) == (3, 1), second.stderr
    assert "is in use by another worker, dtolbus-postgres (pid" in second.stderr


# ---- another stack's journal ----


def test_a_destination_that_served_another_stack_ends_complete_for_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, here, there = tmp_path / "bus.sqlite", tmp_path / "here", tmp_path / "there"
    mine, theirs = Writing(here, first=1), Writing(there, first=3)
    mine.go_to(30)
    theirs.go_to(50)
    with RunningGateway(here) as gateway, sqlite_worker(gateway, place):
        eventually(lambda: has(here, "sqlite", mine.run_ids, 30))
    with RunningGateway(there) as gateway, caplog.at_level(logging.WARNING), sqlite_worker(gateway, place):
        theirs.go_to(60)
        eventually(lambda: has(there, "sqlite", theirs.run_ids, 60))
    assert "none of the stored runs is in this journal" in caplog.text
    with RunningGateway(here) as gateway, sqlite_worker(gateway, place):
        mine.go_to(80)
        eventually(lambda: has(here, "sqlite", mine.run_ids, 80))
    mine.end()
    theirs.end()
    for data, count, foreign in ((here, 80, theirs.run_ids), (there, 60, mine.run_ids)):
        certificate = verify(data)
        whole(certificate, {"sqlite"}, count)
        assert certificate.complete, certificate
        assert all(any(run_id in remark for remark in certificate.remarks) for run_id in foreign), certificate


# ---- old runs, old journals ----


def test_a_recording_played_twice_is_two_runs(tmp_path: Path) -> None:
    codes = np.random.default_rng(5).integers(-3000, 3000, (2, 5000)).astype(np.int16)
    recording = tmp_path / "recording.npz"
    np.savez(recording, codes=codes, channels=["a", "b"], unit="g", full_scale=5.0, rate_hz=10_000.0)
    for _ in range(2):
        played = ("--board", f"playback:{recording}", "--speed", "max")
        with Up(tmp_path / "data", *played, "--sinks", "parquet,sqlite", "--blocks", "both") as up:
            assert_complete(up, up.end())
    (folders,) = runs(tmp_path / "data").values()
    assert len({folder.info.run_id for folder in folders}) == 2
    certificate = verify(tmp_path / "data")
    assert certificate.complete
    assert [line.duplicates for line in certificate.lines] == [0] * 4
    assert {line.samples for line in certificate.lines} == {codes.size}


def test_a_run_taken_out_of_the_journal_and_put_back_is_not_stored_again(tmp_path: Path) -> None:
    data, place = tmp_path / "data", tmp_path / "bus.sqlite"
    writing = Writing(data)
    writing.go_to(60)
    writing.end()
    with RunningGateway(data) as gateway, sqlite_worker(gateway, place):
        eventually(lambda: has(data, "sqlite", writing.run_ids, 60))
    shutil.move(data / "journal", tmp_path / "kept")
    other = Writing(data, first=3)
    other.go_to(20)
    with RunningGateway(data) as gateway, sqlite_worker(gateway, place):
        eventually(lambda: has(data, "sqlite", other.run_ids, 20))
        shutil.copytree(tmp_path / "kept", data / "journal", dirs_exist_ok=True)
        other.go_to(40)
        eventually(lambda: has(data, "sqlite", other.run_ids, 40))
    other.end()
    with RunningGateway(data) as gateway, sqlite_worker(gateway, place):
        eventually(lambda: has(data, "sqlite", writing.run_ids, 60))
    certificate = verify(data)
    assert certificate.complete, certificate
    assert sorted((line.stored, line.duplicates) for line in certificate.lines) == [(40, 0), (40, 0), (60, 0), (60, 0)]


@pytest.mark.parametrize("kind", ["sqlite", "parquet"])
def test_a_journal_restored_from_an_old_backup_leaves_what_the_sink_holds(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, place = tmp_path / "data", tmp_path / "out"

    def worker(gateway: RunningGateway) -> WorkerThread:
        destination = SqliteDestination(place, blocks="samples") if kind == "sqlite" else ParquetDestination(place)
        return WorkerThread(destination, config(gateway, str(place), kind))

    writing = Writing(data)
    writing.go_to(50)
    shutil.copytree(data / "journal", tmp_path / "backup")
    writing.go_to(90)
    writing.end()
    with RunningGateway(data) as gateway, worker(gateway):
        eventually(lambda: has(data, kind, writing.run_ids, 90))
    certificate = verify(data)
    whole(certificate, {kind}, 90)
    shutil.rmtree(data / "journal")
    shutil.copytree(tmp_path / "backup", data / "journal")
    other = Writing(data, first=3)
    with caplog.at_level(logging.WARNING), RunningGateway(data) as gateway, worker(gateway):
        other.go_to(30)
        eventually(lambda: has(data, kind, other.run_ids, 30))
        other.end()
        eventually(lambda: [record.getMessage() for record in caplog.records].count(ROLLED_BACK) == 2)
    rolled = {line.stream: line for line in verify(data).lines if line.run_id in writing.run_ids}
    assert len(rolled) == 2
    for line in rolled.values():
        assert (line.expected, line.stored, line.missing, line.duplicates, line.different) == (50, 50, 0, 0, 0)
        assert line.remarks == ["40 records that the journal does not have"]
    others = [line for line in verify(data).lines if line.run_id in other.run_ids]
    assert [(line.stored, line.complete) for line in others] == [(30, True)] * 2


# ---- copies, and names ----


def test_a_destination_copied_to_a_second_place_and_both_used(tmp_path: Path) -> None:
    data, first, second = tmp_path / "data", tmp_path / "first", tmp_path / "second"
    writing = Writing(data)
    writing.go_to(40)
    with RunningGateway(data) as gateway:
        with WorkerThread(ParquetDestination(first), config(gateway, str(first), "first")):
            eventually(lambda: has(data, "first", writing.run_ids, 40))
        shutil.copytree(first, second)
        with (
            WorkerThread(ParquetDestination(first), config(gateway, str(first), "first")),
            WorkerThread(ParquetDestination(second), config(gateway, str(second), "second")),
        ):
            writing.go_to(90)
            writing.end()
            eventually(lambda: all(has(data, name, writing.run_ids, 90) for name in ("first", "second")))
    certificate = verify(data)
    assert certificate.complete, certificate
    whole(certificate, {"first", "second"}, 90)


def test_an_older_copy_elsewhere_or_put_back_in_place_counts_for_no_more_than_it_has() -> None:
    hello = Hello(worker="w", sink="sqlite", place="/a", destination_id="id", options={"host": "h"})
    ahead = registered(None, _with(hello, 90), "now")
    copied = registered(ahead, _with(hello, 40, place="/b"), "now")
    put_back = registered(ahead, _with(hello, 40), "now")
    assert [known.positions["r"].position for known in (ahead, copied, put_back)] == [90, 40, 40]


def _with(hello: Hello, position: int, place: str = "/a") -> Hello:
    return Hello(
        worker=hello.worker,
        sink=hello.sink,
        place=place,
        destination_id=hello.destination_id,
        options=hello.options,
        positions=(RunPosition("dev", "task", "r", position),),
    )


def test_the_name_of_one_destination_is_refused_to_another(tmp_path: Path) -> None:
    place = tmp_path / "bus.sqlite"
    with Feed(tmp_path / "data") as feed:
        words = ("--blocks", "both", "--out")
        with feed.process("sqlite", *words, str(place), log=tmp_path / "log"):
            feed.advances("sqlite")
            other = tmp_path / "other.sqlite"
            refused = run("dtolbus-sqlite", *words, str(other), *feed.connect)
            assert (refused.returncode, refused.stderr.count("\n")) == (3, 1), refused.stderr
            assert f"the sink 'sqlite' of this journal is {place}; give {other} another --name" in refused.stderr
            feed.catches_up("sqlite")
    whole(verify(feed.data), {"sqlite"}, feed.head // 2)
