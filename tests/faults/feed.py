"""A journal that grows while a sink stores it: two runs, a gateway, and workers to hurt."""

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.commands import command, environment
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus.keys import Keys
from dtolbus.records import RunInfo
from dtolbus.registrations import read_registrations
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.verify import verify
from dtolbus_workers.worker import WorkerConfig, run_worker

BLOCKS = block_run("0190a5f4-0000-7000-8000-000000000001")
READINGS = reading_run("0190a5f4-0000-7000-8000-000000000002")
_PACE_S = 0.004
_END_S = 90.0


class Feed:
    """A gateway on a data folder, and a thread that writes blocks and readings until `end`."""

    def __init__(
        self, data: Path, runs: tuple[RunInfo, RunInfo] = (BLOCKS, READINGS), samples: int = 10, **gateway: Any
    ) -> None:
        self.data = data
        self.gateway = RunningGateway(data, **gateway)
        self._samples = samples
        self._writers = [RunWriter(data / "journal", run, sync_ms=1) for run in runs]
        self._runs = runs
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Self:
        self.gateway.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.end()
        finally:
            self.gateway.__exit__(kind, error, at)

    def _write(self) -> None:
        blocks, readings = self._runs
        try:
            index = 0
            while not self._stop.wait(_PACE_S):  # the board's pace
                self._writers[0].append(block(blocks, index, self._samples))
                self._writers[1].append(reading(readings, index))
                index += 1
        except BaseException as failure:
            self._failure = failure

    def end(self) -> None:
        """End both runs."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            for writer in self._writers:
                writer.close()
        if self._failure is not None:
            raise self._failure

    @property
    def head(self) -> int:
        """Records of both runs that are durable."""
        return sum(writer.head for writer in self._writers)

    def grows(self, count: int = 40) -> None:
        """Wait until the journal has so many records more."""
        wanted = self.head + count
        eventually(lambda: self.head >= wanted)

    def stored(self, name: str) -> int:
        """How many records the sink has acknowledged."""
        known = [sink for sink in read_registrations(self.data) if sink.name == name]
        return sum(position.position for sink in known for position in sink.positions.values())

    def advances(self, name: str, count: int = 40) -> None:
        """Wait until the sink has so many records more."""
        wanted = self.stored(name) + count
        eventually(lambda: self.stored(name) >= wanted)

    def catches_up(self, *names: str) -> None:
        """End the runs, and wait until the sinks have all."""
        self.end()
        eventually(lambda: all(self.stored(name) == self.head for name in names))

    @property
    def connect(self) -> tuple[str, ...]:
        """The options that lead to the gateway."""
        at = self.gateway.endpoints
        return "--connect", at.connect, "--catchup", at.catchup or ""

    @contextlib.contextmanager
    def process(self, kind: str, *options: str, log: Path, **env: str) -> "Iterator[subprocess.Popen[bytes]]":
        """Run a worker as a process, its log in a file; it ends with the block."""
        words = [f"dtolbus-{kind}", *self.connect, "--max-age", "0.05", *options]
        with log.open("ab") as file:
            process = subprocess.Popen(
                command(*words), env=environment(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def thread(
        self, name: str, destination: Any, place: str, keys: Keys | None = None, **options: str
    ) -> "WorkerThread":
        """Return a worker on a thread; it works while its `with` block lasts."""
        at = self.gateway.endpoints_for(keys)
        return WorkerThread(
            destination, WorkerConfig(name, at, place, options=options, policy=BatchPolicy(records=50, age_s=0.05))
        )


class WorkerThread:
    """A worker that runs until the `with` block is left; `failure` is what ended it before."""

    def __init__(self, destination: Any, config: WorkerConfig) -> None:
        self.failure: BaseException | None = None
        self._destination, self._config = destination, config
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(run_worker(self._destination, self._config, self._stop))
        except BaseException as failure:
            self.failure = failure

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_END_S)
        assert not self._thread.is_alive()
        if self.failure is not None and error is None:
            raise self.failure

    def ended(self) -> BaseException | None:
        """Wait until it has ended by itself; return why, and forget it."""
        self._thread.join(_END_S)
        assert not self._thread.is_alive()
        failure, self.failure = self.failure, None
        return failure


def assert_complete(data: Path, sinks: set[str], runs: int = 2) -> None:
    """Assert that `verify` finds each record of each run in each sink once, with its values."""
    certificate = verify(data)
    assert certificate.complete, certificate
    assert {line.sink for line in certificate.lines} == sinks
    assert len(certificate.lines) == runs * len(sinks)
    assert all(line.stored == line.expected > 0 and line.samples > 0 for line in certificate.lines), certificate
