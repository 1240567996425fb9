"""Workers that come late, or were away: whatever they missed, they end complete, as `dtolbus verify` shows."""

import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.commands import command, environment, run, running
from tests.e2e.stacks import KILL
from tests.producer.bus import eventually, free_ports
from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus.records import RunInfo
from dtolbus.runs import list_runs
from dtolbus_producer.journal import RunWriter

CONFIG = """
[[device]]
name = "rig"
[[device.task]]
name = "fast"
rate_hz = 20_000
duration_s = 1.0
channels = ["a", "b"]
[[device]]
name = "oven"
[[device.task]]
name = "slow"
kind = "readings"
rate_hz = 20
duration_s = 1.0
channels = [{ name = "tc", thermocouple = "K" }]
"""


class Bus:
    """A gateway process and what to tell a worker of it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        pub, self.port = free_ports()
        self.catchup = f"tcp://127.0.0.1:{self.port}"
        self.ports = ["--pub-port", str(pub), "--catchup-port", str(self.port)]
        self.connect = ["--connect", f"tcp://127.0.0.1:{pub}", "--catchup", self.catchup]

    @contextlib.contextmanager
    def gateway(self) -> Iterator[None]:
        with running("dtolbus-gateway", "serve", str(self.data), *self.ports):
            yield

    def sqlite(self, out: Path, *options: str) -> list[str]:
        return ["dtolbus-sqlite", "--out", str(out), "--max-age", "0.05", *self.connect, *options]

    def worker(self, out: Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command(*self.sqlite(out)), env=environment(), stdin=subprocess.DEVNULL)


def positions(out: Path) -> dict[str, int]:
    if not out.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{out}?mode=ro", uri=True)) as file:
        try:
            return dict(file.execute("SELECT run_id, next FROM dtolbus_position"))
        except sqlite3.OperationalError:  # no tables yet
            return {}


def verified(bus: Bus, out: Path) -> None:
    for where in (["--data", str(bus.data)], ["--catchup", bus.catchup, "--at", f"sqlite={out}"]):
        checked = run("dtolbus", "verify", *where)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "COMPLETE: nothing is missing" in checked.stdout


def test_a_worker_started_an_hour_after_the_run_ended_gets_the_whole_run(tmp_path: Path) -> None:
    bus, out = Bus(tmp_path / "data"), tmp_path / "late.sqlite"
    config = tmp_path / "dtolbus.toml"
    config.write_text(CONFIG)
    produced = run("dtolbus-producer", "run", "--config", str(config), "--data", str(bus.data))
    assert produced.returncode == 0, produced.stderr
    long_ago = time.time() - 2 * 3600
    for path in bus.data.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    with bus.gateway():
        stored = run(*bus.sqlite(out, "--until-end"))
        assert stored.returncode == 0, stored.stderr
        heads = {folder.info.run_id: folder.status().head for folder in list_runs(bus.data / "journal")}
        assert positions(out) == heads
        assert sorted(heads.values()) == [10, 20]
        verified(bus, out)


def test_down_at_the_start_in_the_middle_and_at_the_end_of_three_runs(tmp_path: Path) -> None:
    bus, out = Bus(tmp_path / "data"), tmp_path / "bus.sqlite"
    first, second, third = (block_run(f"0190a5f4-0000-7000-8000-00000000000{n}", task=f"task{n}") for n in (1, 2, 3))
    other = reading_run("0190a5f4-0000-7000-8000-000000000009")
    runs = {info.run_id: Writing(bus.data, info) for info in (first, second, third, other)}
    one, two, three, beside = runs.values()
    with bus.gateway():
        one.go_to(50)  # nobody is there at its start
        worker = bus.worker(out)
        beside.go_to(20)
        two.go_to(60)
        one.go_to(100)
        one.end()
        reaches(out, {first.run_id: 100, second.run_id: 60, other.run_id: 20})
        os.kill(worker.pid, KILL)  # in the middle of the second
        worker.wait()
        two.go_to(140)
        beside.go_to(50)
        worker = bus.worker(out)
        two.go_to(200)
        two.end()
        three.go_to(80)
        reaches(out, {second.run_id: 200, third.run_id: 80})
        os.kill(worker.pid, KILL)  # before the end of the third
        worker.wait()
        three.go_to(90)
        three.end()
        whole = Writing(bus.data, block_run("0190a5f4-0000-7000-8000-00000000000a", task="meanwhile"))
        whole.go_to(30)  # began and ended while it was away
        whole.end()
        beside.end()
        stored = run(*bus.sqlite(out, "--until-end"))
        assert stored.returncode == 0, stored.stderr
        assert sorted(positions(out).values()) == [30, 50, 90, 100, 200]
        verified(bus, out)


class Writing:
    """A run being written."""

    def __init__(self, data: Path, info: RunInfo) -> None:
        self._writer = RunWriter(data / "journal", info)
        self._info = info
        self._count = 0

    def go_to(self, count: int) -> None:
        make = block if self._info.kind == "blocks" else reading
        for index in range(self._count, count):
            self._writer.append(make(self._info, index))  # type: ignore[arg-type]
        self._count = count
        eventually(lambda: self._writer.head == count)

    def end(self) -> None:
        self._writer.close()


def reaches(out: Path, wanted: dict[str, int]) -> None:
    eventually(lambda: all(positions(out).get(run_id) == count for run_id, count in wanted.items()))


def test_verify_through_a_gateway_finds_what_is_missing(tmp_path: Path) -> None:
    bus, out = Bus(tmp_path / "data"), tmp_path / "bus.sqlite"
    writing = Writing(bus.data, block_run("0190a5f4-0000-7000-8000-000000000001"))
    writing.go_to(400)
    writing.end()
    parquet = tmp_path / "parquet"
    with bus.gateway():
        assert run(*bus.sqlite(out, "--until-end", "--blocks", "both")).returncode == 0
        assert run("dtolbus-parquet", "--out", str(parquet), "--until-end", *bus.connect).returncode == 0
        verified(bus, out)
        with contextlib.closing(sqlite3.connect(out)) as file, file:
            file.execute("DELETE FROM samples WHERE block_index = 17")
            file.execute("DELETE FROM blocks WHERE block_index = 17")
            file.execute("UPDATE samples SET value = value + 1 WHERE block_index = 23 AND channel = 'ai1'")
        places = ["--at", f"sqlite={out}", "--at", f"parquet={parquet}"]
        checked = run("dtolbus", "verify", "--catchup", bus.catchup, *places, "--json")
    assert (checked.returncode, checked.stderr) == (1, "")
    broken, whole = (line for line in json.loads(checked.stdout)["sinks"])
    assert (broken["sink"], broken["complete"], broken["stored"], broken["missing"]) == ("sqlite", False, 399, 1)
    assert broken["different"] == 1
    assert (whole["sink"], whole["complete"], whole["stored"]) == ("parquet", True, 400)


def test_verify_without_a_gateway_or_with_wrong_words_is_one_line(tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_ports()[0]}"
    (tmp_path / "x.sqlite").touch()
    place = f"sqlite={tmp_path / 'x.sqlite'}"
    for words, code, says in (
        (["--catchup", url, "--at", place], 3, f"no gateway answers at {url}"),
        (["--catchup", "nonsense", "--at", place], 2, "'nonsense' is not an address like tcp://daq-pc:5601"),
        (["--catchup", url], 2, "--catchup URL and --at KIND=PLACE go together"),
        (["--at", place], 2, "--catchup URL and --at KIND=PLACE go together"),
        (["--catchup", url, "--at", "mysql=x"], 2, "'mysql' is not a sink; there are parquet, sqlite"),
        (["--catchup", url, "--at", "sqlite"], 2, "say where it is"),
        (["--catchup", url, "--at", f"parquet={tmp_path / 'none'}"], 2, "there is no such file or folder"),
    ):
        failed = run("dtolbus", "verify", *words)
        assert (failed.returncode, failed.stderr.count("\n")) == (code, 1), failed.stderr
        assert says in failed.stderr
