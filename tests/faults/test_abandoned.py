"""Runs whose producer was killed, and that nobody ended yet: nobody calls them complete, and they get what is there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.e2e.commands import run, running
from tests.e2e.stacks import KILL, Up, assert_complete, environment
from tests.faults.feed import WorkerThread
from tests.producer.bus import RunningGateway, eventually, free_ports
from tests.protocol.specimens import reading, reading_run

from dtolbus import files
from dtolbus.abandoned import is_abandoned, records_on_disk
from dtolbus.registrations import Registration, read_registrations
from dtolbus.runs import HEAD_FILE, RUN_FILE, Head, RunFile, RunFolder, encode_head, list_runs
from dtolbus_producer.journal import RunWriter
from dtolbus_workers import settling
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.verify_remote import verify_remote
from dtolbus_workers.worker import WorkerConfig

READINGS = reading_run("0190a5f4-0000-7000-8000-000000000002")
CONFIG = """
data = "{data}"
[[device]]
name = "rig"
[[device.task]]
name = "slow"
kind = "readings"
rate_hz = 50
channels = ["a", "b"]
[journal]
sync_ms = 1500
"""


def killed_with_records_behind_the_head(tmp_path: Path) -> RunFolder:
    """The run of a producer killed with its gateway: a sink has what was durable, more is on disk."""
    data, config = tmp_path / "data", tmp_path / "dtolbus.toml"
    (data / "journal").mkdir(parents=True)
    config.write_text(CONFIG.format(data=data))
    pub, catchup = map(str, free_ports())
    ports = ("--pub-port", pub, "--catchup-port", catchup)
    at = ("--connect", f"tcp://127.0.0.1:{pub}", "--catchup", f"tcp://127.0.0.1:{catchup}")
    producer = [sys.executable, "-m", "dtolbus_producer", "producer", "run", "--config", str(config), "--device", "rig"]
    with (
        running("dtolbus-gateway", "serve", str(data), *ports) as gateway,
        running("dtolbus-csv", "--out", str(data / "csv"), *at, "--max-age", "0.05"),
        subprocess.Popen(
            producer, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as acquisition,
    ):

        def stored() -> int:
            return sum(p.position for sink in read_registrations(data) for p in sink.positions.values())

        eventually(lambda: stored() > 0)
        (folder,) = list_runs(data / "journal")
        eventually(lambda: stored() == folder.head() and records_on_disk(folder) > folder.head() + 10)
        for process in (acquisition, gateway):
            process.send_signal(KILL)
        acquisition.wait()
    assert folder.status().state == "running"
    assert records_on_disk(folder) > folder.head() > 0
    return folder


def test_producer_and_gateway_killed_at_once_are_never_called_complete(tmp_path: Path) -> None:
    folder = killed_with_records_behind_the_head(tmp_path)
    data, count, was = tmp_path / "data", records_on_disk(folder), files.read(folder.path / RUN_FILE)
    told = run("dtolbus", "verify", "--data", str(data))
    assert told.returncode == 1, told.stdout
    assert (
        f"interrupted, not recovered yet (no process of this machine writes it): {count} records on disk" in told.stdout
    )
    assert told.stdout.endswith("INCOMPLETE\n")
    (line,) = json.loads(run("dtolbus", "verify", "--data", str(data), "--json").stdout)["sinks"]
    assert (line["expected"], line["missing"]) == (count, count - folder.head())
    assert 0 < line["samples"] <= 2 * line["stored"], "what the sink does not have was compared"
    listed = run("dtolbus", "runs", "--data", str(data))
    assert "interrupted (not recovered)" in listed.stdout
    (of_run,) = json.loads(run("dtolbus", "runs", "--data", str(data), "--json").stdout)
    assert (of_run["state"], of_run["is_recovered"], of_run["head"]) == ("interrupted", False, count)
    assert files.read(folder.path / RUN_FILE) == was, "whoever only looks has changed it"
    with Up(data, "--catch-up") as up:
        assert_complete(up, up.end())
    assert run("dtolbus", "verify", "--data", str(data)).returncode == 0
    assert RunFolder(folder.path).head() == count
    assert "not recovered" not in run("dtolbus", "runs", "--data", str(data)).stdout


def written(data: Path, count: int = 9) -> Path:
    """A run that ended, stored by SQLite; return its folder."""
    writer = RunWriter(data / "journal", READINGS)
    for index in range(count):
        writer.append(reading(READINGS, index))
    writer.close()
    with RunningGateway(data) as gateway:
        config = WorkerConfig("x", gateway.endpoints, str(data / "x.sqlite"), until_end=True)
        with WorkerThread(SqliteDestination(data / "x.sqlite"), config) as worker:
            assert worker.ended() is None
    assert verify(data).complete
    return writer.path


def set_back(folder: Path, head: int) -> None:
    """Have a run's folder as a killed producer leaves it, whose head was written last when it had so many records."""
    files.replace(folder / RUN_FILE, msgspec.json.encode(RunFile(READINGS)))
    files.replace(folder / HEAD_FILE, encode_head(Head(head, 0)))


def test_a_run_that_says_it_is_running_and_has_no_process_is_not_complete(tmp_path: Path) -> None:
    folder = written(tmp_path)
    set_back(folder, 9)
    assert is_abandoned(RunFolder(folder)) is True
    certificate = verify(tmp_path)
    assert not certificate.complete
    assert "interrupted, not recovered yet" in certificate.failures[0]
    (folder / "lock").unlink(missing_ok=True)
    assert not verify(tmp_path).complete


def test_a_run_that_is_written_is_not_taken_for_one_that_is_not(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "journal", READINGS, sync_ms=1)
    with RunFolder(writer.path) as folder:
        assert is_abandoned(folder) is False
        writer.append(reading(READINGS, 0))
        eventually(lambda: folder.head() == 1)
        assert (is_abandoned(folder), records_on_disk(folder)) == (False, 1)
        writer.close()
        assert is_abandoned(folder) is False


def test_what_is_on_disk_and_not_yet_durable_is_waited_for_and_else_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path / "journal", READINGS, sync_ms=60_000)
    for index in range(3):
        writer.append(reading(READINGS, index))
    monkeypatch.setattr(settling, "_PATIENCE_S", 0.1)
    certificate = verify(tmp_path)
    assert not certificate.complete
    assert "3 records on disk, 0 of them known as safe" in certificate.failures[0]
    writer.close()


def test_a_journal_behind_a_gateway_is_judged_once_its_dead_runs_are_ended(tmp_path: Path) -> None:
    folder = written(tmp_path)
    more = RunFolder(folder)
    set_back(folder, 4)
    sink = Registration(name="x", sink="sqlite", place=str(tmp_path / "x.sqlite"), destination_id="")
    with RunningGateway(tmp_path) as gateway:
        certificate = verify_remote(gateway.endpoints.catchup, [sink])
    (line,) = certificate.lines
    assert line.expected == 9  # all that is on disk; its end may be told a moment after that
    assert line.state in ("interrupted", "running")
    assert more.path == folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in a folder here")
@pytest.mark.parametrize("name", ["run.json", "head", "000000000000.dt-readings", "manifest.json", "lock"])
def test_a_pipe_in_the_place_of_a_file_of_the_journal_hangs_nobody(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path)
    if name in ("head", "lock"):
        set_back(folder, 4)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    done = run("dtolbus", "verify", "--data", str(tmp_path))
    assert done.returncode == 1, done.stdout
    assert "not a regular file" in done.stdout or name == "lock"
    assert "Traceback" not in done.stderr
    with RunningGateway(tmp_path) as gateway, gateway.client() as client:
        client.hello()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in a folder here")
def test_a_pipe_in_the_place_of_a_registration_hangs_nobody(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "sinks" / "x.json").unlink()
    os.mkfifo(tmp_path / "sinks" / "x.json")
    done = run("dtolbus", "verify", "--data", str(tmp_path))
    assert done.returncode == 1
    assert "not a regular file" in done.stdout
    with RunningGateway(tmp_path) as gateway:
        config = WorkerConfig("x", gateway.endpoints, str(tmp_path / "x.sqlite"), until_end=True)
        with WorkerThread(SqliteDestination(tmp_path / "x.sqlite"), config) as worker:
            assert worker.ended() is None
