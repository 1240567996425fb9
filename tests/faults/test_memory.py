"""A database that is away under a fast stream: the worker's memory stays bounded, and the journal fills in later."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.commands import running
from tests.e2e.test_late import Bus
from tests.faults.own_postgres import own_postgres
from tests.protocol.specimens import block, block_run

from dtolbus.registrations import read_registrations
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.verify import verify

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

MIB = 1 << 20
CHANNELS, SAMPLES = 8, 62_500
RUN = block_run("0190a5f4-0000-7000-8000-000000000001", CHANNELS, rate_hz=1_250_000.0, block_samples=SAMPLES)
BLOCK_S = SAMPLES / RUN.rate_hz
"""A block of 1 MB each 50 ms: 20 MB/s."""
AWAY_S = 60.0
BOUND = 256 * MIB
CATCH_UP_S = 300.0


class Board:
    """Writes the run at its rate, on a thread, until it is told to end."""

    def __init__(self, data: Path) -> None:
        self.count = 0
        self._writer = RunWriter(data / "journal", RUN)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        begun = time.monotonic()
        codes = np.random.default_rng(7).integers(0, 65536, (CHANNELS, SAMPLES)).astype(np.uint16)
        while not self._stop.wait(max(0.0, begun + self.count * BLOCK_S - time.monotonic())):
            self._writer.append(block(RUN, self.count, SAMPLES, codes=np.roll(codes, self.count)))
            self.count += 1

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._writer.close()


def memory(pid: int, key: str) -> int:
    """VmRSS or VmHWM (the most VmRSS was) of a process, bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def stored(data: Path) -> int:
    return sum(position.position for sink in read_registrations(data) for position in sink.positions.values())


def wait_for(count: int, data: Path, what: str) -> None:
    end = time.monotonic() + CATCH_UP_S
    while stored(data) < count:
        assert time.monotonic() < end, f"{what}: {stored(data)} of {count} stored"
        time.sleep(0.1)


def test_a_database_away_for_a_minute_at_20_mb_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus(tmp_path / "data")
    (bus.data / "journal").mkdir(parents=True)
    with own_postgres() as server, bus.gateway():
        monkeypatch.setenv("DTOLBUS_DSN", server.dsn)
        with running("dtolbus-postgres", *bus.connect, env={"DTOLBUS_DSN": server.dsn}) as worker:
            board = Board(bus.data)
            try:
                wait_for(40, bus.data, "before")
                before = memory(worker.pid, "VmRSS")
                server.kill()
                first, begun = board.count, time.monotonic()
                time.sleep(AWAY_S)  # the fault itself
                rate_mb_s = (board.count - first) * CHANNELS * SAMPLES * 2 / 1e6 / (time.monotonic() - begun)
                away = memory(worker.pid, "VmHWM")
                server.restart()
            finally:
                board.end()
            wait_for(board.count, bus.data, "after")
            most = memory(worker.pid, "VmHWM")
        told = f"before {before / MIB:.0f} MiB, away {away / MIB:.0f}, most {most / MIB:.0f}, at {rate_mb_s:.1f} MB/s"
        print(told)
        assert rate_mb_s > 15, told
        assert most - before <= BOUND, told
        certificate = verify(bus.data)
    assert certificate.complete, certificate
    assert [(line.stored, line.summaries) for line in certificate.lines] == [(board.count, board.count)]
