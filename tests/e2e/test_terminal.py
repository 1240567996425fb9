"""`dtolbus up` whose terminal is closed, or whose reader goes away: it ends in order, and what it said is kept."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.stacks import KILL, TIMEOUT_S, environment, runs
from tests.producer.bus import eventually, free_ports

from dtolbus.registrations import read_registrations
from dtolbus_producer.certifying import CERTIFICATE_FILE

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""


def words_of(data: Path, *options: str) -> list[str]:
    pub, catchup = free_ports()
    ports = ["--pub-port", str(pub), "--catchup-port", str(catchup)]
    return ["dtolbus", "up", "--data", str(data), *ports, "--sinks", "sqlite,csv", *options]


@contextmanager
def on_a_terminal(words: list[str]) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run a command that leads the session of a terminal; yield it and the terminal's other end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=environment(TERM="xterm"),
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        if process.poll() is None:
            process.send_signal(KILL)
        process.wait()


def is_stored(data: Path) -> bool:
    return sum(p.position for sink in read_registrations(data) for p in sink.positions.values()) >= 4


def test_a_terminal_that_is_closed_ends_it_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with on_a_terminal(words_of(data)) as (process, terminal):
        shown = b""
        while not is_stored(data):
            assert process.poll() is None, shown
            shown += os.read(terminal, 4096)
        assert b"dtolbus up" in shown
        os.close(terminal)
        assert process.wait(TIMEOUT_S) == 0
    assert {folder.status().state for found in runs(data).values() for folder in found} == {"ended"}
    assert "COMPLETE: nothing is missing" in (data / "logs" / CERTIFICATE_FILE).read_text()


def test_a_reader_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-m", *words_of(data, "--duration", "4")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"boards")
        process.stdout.close()
        process.stderr.close()
        eventually(lambda: is_stored(data))
        assert process.wait(TIMEOUT_S) == 0
    assert [folder.head() for found in runs(data).values() for folder in found] == [40, 20]
    assert "COMPLETE: nothing is missing" in (data / "logs" / CERTIFICATE_FILE).read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_end_nothing(tmp_path: Path, closed: str) -> None:
    data = tmp_path / "data"
    words = [sys.executable, "-m", *words_of(data, "--duration", "1")]
    process = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        timeout=TIMEOUT_S,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert "COMPLETE: nothing is missing" in (data / "logs" / CERTIFICATE_FILE).read_text()
