"""`dtolbus up --catch-up`: the sinks that a folder knows get what they lack, as they were run, without a board."""

import shutil
import signal
from pathlib import Path

import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import KILL, Up, assert_complete, is_alive, runs
from tests.producer.bus import eventually
from tests.protocol.specimens import block, block_run

from dtolbus.records import RunInfo
from dtolbus.registrations import Registration, encode_registration, read_registrations, registration_path
from dtolbus_producer.journal import RunWriter

RUN = block_run("0190a5f4-0000-7000-8000-000000000001", channels=8, block_samples=1000)
RECORDS = 300


def journal(data: Path) -> None:
    """A run that is over, of 16 kB a record."""
    writer = RunWriter(data / "journal", RUN)
    for index in range(RECORDS):
        writer.append(block(RUN, index, samples=1000))
    writer.close()


def known(data: Path) -> dict[str, tuple[str, tuple[str, ...], dict[str, str]]]:
    """How the sinks of a folder are run."""
    return {sink.name: (sink.place, sink.topics, sink.options) for sink in read_registrations(data)}


def test_what_a_killed_up_left_is_stored_by_the_sinks_as_they_were_run(tmp_path: Path) -> None:
    config = tmp_path / "dtolbus.toml"
    config.write_text(
        '[[device]]\nname = "rig"\n[[device.task]]\nname = "fast"\nrate_hz = 1000\nchannels = ["a"]\n'
        '[[sink]]\nkind = "sqlite"\nname = "lab"\nblocks = "both"\n'
        f'[[sink]]\nkind = "parquet"\npath = "{tmp_path / "elsewhere"}"\n'
        '[[sink]]\nkind = "csv"\nblocks = "summary"\ntopics = ["block/rig/"]\noptions = { since = "2026-01-01" }\n'
    )
    with Up(tmp_path / "data", "--config", str(config)) as up:
        up.wait_for_positions(2, ("lab", "csv"))
        before, pids = known(up.data), up.pids().values()
        up.process.send_signal(KILL)
        eventually(lambda: not any(map(is_alive, pids)))
    with Up(tmp_path / "data", "--catch-up") as again:
        assert_complete(again, again.end())
    for name, (place, _, _) in before.items():
        assert f"{name} → {place}" in again.output
    assert known(up.data) == before
    assert {folder.status().state for folder in runs(up.data)["rig"]} == {"interrupted"}
    assert "sqlite" not in {path.stem for path in up.data.iterdir()}


def test_ctrl_c_ends_it_and_the_rest_comes_the_next_time(tmp_path: Path) -> None:
    config = tmp_path / "dtolbus.toml"
    config.write_text(
        '[[device]]\nname = "rig"\n[[device.task]]\nname = "fast"\nrate_hz = 1000\nchannels = ["a"]\n'
        '[gateway]\ncatchup_mb_s = 0.1\n[[sink]]\nkind = "sqlite"\nname = "lab"\nblocks = "samples"\n'
    )
    journal(tmp_path / "data")
    with Up(tmp_path / "data", "--catch-up", "--config", str(config)) as up:
        up.wait_for_positions(10, ("lab",))
        up.process.send_signal(signal.SIGINT)
        assert up.end() == 1
    assert "records missing; `dtolbus up --catch-up`, or the start of its worker, fills them in" in up.output
    assert up.errors == ""
    with Up(tmp_path / "data", "--catch-up") as again:
        assert_complete(again, again.end())
    (lab,) = read_registrations(up.data)
    assert (lab.options["blocks"], lab.positions[RUN.run_id].position) == ("samples", RECORDS)


def test_a_folder_that_was_moved_keeps_its_sinks(tmp_path: Path) -> None:
    with Up(tmp_path / "old", "--duration", "0.5", "--sinks", "sqlite,csv") as up:
        assert_complete(up, up.end())
    shutil.move(tmp_path / "old", tmp_path / "new")
    journal(tmp_path / "new")
    with Up(tmp_path / "new", "--catch-up") as again:
        code = again.end()
    assert (code, (tmp_path / "old").exists()) == (0, False), again.errors
    assert f"sqlite → {tmp_path / 'new' / 'dtolbus.sqlite'}" in again.output


@pytest.mark.parametrize(
    ("has_journal", "sink", "options", "said"),
    [
        (False, None, [], "holds no journal"),
        (True, None, [], "no sink of this machine has registered"),
        (True, ("parquet", "/nowhere/at/all", "another-pc"), [], "it runs on another-pc"),
        (True, ("kafka", "kafka://broker", None), [], "kafka is no kind of sink"),
        (
            True,
            ("postgres", "postgresql://db:5432/lab.public", None),
            [],
            "db:5432/lab.public, of which no user and no",
        ),
        (True, None, ["--blocks", "both"], "--blocks and --catch-up: the sinks store blocks as they did"),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path, has_journal: bool, sink: tuple[str, str, str | None] | None, options: list[str], said: str
) -> None:
    if has_journal:
        journal(tmp_path)
    if sink is not None:
        kind, place, host = sink
        found = Registration(
            name="one", sink=kind, place=place, destination_id="x", options={} if host is None else {"host": host}
        )
        path = registration_path(tmp_path, "one")
        path.parent.mkdir()
        path.write_bytes(encode_registration(found))
    failed = run("dtolbus", "up", "--data", str(tmp_path), "--catch-up", *options)
    assert failed.returncode == 2
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_database_gets_what_it_lacks_once_its_dsn_is_given(tmp_path: Path, postgres_dsn: str) -> None:
    recorded: list[RunInfo] = []
    with Up(tmp_path / "data", "--duration", "0.5", "--sinks", "postgres", DTOLBUS_DSN=postgres_dsn) as up:
        assert_complete(up, up.end())
    recorded += [folder.info for found in runs(up.data).values() for folder in found]
    journal(up.data)
    with Up(up.data, "--catch-up", DTOLBUS_DSN=postgres_dsn) as again:
        assert_complete(again, again.end())
    (sink,) = read_registrations(up.data)
    assert sink.positions.keys() == {*(info.run_id for info in recorded), RUN.run_id}


def test_the_embedded_database_is_known(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "0.5", "--sinks", "postgres") as up:
        assert_complete(up, up.end())
    journal(up.data)
    with Up(up.data, "--catch-up") as again:
        assert_complete(again, again.end())
    assert "(embedded server)" in again.output
