"""What the processes of a real stack tell of themselves, against what they have done."""

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.commands import run, running
from tests.e2e.scraping import Scraped, get, health
from tests.e2e.stacks import Up
from tests.faults.own_postgres import own_postgres
from tests.producer.bus import eventually, free_ports
from tests.protocol.specimens import block, block_run

from dtolbus_producer.journal import RunWriter
from dtolbus_producer.ports import port_problem

CONFIG = """
[[device]]
name = "rig"
board = "sim"
[[device.task]]
name = "t"
rate_hz = 1000
channels = [{ name = "x", physical = 0, range = 10, unit = "V" }]
[[device]]
name = "slow"
board = "sim"
[[device.task]]
name = "t"
kind = "readings"
rate_hz = 0.001
channels = ["a"]
"""
OLD = block_run("0190a5f4-0000-7000-8000-000000000001", device="old", task="t")
SINKS = ("sqlite", "jsonl")
LONG_S = 180.0
"""A machine that does much else starts a process in half a minute."""


def free_row(count: int) -> int:
    """The first of so many ports in a row that are free, none of those from which connections go out."""
    for _ in range(1000):
        first = random.randrange(20000, 30000)
        row = range(first, first + count)
        if not any(port_problem("127.0.0.1", port) for port in row):
            return first
    raise AssertionError("no row of free ports")


class Stack:
    """A gateway, a producer and two sinks, each a process of its own that tells of itself."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.pub, self.catchup, *ports = free_ports(5)
        self.ports = dict(zip(("gateway", *SINKS), ports, strict=True))
        first = free_row(3)
        self.ports |= {"producer": first, "rig": first + 1, "slow": first + 2}
        self.config = folder / "lab.toml"
        self.config.write_text(CONFIG)
        self._held = ExitStack()

    def start(self, part: str, *words: str) -> Any:
        env = {"DTOLBUS_METRICS_PORT": str(self.ports[part])}
        return self._held.enter_context(running(*words, env=env))

    def __enter__(self) -> "Stack":
        try:
            self._start_all()
        except BaseException:
            self._held.close()
            raise
        return self

    def _start_all(self) -> None:
        at = ("--connect", f"tcp://127.0.0.1:{self.pub}", "--catchup", f"tcp://127.0.0.1:{self.catchup}")
        ports = ("--pub-port", str(self.pub), "--catchup-port", str(self.catchup))
        self.start("gateway", "dtolbus-gateway", "serve", str(self.data), *ports)
        self.start("sqlite", "dtolbus-sqlite", "--out", str(self.data / "dtolbus.sqlite"), *at)
        self.start("jsonl", "dtolbus-jsonl", "--out", str(self.data / "jsonl"), "--blocks", "summary", *at)
        # what was there before the gateway looked first is fetched, not published
        eventually(lambda: health(self.ports["gateway"])[0] == 200, LONG_S)
        self.producer = self.start(
            "producer", "dtolbus-producer", "run", "--config", str(self.config), "--data", str(self.data)
        )

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def scraped(self, part: str) -> Scraped:
        return Scraped(self.ports[part])

    def is_healthy(self) -> bool:
        assert self.producer.poll() is None, self.producer.communicate()
        return all(health(port)[0] == 200 for port in self.ports.values())


def lost_segment(data: Path) -> None:
    """A run of ten records, the third of which the journal does not have any more."""
    writer = RunWriter(data / "journal", OLD, segment_s=0.0)
    for index in range(10):
        writer.append(block(OLD, index))
    writer.close()
    (writer.path / "000000000002.dt-raw").unlink()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    lost_segment(tmp_path / "data")
    with Stack(tmp_path) as running_stack:
        yield running_stack


def by_stream(lines: list[dict[str, Any]], value: Callable[[dict[str, Any]], int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in lines:
        found[line["stream"]] += value(line)
    return +found


def test_what_is_told_is_what_the_certificate_says(stack: Stack) -> None:
    eventually(stack.is_healthy, LONG_S)
    eventually(lambda: stack.scraped("rig").by("device", "dtolbus_producer_disk_left_seconds")["rig"] > 0, LONG_S)
    rig, slow = stack.scraped("rig"), stack.scraped("slow")
    assert rig.one("dtolbus_producer_recording", stream="rig/t") == 1
    assert rig.one("dtolbus_producer_sync_seconds_count", stream="rig/t") > 0
    assert stack.scraped("producer").by("child", "dtolbus_running") == {"acquisition-rig": 1, "acquisition-slow": 1}

    stack.producer.terminate()
    assert stack.producer.wait(LONG_S) == 0
    for sink in SINKS:
        eventually(lambda sink=sink: not stack.scraped(sink).by("stream", "dtolbus_worker_lag_records"), LONG_S)
    eventually(lambda: not stack.scraped("gateway").by("sink", "dtolbus_gateway_sink_lag_records"), LONG_S)

    verified = json.loads(run("dtolbus", "verify", "--data", str(stack.data), "--json").stdout)
    for sink in SINKS:
        lines, seen = [line for line in verified["sinks"] if line["sink"] == sink], stack.scraped(sink)
        expected = by_stream(lines, lambda line: line["expected"])
        assert len(expected) == 3
        stored, gaps = by_stream(lines, lambda line: line["stored"]), by_stream(lines, lambda line: len(line["gaps"]))
        assert gaps == {"old/t": 1}
        assert seen.by("stream", "dtolbus_worker_records_total") == stored
        assert seen.by("stream", "dtolbus_worker_gaps_total") == gaps
        assert seen.by("stream", "dtolbus_worker_gap_records_total") == {"old/t": 1}
        assert seen.by("stream", "dtolbus_worker_head_records") == expected
        assert seen.by("stream", "dtolbus_worker_position_records") == expected
        assert seen.by("stream", "dtolbus_worker_backfilled_records_total") == by_stream(
            lines, lambda line: line["backfilled"]
        )
        assert seen.one("dtolbus_worker_commit_failures_total") == 0
        assert seen.one("dtolbus_worker_commit_seconds_count") > 0
    gateway = stack.scraped("gateway")
    assert gateway.by("stream", "dtolbus_gateway_head_records") == expected
    assert gateway.one("dtolbus_gateway_runs") == 3
    assert gateway.one("dtolbus_gateway_sinks") == 2
    assert slow.one("dtolbus_producer_records_total", stream="slow/t") == expected["slow/t"] == 1
    assert 0 < rig.one("dtolbus_producer_records_total", stream="rig/t") <= expected["rig/t"]
    assert rig.one("dtolbus_producer_overruns_total", stream="rig/t") == 0
    published = gateway.by("stream", "dtolbus_gateway_published_records_total")
    assert published == expected - Counter({"old/t": 10})
    if sys.platform == "linux":
        # one that was made anew, on a slow machine, is counted until the old one is closed
        connections = {"live": 2, "catchup": 2}
        told = "dtolbus_gateway_connections"
        eventually(lambda: stack.scraped("gateway").by("socket", told) == connections, LONG_S)


def test_the_health_of_a_sink_whose_database_is_away_and_back(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ports = dict(zip(("pub", "catchup", "sink"), free_ports(3), strict=True))
    with RecordingRun(data) as recording, own_postgres() as server, ExitStack() as held:
        serve = ("serve", str(data), "--pub-port", str(ports["pub"]), "--catchup-port", str(ports["catchup"]))
        held.enter_context(running("dtolbus-gateway", *serve))
        at = [f"--{kind}=tcp://127.0.0.1:{ports[port]}" for kind, port in (("connect", "pub"), ("catchup", "catchup"))]
        env = {"DTOLBUS_METRICS_PORT": str(ports["sink"]), "DTOLBUS_DSN": server.dsn}
        worker = held.enter_context(running("dtolbus-postgres", *at, env=env))

        def told(code: int) -> str:
            asked = run("dtolbus-postgres", "health", env={"DTOLBUS_METRICS_PORT": str(ports["sink"])})
            assert (asked.stdout + asked.stderr).count("\n") == 1
            return (asked.stdout + asked.stderr) if asked.returncode == code else ""

        recording.append(20)
        eventually(lambda: "healthy: sink postgres: stores; 20 records" in told(0), LONG_S)
        server.stop("fast")
        recording.append(20)
        eventually(lambda: health(ports["sink"])[0] == 503, LONG_S)
        assert told(1).startswith("not healthy: sink postgres: the sink has not stored for ")
        seen = Scraped(ports["sink"])
        assert seen.one("dtolbus_healthy") == 0
        assert seen.one("dtolbus_worker_commit_failures_total") > 0
        assert seen.one("dtolbus_worker_failing_seconds") > 5
        assert seen.one("dtolbus_worker_last_failure_timestamp_seconds") > 1.7e9
        server.restart()
        eventually(lambda: health(ports["sink"])[0] == 200, LONG_S)
        eventually(lambda: "40 records since its start, 0 behind" in told(0), LONG_S)
        worker.terminate()
        worker.wait(LONG_S)
        assert "does not answer" in told(1)


class RecordingRun:
    """A run that is written while the `with` block lasts."""

    def __init__(self, data: Path) -> None:
        self._writer = RunWriter(data / "journal", OLD)

    def append(self, count: int) -> None:
        for _ in range(count):
            self._writer.append(block(OLD, self._writer.next_index))

    def __enter__(self) -> "RecordingRun":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


def test_a_gateway_that_goes_is_told_by_its_sinks(tmp_path: Path) -> None:
    data = tmp_path / "data"
    pub, catchup, port = free_ports(3)
    with RecordingRun(data) as recording, ExitStack() as held:
        serve = ("dtolbus-gateway", "serve", str(data), "--pub-port", str(pub), "--catchup-port", str(catchup))
        gateway = held.enter_context(running(*serve))
        at = ("--connect", f"tcp://127.0.0.1:{pub}", "--catchup", f"tcp://127.0.0.1:{catchup}")
        out = ("--out", str(tmp_path / "s.sqlite"), "--metrics-port", str(port))
        held.enter_context(running("dtolbus-sqlite", *out, *at))
        recording.append(5)
        eventually(lambda: health(port)[0] == 200, LONG_S)
        gateway.terminate()
        gateway.wait(LONG_S)
        eventually(lambda: health(port)[0] == 503, LONG_S)
        assert health(port)[1]["problems"][0].startswith(f"the gateway at tcp://127.0.0.1:{pub} has not been heard")
        held.enter_context(running(*serve))
        eventually(lambda: health(port)[0] == 200, LONG_S)
        assert Scraped(port).one("dtolbus_worker_reconnects_total") > 0


@pytest.mark.parametrize(
    "words", [("dtolbus-sqlite", "--out", "s.sqlite"), ("dtolbus-gateway", "serve", "."), ("dtolbus", "up")]
)
def test_a_port_that_is_taken_ends_it_at_once(tmp_path: Path, words: tuple[str, ...]) -> None:
    with ExitStack() as held:
        (port,) = free_ports(1)
        (tmp_path / "other").mkdir()
        pub, catchup = free_ports()
        serve = ("serve", str(tmp_path / "other"), "--pub-port", str(pub), "--catchup-port", str(catchup))
        held.enter_context(running("dtolbus-gateway", *serve, "--metrics-port", str(port)))
        eventually(lambda: health(port)[0] == 200, LONG_S)
        places = [str(tmp_path / word) if word in (".", "s.sqlite") else word for word in words]
        if "up" in words:
            free = [str(free_port) for free_port in free_ports()]
            places += ["--data", str(tmp_path / "data"), "--pub-port", free[0], "--catchup-port", free[1]]
        failed = run(*places, "--metrics-port", str(port))
    assert failed.returncode == 3, failed.stderr
    assert f"port {port} is in use: stop what uses it, or choose another with --metrics-port" in failed.stderr
    assert failed.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which sockets a process has")
def test_nothing_is_served_where_no_port_is_asked_for(tmp_path: Path) -> None:
    data, (pub, catchup) = tmp_path / "data", free_ports()
    with RecordingRun(data) as recording, ExitStack() as held:
        serve = ("serve", str(data), "--pub-port", str(pub), "--catchup-port", str(catchup))
        held.enter_context(running("dtolbus-gateway", *serve))
        at = ("--connect", f"tcp://127.0.0.1:{pub}", "--catchup", f"tcp://127.0.0.1:{catchup}")
        worker = held.enter_context(running("dtolbus-sqlite", "--out", str(tmp_path / "s.sqlite"), *at))
        recording.append(5)
        eventually((data / "sinks" / "sqlite.json").exists, LONG_S)
        assert not listening(worker.pid)


def listening(pid: int) -> set[str]:
    """The ports at which a process listens, of IPv4."""
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {words[1] for words in lines if words[3] == "0A" and words[9] in own}


def test_each_part_of_a_stack_has_the_next_port_and_its_restarts_are_counted(tmp_path: Path) -> None:
    first = free_row(5)
    with Up(tmp_path / "data", "--sinks", "sqlite,csv", "--metrics-port", str(first)) as up:
        ports = {"up": first, "gateway": first + 1, "sqlite": first + 2, "csv": first + 3, "rig": first + 4}
        eventually(lambda: all(health(port)[0] == 200 for port in ports.values()), LONG_S)
        parts = [health(port)[1]["part"] for port in ports.values()]
        assert parts == ["up", "gateway", "sink sqlite", "sink csv", "producer sim0"]
        before = up.pids()
        os.kill(before["sink-sqlite"], 9)
        up.wait_for_pids("sink-sqlite", other_than=before)
        eventually(lambda: health(first + 2)[0] == 200, LONG_S)
        seen = Scraped(first)
        assert seen.one("dtolbus_restarts_total", child="sink-sqlite") == 1
        assert seen.one("dtolbus_restarts_total", child="gateway") == 0
        up.process.terminate()
        up.end()
    assert f"http://127.0.0.1:{first}/metrics" in up.output
    assert f"{first + 2} sink-sqlite" in up.output


def test_it_answers_two_questions_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (port, pub, catchup) = free_ports(3)
    serve = ("serve", str(tmp_path / "data"), "--pub-port", str(pub), "--catchup-port", str(catchup))
    with running("dtolbus-gateway", *serve, "--metrics-port", str(port)):
        eventually(lambda: health(port)[0] == 200, LONG_S)
        for path in ("/", "/metrics/../../etc/passwd", "/healthz"):
            assert get(port, path)[0] == 404
        for method in ("POST", "PUT", "DELETE", "HEAD"):
            assert get(port, "/metrics", method)[0] == 501
