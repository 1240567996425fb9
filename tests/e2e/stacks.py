"""`dtolbus up` as a child process, to watch, to kill parts of, and to look at what it leaves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.producer.bus import free_ports

from dtolbus.registrations import Registration, read_registrations, readable_registrations
from dtolbus.runs import RunFolder, list_runs

TIMEOUT_S = 90.0
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def environment(**added: str) -> dict[str, str]:
    return {**{key: value for key, value in os.environ.items() if not key.startswith("DTOLBUS_")}, **added}


class Up:
    """One `dtolbus up` with ports of its own; ended, however it stands, when the `with` block is left."""

    def __init__(self, data: Path, *options: str, ports: Sequence[int] = (), **env: str) -> None:
        self.data = data
        pub, catchup = ports or free_ports()
        ports = ["--pub-port", str(pub), "--catchup-port", str(catchup)]
        command = [sys.executable, "-m", "dtolbus", "up", "--data", str(data), *ports, *options]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**env),
        )
        self.output = self.errors = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        self.output, self.errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode

    def error_line(self) -> str:
        """The next line that it says on stderr; it must come."""
        found: list[str] = []
        assert self.process.stderr is not None
        reader = threading.Thread(
            target=lambda read: found.append(read()), args=(self.process.stderr.readline,), daemon=True
        )
        reader.start()
        reader.join(TIMEOUT_S)
        assert found, "nothing is said"
        return found[0]

    def pids(self) -> dict[str, int]:
        """The processes that run, by the parts' names."""
        try:
            found: dict[str, Any] = json.loads((self.data / "logs" / "pids.json").read_text())
        except FileNotFoundError:
            return {}
        return {name: pid for name, pid in found.items() if pid is not None}

    def wait_for_pids(self, *names: str, other_than: dict[str, int] | None = None) -> dict[str, int]:
        """Wait until all these parts run, under other pids than those given; return all pids."""
        before = other_than or {}
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.communicate()
            pids = self.pids()
            if all(name in pids and pids[name] != before.get(name) for name in names):
                return pids
            time.sleep(0.02)
        raise AssertionError(f"{names} do not run: {self.pids()}")

    def wait_for_positions(
        self, least: int, sinks: tuple[str, ...] = ("sqlite", "csv", "jsonl"), *, runs: int = 1
    ) -> None:
        """Wait until these sinks have stored so many records each, of so many runs (Parquet commits seldom)."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.communicate()
            had = {one.name: [p.position for p in one.positions.values() if p.position] for one in self.registered()}
            if all(sum(had.get(name, ())) >= least and len(had.get(name, ())) >= runs for name in sinks):
                return
            time.sleep(0.02)
        raise AssertionError(f"the sinks do not get on: {self.registered()}")

    def registered(self) -> list[Registration]:
        """The sinks that have said Hello."""
        return readable_registrations(self.data)[0]


def runs(data: Path) -> dict[str, list[RunFolder]]:
    """The runs of the journal by device."""
    found: dict[str, list[RunFolder]] = {}
    for folder in list_runs(data / "journal"):
        found.setdefault(folder.info.device, []).append(folder)
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_complete(up: Up, code: int) -> None:
    assert code == 0, up.output[-3000:] + up.errors[-3000:]
    assert "\nCOMPLETE: " in up.output
    for sink in read_registrations(up.data):
        for folder in list_runs(up.data / "journal"):
            status = folder.status()
            assert status.state != "running"
            if sink.takes(status.info):
                assert sink.positions[status.info.run_id].position == status.head
