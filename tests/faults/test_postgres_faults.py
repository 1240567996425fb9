"""A Postgres that dies, stops, stands still, fills up, or is changed under the worker: nothing lost, nothing twice."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.feed import Feed, WorkerThread, assert_complete
from tests.faults.own_postgres import OwnPostgres, own_postgres

from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a server of its own is watched through /proc")

SINK = "postgres"


@pytest.fixture(scope="module")
def module_server() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def server(module_server: OwnPostgres) -> OwnPostgres:
    """The server, running."""
    if not module_server.is_running:
        module_server.restart()
    module_server.thaw()
    return module_server


@pytest.fixture
def dsn(server: OwnPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh database, which `verify` finds too."""
    with server.database() as dsn:
        monkeypatch.setenv("DTOLBUS_DSN", dsn)
        yield dsn


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    with Feed(tmp_path / "data") as feed:
        yield feed


def worker(feed: Feed, dsn: str, schema: str = "public", command_timeout_s: float = 10.0) -> WorkerThread:
    config = PostgresConfig(dsn=dsn, schema=schema, command_timeout_s=command_timeout_s)
    destination = PostgresDestination(config, blocks="both", lock_timeout_s=5.0)
    return feed.thread(SINK, destination, config.target(), blocks="both", schema=schema)


def test_a_server_killed_twice_while_a_run_is_recorded(
    server: OwnPostgres, dsn: str, feed: Feed, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with feed.process("postgres", "--blocks", "both", log=log, DTOLBUS_DSN=dsn) as process:
        for _ in range(2):
            feed.advances(SINK)
            server.kill()
            feed.grows()
            server.restart()
        feed.advances(SINK)
        feed.catches_up(SINK)
        assert process.poll() is None, log.read_text()
    assert "commit failed, trying again" in log.read_text()
    assert_complete(feed.data, {SINK})


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_stopped_and_started_again_during_commits(server: OwnPostgres, dsn: str, feed: Feed, how: str) -> None:
    with worker(feed, dsn):
        for _ in range(2):
            feed.advances(SINK)
            server.stop(how)  # type: ignore[arg-type]
            server.restart()
        feed.catches_up(SINK)
    assert_complete(feed.data, {SINK})
