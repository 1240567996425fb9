"""Connections that die without a word: no FIN, no RST, only silence. Everything is stored all the same."""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from tests.faults.netns import Network, network
from tests.producer.bus import eventually, free_ports
from tests.protocol.specimens import block, block_run

from dtolbus.registrations import read_registrations
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.verify import verify

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
END_S = 60.0


class Recording:
    """A run that grows by two hundred blocks a second, on a thread, until the `with` block is left."""

    def __init__(self, data: Path, before: int = 0) -> None:
        self.writer = RunWriter(data / "journal", RUN, sync_ms=5)
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        for _ in range(before):
            self._append()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> int:
        """End the run, if that was not done, and return its number of blocks."""
        self._stop.set()
        self._thread.join()
        self.writer.close()
        return self.count

    def _append(self) -> None:
        self.writer.append(block(RUN, self.count))
        self.count += 1

    def _write(self) -> None:
        while not self._stop.wait(0.005):
            self._append()


@contextlib.contextmanager
def stack(net: Network, folder: Path, *gateway: str) -> Iterator[tuple[list[int], "subprocess.Popen[bytes]"]]:
    """A gateway and a worker on the data folder; gives the ports, PUB first, and the worker."""
    pub, catchup = ports = free_ports()
    at = ["--pub-port", str(pub), "--catchup-port", str(catchup)]
    to = ["--connect", f"tcp://127.0.0.1:{pub}", "--catchup", f"tcp://127.0.0.1:{catchup}"]
    sink = ["--out", str(folder / "bus.sqlite"), "--until-end", "--max-age", "0.1", "--log-level", "info"]
    with (
        net.running("dtolbus-gateway", "serve", str(folder), *at, *gateway, log=folder / "gateway.log"),
        net.running("dtolbus-sqlite", *to, *sink, log=folder / "worker.log") as worker,
    ):
        yield ports, worker


def position(data: Path) -> int:
    return sum(where.position for sink in read_registrations(data) for where in sink.positions.values())


def ends(worker: "subprocess.Popen[bytes]", folder: Path) -> None:
    assert worker.wait(END_S) == 0, (folder / "worker.log").read_text()


def says(folder: Path, text: str, since: int = 0) -> Callable[[], bool]:
    return lambda: text in (folder / "worker.log").read_text()[since:]


def assert_stored(data: Path, count: int) -> None:
    certificate = verify(data)
    assert certificate.complete, certificate
    assert [(line.expected, line.stored) for line in certificate.lines] == [(count, count)]


def test_connections_that_fall_silent_are_made_anew_and_nothing_is_missing(tmp_path: Path) -> None:
    """All packets are dropped for longer than a SUB waits; then new connections work, the old ones never again."""
    with network() as net, Recording(tmp_path) as recording, stack(net, tmp_path) as (ports, worker):
        eventually(lambda: position(tmp_path) > 100)
        old = net.clients(*ports)
        assert len(old) == 2
        net.drop(ports)
        before = recording.count
        eventually(says(tmp_path, "nothing heard, trying on"))
        net.drop(old)
        eventually(lambda: position(tmp_path) > before + 100)
        recording.end()
        ends(worker, tmp_path)
    assert_stored(tmp_path, recording.count)


@pytest.mark.soak
def test_a_catch_up_that_falls_silent_in_the_middle_of_a_fetch_is_asked_again(tmp_path: Path) -> None:
    with network() as net, Recording(tmp_path, before=5000) as recording:
        with stack(net, tmp_path, "--catchup-mb-s", "0.5") as (ports, worker):
            eventually(lambda: 100 < position(tmp_path) < 3000)
            old = net.clients(ports[1])
            net.drop([ports[1]])
            eventually(says(tmp_path, "catch-up connects anew"))
            net.drop(old)
            recording.end()
            ends(worker, tmp_path)
    assert_stored(tmp_path, recording.count)


@pytest.mark.soak
@pytest.mark.parametrize("again", [False, True])
def test_a_live_path_that_falls_silent_alone(tmp_path: Path, again: bool) -> None:
    """The old connection comes back, or never again."""
    with network() as net, Recording(tmp_path) as recording, stack(net, tmp_path) as (ports, worker):
        eventually(lambda: position(tmp_path) > 100)
        old = net.clients(ports[0])
        net.drop([ports[0]])
        before = recording.count
        eventually(says(tmp_path, "nothing heard, trying on"))
        net.drop([] if again else old)
        eventually(lambda: position(tmp_path) > before + 100)
        recording.end()
        ends(worker, tmp_path)
    assert_stored(tmp_path, recording.count)


@pytest.mark.soak
def test_a_gateway_that_dies_unseen_and_is_away_for_long(tmp_path: Path) -> None:
    """The worker tries on for as long as it takes, and says once that it hears nothing."""
    with network() as net, Recording(tmp_path) as recording, stack(net, tmp_path) as (ports, worker):
        eventually(lambda: position(tmp_path) > 100)
        net.drop(ports)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(45)  # what is waited for is that nothing happens
        assert (tmp_path / "worker.log").read_text().count("nothing heard") == 1
        before = recording.count
        net.drop([])
        eventually(lambda: position(tmp_path) > before)
        recording.end()
        ends(worker, tmp_path)
    assert_stored(tmp_path, recording.count)
