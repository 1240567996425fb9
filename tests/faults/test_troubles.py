"""What goes wrong around a recording and does not end it: `dtolbus up` says whose trouble it is, and what to do."""

import signal
from pathlib import Path

from tests.e2e.stacks import Up, assert_complete, runs
from tests.producer.bus import eventually

from dtolbus.registrations import registration_path


def test_a_sink_that_cannot_be_registered_is_told_at_once_and_how_to_go_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    in_the_way = registration_path(data, "csv")
    in_the_way.mkdir(parents=True)
    with Up(data, "--sinks", "sqlite,csv") as up:
        told = up.error_line()
        up.wait_for_positions(4, ("sqlite",))
        up.process.send_signal(signal.SIGINT)
        code = up.end()
    assert told.startswith("csv cannot be registered now: "), told
    assert (code, "still opening" in up.errors, "makes no progress" in up.errors) == (1, False, False), up.errors
    assert "csv could not be registered" in up.errors
    assert f"`dtolbus up --data {data} --catch-up --sinks sqlite,csv`" in up.errors
    assert "sqlite" in up.output.splitlines()[-3]
    assert "has registered in" not in up.errors
    assert "csv could not be registered" in (data / "logs" / "certificate.txt").read_text()
    in_the_way.rmdir()
    with Up(data, "--catch-up", "--sinks", "sqlite,csv") as again:
        assert_complete(again, again.end())


def test_a_run_that_is_renamed_while_it_is_recorded_keeps_nobody_waiting(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Up(data, "--sinks", "sqlite,csv") as up:
        up.wait_for_positions(4, ("sqlite", "csv"))
        (folder,) = [found.path for found in runs(data)["sim1"]]
        away = folder.rename(folder.with_name("renamed"))
        told = up.error_line()
        while folder.name not in told:
            told = up.error_line()
        up.process.send_signal(signal.SIGINT)
        code = up.end()
    assert code == 1
    assert f"{folder.name}: its folder went from {folder.parent} after " in up.errors
    assert "put it back under that name" in up.errors
    assert "makes no progress" not in up.errors
    acquired = (data / "logs" / "acquisition-sim1.log").read_text()
    assert f"{folder} is not there any more: it was renamed, moved or deleted" in acquired
    assert "make room" not in acquired
    away.rename(folder)
    with Up(data, "--catch-up") as again:
        assert_complete(again, again.end())
    eventually(lambda: all(found.status().state != "running" for found in runs(data)["sim1"]))
