"""A sink that stores nothing under `dtolbus up`: the terminal says so while the recording runs, and when it is over."""

import os
import signal
import sys
from pathlib import Path

import pytest
from tests.e2e.stacks import KILL, TIMEOUT_S, Up, assert_complete, runs
from tests.producer.bus import eventually


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_a_sink_that_hangs_is_told_and_told_again_when_it_is_well(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--sinks", "sqlite,csv") as up:
        up.wait_for_positions(4, ("sqlite", "csv"))
        sink = up.pids()["sink-sqlite"]
        os.kill(sink, signal.SIGSTOP)
        told = up.error_line()
        os.kill(sink, signal.SIGCONT)
        again = up.error_line()
        up.process.send_signal(signal.SIGINT)
        assert_complete(up, up.end())
    assert told.startswith("sqlite has stored nothing for 1")
    assert told.endswith(" records behind: it does not say why\n")
    assert again.startswith("sqlite stores again after 1")
    assert up.errors == ""


def is_ready(lock: Path, other_than: int) -> bool:
    """Say whether another server than that one runs: one that is killed while it starts is not told once more."""
    try:
        lines = lock.read_text().split("\n")
    except FileNotFoundError:
        return False
    return lines[0] != str(other_than) and any(line.strip() == "ready" for line in lines[1:])


def test_the_embedded_server_that_dies_is_started_again(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--sinks", "postgres") as up:
        up.wait_for_positions(4, ("postgres",))
        lock = up.data / "postgres" / "postmaster.pid"
        for least in (8, 16):
            server = int(lock.read_text().split()[0])
            os.kill(server, KILL)
            told = up.error_line()
            assert told == f"the PostgreSQL server in {up.data / 'postgres'} died; it is started again\n"
            eventually(lambda before=server: is_ready(lock, before), timeout_s=TIMEOUT_S)
            had = sum(position.position for position in up.registered()[0].positions.values())
            up.wait_for_positions(had + least, ("postgres",))
        up.process.send_signal(signal.SIGINT)
        assert_complete(up, up.end())
    assert up.errors == ""
    assert not lock.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_a_sink_that_is_long_in_opening_does_not_keep_the_boards_from_recording(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--sinks", "sqlite,csv") as up:
        sink = up.wait_for_pids("sink-sqlite")["sink-sqlite"]
        os.kill(sink, signal.SIGSTOP)
        assert up.error_line() == "sqlite is still opening what it has; it stores later what comes meanwhile\n"
        up.wait_for_positions(4, ("csv",))
        os.kill(sink, signal.SIGCONT)
        up.wait_for_positions(4, ("sqlite",))
        up.process.send_signal(signal.SIGINT)
        assert_complete(up, up.end())


def test_a_schema_that_another_worker_has_stops_up_before_the_boards_start(tmp_path: Path, postgres_dsn: str) -> None:
    options = ("--sinks", "postgres", "--dsn", postgres_dsn)
    with Up(tmp_path / "first", *options) as first:
        first.wait_for_positions(4, ("postgres",))
        with Up(tmp_path / "second", *options, "--duration", "1") as second:
            code = second.end()
    assert (code, second.errors.count("\n")) == (3, 1), second.errors
    assert "is in use by another worker, dtolbus-postgres (pid" in second.errors
    assert not runs(second.data)
