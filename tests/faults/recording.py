"""A run that grows, with a gateway and a worker as child processes that store it."""

import contextlib
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.e2e.commands import TIMEOUT_S, command, environment
from tests.producer.bus import free_ports
from tests.protocol.specimens import block, block_run

from dtolbus.registrations import read_registrations
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.verify import verify

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
END_S = 60.0


class Recording:
    """Two hundred blocks a second, on a thread, until the `with` block is left."""

    def __init__(self, data: Path, before: int = 0) -> None:
        self.count = 0
        self._writer = RunWriter(data / "journal", RUN, sync_ms=5)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        for _ in range(before):
            self._append()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the run, if that was not done."""
        self._stop.set()
        self._thread.join()
        self._writer.close()

    def _append(self) -> None:
        self._writer.append(block(RUN, self.count))
        self.count += 1

    def _write(self) -> None:
        while not self._stop.wait(0.005):
            self._append()


class Stack:
    """A gateway and a worker on a data folder; they run while the `with` block lasts."""

    def __init__(self, data: Path, *gateway: str, within: Sequence[str] = ()) -> None:
        self.data = data
        self.ports = self.pub_port, self.catchup_port = free_ports()
        self._gateway, self._within = gateway, within
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        pub, catchup = map(str, self.ports)
        at = ["--pub-port", pub, "--catchup-port", catchup, *self._gateway]
        self.gateway = self._started("gateway", "dtolbus-gateway", "serve", str(self.data), *at)
        to = ["--connect", f"tcp://127.0.0.1:{pub}", "--catchup", f"tcp://127.0.0.1:{catchup}"]
        sink = ["--out", str(self.data / "bus.sqlite"), "--until-end", "--max-age", "0.1", "--log-level", "info"]
        self.worker = self._started("worker", "dtolbus-sqlite", *to, *sink)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def log(self, name: str) -> str:
        """What the gateway or the worker has said."""
        return (self.data / f"{name}.log").read_text()

    def position(self) -> int:
        """How many records the worker has stored and acknowledged."""
        return sum(where.position for sink in read_registrations(self.data) for where in sink.positions.values())

    def position_in(self, run_id: str) -> int:
        """How many records of a run the worker has stored and acknowledged."""
        found = (sink.positions.get(run_id) for sink in read_registrations(self.data))
        return sum(where.position for where in found if where is not None)

    def assert_stored(self, *counts: int) -> None:
        """Wait for the worker's end; assert that it stored runs of so many records, and nothing wrong."""
        assert self.worker.wait(END_S) == 0, self.log("worker")
        certificate = verify(self.data)
        assert certificate.complete, certificate
        assert [(line.expected, line.stored) for line in certificate.lines] == [(count, count) for count in counts]

    def _started(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        with (self.data / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._within, *command(*words)], env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._held.callback(_end, process)
        return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait(TIMEOUT_S)
