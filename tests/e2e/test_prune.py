"""Retention end to end: real journals, a real worker with its SQLite file, the commands that a user calls."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.e2e.commands import environment, run
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run

from dtolbus.client import Endpoints
from dtolbus.manifest import DELETED, read_manifest
from dtolbus.registrations import read_registrations
from dtolbus.runs import RunFolder, list_runs
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_producer.quota import Quota
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.destination import BlocksMode
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.worker import WorkerConfig, run_worker

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
COUNT = 100


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a run that is over, in several segments."""
    folder = tmp_path / "data"
    writer = RunWriter(folder / "journal", RUN, segment_bytes=8000)
    for index in range(COUNT):
        writer.append(block(RUN, index))
    writer.close()
    return folder


def prune(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run("dtolbus", "prune", "--data", str(data), *(options or ("--keep", "0s")))


def segments(data: Path) -> list[int]:
    return list_runs(data / "journal")[0].segments()


def settings(gateway: RunningGateway, place: Path, blocks: BlocksMode = "both") -> WorkerConfig:
    ports = (f"tcp://127.0.0.1:{port}" for port in (gateway.pub_port, gateway.catchup_port))
    config = WorkerConfig(place.stem, Endpoints(*ports), str(place), until_end=True, policy=BatchPolicy(records=30))
    return replace(config, options={"blocks": blocks})


def store(data: Path, place: Path, blocks: BlocksMode = "both") -> None:
    """Run a SQLite worker until it has everything, and has said so."""
    with RunningGateway(data) as gateway:
        destination = SqliteDestination(place, blocks=blocks)
        config = settings(gateway, place, blocks)
        asyncio.run(asyncio.wait_for(run_worker(destination, config, threading.Event()), 60))
        eventually(lambda: position(data, place.stem) == list_runs(data / "journal")[0].head())


def position(data: Path, name: str) -> int:
    known = {sink.name: sink.positions.get(RUN.run_id) for sink in read_registrations(data)}.get(name)
    return 0 if known is None else known.position


def test_prune_waits_for_the_acknowledgement_and_a_later_sink_gets_a_gap(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = segments(data)
    asked = prune(data)
    assert (asked.returncode, segments(data)) == (0, before)
    assert "no registered sink takes this run" in asked.stdout

    store(data, tmp_path / "first.sqlite")
    asked = prune(data)
    assert asked.returncode == 0
    assert segments(data) == []
    assert len(read_manifest(list_runs(data / "journal")[0].path).segments) == len(before)
    assert prune(data).stdout.count("\n") == 1

    store(data, tmp_path / "second.sqlite")
    lines = {line.sink: line for line in verify(data).lines}
    assert lines["first"].complete
    assert (lines["first"].stored, lines["first"].not_compared) == (COUNT, COUNT)
    (gap,) = lines["second"].gaps
    assert (gap.from_index, gap.to_index) == (0, COUNT)
    assert gap.cause.startswith(DELETED)
    assert (lines["second"].missing, lines["second"].complete) == (0, False)
    assert [record.levelname for record in caplog.records if record.message.startswith("gap stored")] == ["WARNING"]
    with RunningGateway(data) as gateway:  # the gap is stored once, with its samples
        destination = SqliteDestination(tmp_path / "second.sqlite", blocks="both")
        again = settings(gateway, tmp_path / "second.sqlite")
        asyncio.run(asyncio.wait_for(run_worker(destination, again, threading.Event()), 60))
    stored = SqliteDestination.stored(str(tmp_path / "second.sqlite"), {"blocks": "both"}, RUN)
    assert stored is not None
    assert [(found.first_sample, found.end_sample) for found in stored.gaps] == [(0, 10 * COUNT)]


def test_verify_still_finds_what_is_missing_or_doubled_of_what_was_deleted(data: Path, tmp_path: Path) -> None:
    import sqlite3

    place = tmp_path / "lab.sqlite"
    store(data, place)
    prune(data)
    told = run("dtolbus", "verify", "--data", str(data))
    assert told.returncode == 0, told.stdout
    assert f"{COUNT} not compared: {DELETED}" in told.stdout
    with sqlite3.connect(place) as connection:
        connection.execute("DELETE FROM blocks WHERE block_index = 7")
        connection.execute("DELETE FROM samples WHERE block_index = 7")
    connection.close()
    (line,) = verify(data).lines
    assert (line.missing, line.complete) == (1, False)
    assert run("dtolbus", "verify", "--data", str(data)).returncode == 1


def test_the_only_samples_stay_also_behind_a_sink_that_keeps_samples_from_now_on(data: Path, tmp_path: Path) -> None:
    before = segments(data)
    store(data, tmp_path / "lab.sqlite", "summary")
    assert "only summaries of it are stored" in prune(data).stdout
    store(data, tmp_path / "lab.sqlite", "both")
    assert "only summaries of it are stored" in prune(data).stdout
    assert segments(data) == before
    assert "lab all (summaries)" in run("dtolbus", "runs", "--data", str(data)).stdout
    assert "deleted" in prune(data, "--keep", "0s", "--summaries-suffice").stdout
    assert segments(data) == []


_KILLED = """
import os, pathlib, signal, sys
from dtolbus_producer.pruning import prune
from dtolbus_producer.retention import Policy
pathlib.Path.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
prune(pathlib.Path(sys.argv[1]), Policy(keep_s=0.0), dry_run=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_between_manifest_and_unlink_loses_nothing_and_is_made_good(data: Path, tmp_path: Path) -> None:
    store(data, tmp_path / "lab.sqlite")
    before = segments(data)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(data)], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    (folder,) = list_runs(data / "journal")
    assert [segment.first_index for segment in read_manifest(folder.path).segments] == before[:1]
    assert segments(data) == before
    assert verify(data).complete
    assert prune(data).returncode == 0
    assert segments(data) == []
    assert len(read_manifest(folder.path).segments) == len(before)
    assert verify(data).complete


def test_prune_while_a_run_is_recorded_and_stored(tmp_path: Path) -> None:
    data, place = tmp_path / "data", tmp_path / "lab.sqlite"
    writer = RunWriter(data / "journal", RUN, segment_bytes=8000)
    writer.append(block(RUN, 0))
    with RunningGateway(data) as gateway:
        destination = SqliteDestination(place, blocks="both")
        config = replace(settings(gateway, place), policy=BatchPolicy(records=5, age_s=0.05))
        worker = threading.Thread(
            target=lambda: asyncio.run(asyncio.wait_for(run_worker(destination, config, threading.Event()), 60))
        )
        worker.start()
        for index in range(1, COUNT):
            writer.append(block(RUN, index))
            if index % 25 == 0:
                eventually(lambda done=index: position(data, "lab") >= done)  # type: ignore[misc]
                assert prune(data).returncode == 0
                assert len(segments(data)) == 1
        writer.close()
        worker.join(60)
        assert not worker.is_alive()
        eventually(lambda: position(data, "lab") == COUNT)
    certificate = verify(data)
    assert certificate.complete
    assert 0 < certificate.lines[0].not_compared < COUNT
    assert certificate.lines[0].gaps == []


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root on Linux")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_gap_oldest_keeps_recording_on_a_full_disk_and_a_late_sink_stores_the_gap(tmp_path: Path) -> None:
    data, info = tmp_path / "disk", block_run(RUN.run_id, block_samples=2000)
    with small_disk(data, "4m"):
        watch = Quota(data, JournalConfig(when_full="gap-oldest", min_free="1500K"))
        writer = RunWriter(data / "journal", info, segment_bytes=1 << 17, sync_ms=0)
        for index in range(1000):  # twice what there is
            writer.append(block(info, index, samples=2000))
            watch.check()
            assert watch.full() is None
        writer.close()
        with RunFolder(writer.path) as folder:
            first = folder.first()
        assert 0 < first < 1000
        store(data, tmp_path / "late.sqlite")
        (line,) = verify(data).lines
    assert [(gap.from_index, gap.to_index) for gap in line.gaps] == [(0, first)]
    assert line.gaps[0].cause == f"{DELETED}: the disk was full, and no sink was registered for this run"
    assert (line.stored, line.missing, line.different) == (1000 - first, 0, 0)


class TestCommands:
    def test_runs_and_sinks_for_people_and_machines(self, data: Path, tmp_path: Path) -> None:
        store(data, tmp_path / "lab.sqlite")
        (line,) = json.loads(run("dtolbus", "runs", "--data", str(data), "--json").stdout)
        assert (line["run_id"], line["first"], line["head"], line["state"]) == (RUN.run_id, 0, COUNT, "ended")
        assert line["sinks"] == [{"name": "lab", "position": COUNT, "lag": 0, "has_samples": True}]
        assert RUN.run_id in run("dtolbus", "runs", "--data", str(data)).stdout
        (line,) = json.loads(run("dtolbus", "sinks", "--data", str(data), "--json").stdout)
        assert (line["name"], line["kind"], line["lag"]) == ("lab", "sqlite", 0)
        told = run("dtolbus", "sinks", "forget", "labb", "--data", str(data))
        assert (told.returncode, told.stderr.count("\n")) == (2, 1)
        assert "did you mean 'lab'" in told.stderr
        told = run("dtolbus", "sinks", "--data", str(data), "forget", "lab")
        assert (told.returncode, "lab is forgotten" in told.stdout) == (0, True)
        assert run("dtolbus", "sinks", "--data", str(data)).stdout == "no sink has registered here\n"

    @pytest.mark.parametrize("file", ["run.json", "manifest.json"])
    def test_a_damaged_run_hides_no_other(self, data: Path, tmp_path: Path, file: str) -> None:
        store(data, tmp_path / "lab.sqlite")
        hurt = data / "journal" / "dt9806" / "vibration" / "0190a5f4-0000-7000-8000-00000000000a"
        shutil.copytree(list_runs(data / "journal")[0].path, hurt)
        own = (hurt / "run.json").read_bytes()
        (hurt / "run.json").write_bytes(own.replace(RUN.run_id.encode(), hurt.name.encode()))
        (hurt / file).write_bytes(b'{"info": {}}' if file == "run.json" else b"\0" * 100)
        told = run("dtolbus", "runs", "--data", str(data), "--json")
        assert (told.returncode, told.stderr.count("\n")) == (1, 1)
        assert f"{hurt / file} is damaged" in told.stderr
        assert "restore the file from a backup" in told.stderr
        assert [line["run_id"] for line in json.loads(told.stdout)] == [RUN.run_id]
        told = run("dtolbus", "runs", "--data", str(data))
        assert (told.returncode, RUN.run_id in told.stdout) == (1, True)
        if file == "run.json":  # how far a sink is does not hang on a manifest
            told = run("dtolbus", "sinks", "--data", str(data))
            assert (told.returncode, "lab" in told.stdout, f"{hurt / file} is damaged" in told.stderr) == (
                1,
                True,
                True,
            )
            told = run("dtolbus", "sinks", "forget", "lab", "--data", str(data))
            assert (told.returncode, "lab is forgotten" in told.stdout) == (0, True)

    def test_a_damaged_registration_hides_nothing_else_and_nothing_is_pruned(self, data: Path, tmp_path: Path) -> None:
        store(data, tmp_path / "lab.sqlite")
        damaged = data / "sinks" / "my%2Fsink.json"
        damaged.write_bytes(b'{"name": ')
        for words, shown in ((("runs",), RUN.run_id), (("sinks",), "lab")):
            told = run("dtolbus", *words, "--data", str(data))
            assert (told.returncode, told.stderr.count("\n"), shown in told.stdout) == (1, 1, True), told
            assert str(damaged) in told.stderr
            assert 'dtolbus sinks forget "my/sink"' in told.stderr
        told = prune(data)
        assert (told.returncode, told.stderr.count("\n")) == (1, 1), told
        assert f"nothing is deleted, as nobody knows what one of the sinks lacks: {damaged}" in told.stderr
        assert segments(data)
        told = run("dtolbus", "sinks", "forget", "my/sink", "--data", str(data))
        assert (told.returncode, "my/sink is forgotten" in told.stdout) == (0, True), told
        assert prune(data).returncode == 0
        assert segments(data) == []

    def test_a_journal_all_of_whose_runs_are_damaged_does_not_look_empty(self, data: Path) -> None:
        (list_runs(data / "journal")[0].path / "run.json").write_bytes(b"{")
        told = run("dtolbus", "runs", "--data", str(data))
        assert (told.returncode, told.stdout) == (1, "the journal holds no runs that can be read\n")
        assert "is damaged" in told.stderr

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "--keep 7d"),
            (["--keep", "soon"], "'soon' is no age"),
            (["--max-size", "-3G"], "'-3G' is no size"),
            (["--keep", "7d", "--data", "nowhere"], "holds no journal"),
        ],
    )
    def test_wrong_values_are_one_line_and_exit_code_2(self, data: Path, options: list[str], message: str) -> None:
        told = run("dtolbus", "prune", "--data", str(data), *options)
        assert (told.returncode, told.stderr.count("\n")) == (2, 1)
        assert message in told.stderr
