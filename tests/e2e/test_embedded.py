"""The PostgreSQL server inside a data folder: whoever needs it has it, also once it was killed."""

import os
import shutil
from pathlib import Path

from tests.e2e.commands import run
from tests.e2e.stacks import KILL, Up, assert_complete
from tests.producer.bus import eventually

from dtolbus_producer.postgres_embedded import EmbeddedPostgres


def is_served(data: Path) -> bool:
    return (data / "postgres" / "postmaster.pid").exists()


def server_of(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().split()[0])


def test_verify_starts_the_server_of_the_folder_and_stops_it(tmp_path: Path) -> None:
    with Up(tmp_path / "old", "--duration", "1", "--sinks", "postgres,csv") as up:
        assert_complete(up, up.end())
    eventually(lambda: not is_served(up.data))
    shutil.move(tmp_path / "old", tmp_path / "new")
    for _ in range(2):
        done = run("dtolbus", "verify", "--data", str(tmp_path / "new"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "postgres  " in done.stdout
        assert not is_served(tmp_path / "new")


def test_verify_leaves_a_server_that_runs(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--sinks", "postgres,csv", "--duration", "3") as up:
        up.wait_for_positions(4, ("postgres",))
        before = server_of(up.data)
        run("dtolbus", "verify", "--data", str(up.data))
        assert server_of(up.data) == before
        assert_complete(up, up.end())
    assert up.errors == ""
    assert not is_served(up.data)


def test_a_server_that_was_killed_is_there_again_for_the_certificate(tmp_path: Path) -> None:
    with Up(tmp_path, "--duration", "1", "--sinks", "postgres,csv") as up:
        assert_complete(up, up.end())
    with EmbeddedPostgres(tmp_path) as server:
        killed = server_of(tmp_path)
        os.kill(killed, KILL)
        eventually(lambda: server.revive() is not None)
        assert server_of(tmp_path) != killed
        assert server.revive() is None
        done = run("dtolbus", "verify", "--data", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert not is_served(tmp_path)
