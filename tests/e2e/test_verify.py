"""`dtolbus verify` never calls complete what it could not compare."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.commands import run
from tests.e2e.folders import as_it_was
from tests.e2e.test_worker import READINGS, RUN, config, work
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, reading

from dtolbus.keyring import KeyRing
from dtolbus.registrations import read_registrations
from dtolbus_producer import certifying
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.text_destination import CsvDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.verify_remote import sinks_at, verify_remote


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of two runs, stored by SQLite and CSV."""
    data = tmp_path_factory.mktemp("finished") / "data"
    for info, make, count in ((RUN, block, 12), (READINGS, reading, 7)):
        writer = RunWriter(data / "journal", info)
        for index in range(count):
            writer.append(make(info, index))  # type: ignore[operator]
        writer.close()
    with RunningGateway(data) as gateway:
        place = str(data / "lab.sqlite")
        work(SqliteDestination(place), config(gateway, name="sqlite", place=place))
        place = str(data / "csv")
        settings = config(gateway, name="csv", place=place)
        topics = type(settings.at)(settings.at.connect, settings.at.catchup, ("reading/",))
        work(CsvDestination(place), config(gateway, name="csv", place=place, at=topics))
    return data


@pytest.fixture
def data(finished: Path) -> Path:
    """That folder, as it was, at its own place."""
    return as_it_was(finished)


def test_what_is_complete_is_said_to_be(data: Path) -> None:
    done = run("dtolbus", "verify", "--data", str(data))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("COMPLETE: nothing is missing\n")
    machine = json.loads(run("dtolbus", "verify", "--data", str(data), "--json").stdout)
    assert machine["complete"] is True
    assert {line["sink"] for line in machine["sinks"]} == {"csv", "sqlite"}


def test_it_tells_how_far_it_is_and_nothing_of_it_on_stdout(data: Path) -> None:
    told: list[tuple[str, int]] = []
    verify(data, tell=lambda what, percent: told.append((what, percent)))
    assert {what for what, _ in told} == {"the journal", "sqlite", "csv"}
    percents = [percent for _, percent in told]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    done = run("dtolbus", "verify", "--data", str(data), "--json", "--progress-every", "0")
    assert json.loads(done.stdout)["complete"] is True
    assert re.fullmatch(r"(verifying (the journal|sqlite|csv): \d+ %\n)+", done.stderr)
    assert done.stderr.endswith(": 100 %\n")


def test_up_shows_how_far_it_is_at_once_and_keeps_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(certifying, "_TELL_EVERY_S", 0.0)
    code = (
        "import sys; print('verifying sqlite: 35 %', file=sys.stderr); print('a warning', file=sys.stderr); print('OK')"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:  # type: ignore[call-overload]
        assert certifying._heard(process) == (["OK"], ["a warning"])
    assert capsys.readouterr().out == "verifying sqlite: 35 %\n"


def run_folder(data: Path, info: object = RUN) -> Path:
    return next(data.glob(f"journal/*/*/{info.run_id}"))  # type: ignore[attr-defined]


def without_registrations(data: Path) -> None:
    shutil.rmtree(data / "sinks")


def without_runs(data: Path) -> None:
    shutil.rmtree(data / "journal")
    (data / "journal").mkdir()


def without_a_run(data: Path) -> None:
    shutil.rmtree(run_folder(data))


def without_run_json(data: Path) -> None:
    (run_folder(data) / "run.json").unlink()


def with_a_garbled_run_json(data: Path) -> None:
    (run_folder(data) / "run.json").write_text("{")


def with_a_garbled_registration(data: Path) -> None:
    (data / "sinks" / "csv.json").write_text("{")


def with_a_cut_csv(data: Path) -> None:
    (path,) = data.glob("csv/*/*/*.csv")
    path.write_bytes(path.read_bytes()[:-100])


def without_the_csv(data: Path) -> None:
    (path,) = data.glob("csv/*/*/*.csv")
    path.unlink()


def with_another_sqlite(data: Path) -> None:
    (data / "lab.sqlite").write_bytes(b"not a database at all" * 100)


def with_a_flipped_bit_in_the_journal(data: Path) -> None:
    (segment,) = run_folder(data).glob("*.dt-raw")
    content = bytearray(segment.read_bytes())
    content[-5] ^= 1
    segment.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        without_registrations,
        without_runs,
        without_a_run,
        without_run_json,
        with_a_garbled_run_json,
        with_a_garbled_registration,
        with_a_cut_csv,
        without_the_csv,
        with_another_sqlite,
        with_a_flipped_bit_in_the_journal,
    ],
)
def test_damage_is_told_and_the_rest_is_compared_all_the_same(data: Path, damage: Callable[[Path], None]) -> None:
    damage(data)
    done = run("dtolbus", "verify", "--data", str(data))
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert done.stdout.endswith("INCOMPLETE\n")
    if damage not in (without_registrations, without_runs):
        assert " equal" in done.stdout  # another sink or run was compared


def test_a_copied_folder_says_that_its_sinks_are_elsewhere(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "copy")
    done = run("dtolbus", "verify", "--data", str(tmp_path / "copy"))
    assert f"sqlite lies outside this folder: {data / 'lab.sqlite'}" in done.stdout


def test_sinks_elsewhere_in_a_folder_that_has_nothing_of_their_name_are_no_remark(data: Path, tmp_path: Path) -> None:
    for name in ("lab.sqlite", "csv"):
        (data / name).rename(tmp_path / name)
        path = data / "sinks" / f"{name.removeprefix('lab.')}.json"
        path.write_text(path.read_text().replace(str(data / name), str(tmp_path / name)))
    done = run("dtolbus", "verify", "--data", str(data))
    assert (done.returncode, "outside" in done.stdout) == (0, False), done.stdout


def test_a_sink_that_has_a_key_and_never_came_is_told(data: Path) -> None:
    ring = KeyRing(data)
    ring.new("archive", "sink")
    ring.new("laptop", "read")
    ring.new("csv", "sink")
    done = run("dtolbus", "verify", "--data", str(data))
    assert "archive may store, by its key, and never came: no sink of that name is compared\n" in done.stdout
    assert "laptop" not in done.stdout
    assert "csv may store" not in done.stdout


def test_a_folder_that_was_moved_is_verified_where_it_is(data: Path, tmp_path: Path) -> None:
    data.rename(tmp_path / "archive")
    done = run("dtolbus", "verify", "--data", str(tmp_path / "archive"))
    assert done.returncode == 0, done.stdout
    assert f"sqlite is taken to be {tmp_path / 'archive' / 'lab.sqlite'}" in done.stdout
    assert done.stdout.endswith("COMPLETE: nothing is missing\n")


def test_a_damaged_journal_is_told_as_such_and_its_sinks_are_not_blamed(data: Path) -> None:
    with_a_flipped_bit_in_the_journal(data)
    done = run("dtolbus", "verify", "--data", str(data))
    assert done.returncode == 1
    assert "the journal cannot give the records" in done.stdout
    assert "1 not compared: damaged in the journal" in done.stdout
    assert "records missing" not in done.stdout
    assert "does not have" not in done.stdout


def test_while_a_run_is_recorded_its_sink_is_behind_and_no_more(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "journal", READINGS, sync_ms=0)
    place = str(tmp_path / "lab.sqlite")
    for index in range(3):
        writer.append(reading(READINGS, index))
    with RunningGateway(tmp_path) as gateway:
        stop = threading.Event()
        settings = config(gateway, name="sqlite", place=place, policy=BatchPolicy(age_s=0.05))
        worker = threading.Thread(target=work, args=(SqliteDestination(place), settings, stop))
        worker.start()
        eventually(
            lambda: (
                [
                    sink.positions[READINGS.run_id].position
                    for sink in read_registrations(tmp_path)
                    if READINGS.run_id in sink.positions
                ]
                == [3]
            )
        )
        equal = run("dtolbus", "verify", "--data", str(tmp_path))
        stop.set()
        worker.join()
    writer.append(reading(READINGS, 3))
    behind = run("dtolbus", "verify", "--data", str(tmp_path))
    writer.close()
    assert (equal.returncode, behind.returncode) == (0, 1), equal.stdout + behind.stdout
    assert "1 records behind; the run is still recorded" in behind.stdout
    assert "records missing" not in behind.stdout


def test_from_another_machine_too_what_a_sink_stores_meanwhile_is_not_held_against_it(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "journal", READINGS, sync_ms=0)
    writer.append(reading(READINGS, 0))
    place = str(tmp_path / "lab.sqlite")
    with RunningGateway(tmp_path) as gateway:
        stop = threading.Event()
        settings = config(gateway, name="sqlite", place=place, policy=BatchPolicy(age_s=0.05))
        worker = threading.Thread(target=work, args=(SqliteDestination(place), settings, stop))
        worker.start()

        def is_at(position: int) -> bool:
            sinks = read_registrations(tmp_path)
            return any(
                at.position == position
                for sink in sinks
                for run_id, at in sink.positions.items()
                if run_id == READINGS.run_id
            )

        def go_on(what: str, percent: int) -> None:
            if what == "the journal" and writer.next_index < 5:
                for index in range(1, 5):
                    writer.append(reading(READINGS, index))
                eventually(lambda: is_at(5))

        eventually(lambda: is_at(1))
        certificate = verify_remote(
            gateway.endpoints.catchup or "", sinks_at([f"sqlite={place}"], blocks="summary"), tell=go_on
        )
        stop.set()
        worker.join()
    writer.close()
    assert writer.next_index == 5, "nothing was stored meanwhile: this shows nothing"
    assert (certificate.complete, [line.remarks for line in certificate.lines]) == (True, [[]])


def test_an_interrupted_run_is_told_beside_complete_sinks(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "journal", READINGS)
    writer.append(reading(READINGS, 0))
    writer.close("interrupted")
    place = str(tmp_path / "lab.sqlite")
    with RunningGateway(tmp_path) as gateway:
        work(SqliteDestination(place), config(gateway, name="sqlite", place=place))
    done = run("dtolbus", "verify", "--data", str(tmp_path))
    assert done.returncode == 0
    assert f"{READINGS.run_id}: interrupted after 1 records" in done.stdout
    assert "COMPLETE: nothing is missing" not in done.stdout


def test_a_second_destination_under_a_name_that_is_taken_is_refused(data: Path, tmp_path: Path) -> None:
    ports: list[str] = []
    with RunningGateway(data) as gateway:
        ports += ["--connect", f"tcp://127.0.0.1:{gateway.pub_port}"]
        ports += ["--catchup", f"tcp://127.0.0.1:{gateway.catchup_port}"]
        other = run("dtolbus-csv", "--out", str(tmp_path / "other"), *ports, "--until-end")
        named = run("dtolbus-csv", "--out", str(tmp_path / "third"), "--name", "csv2", *ports, "--until-end")
    assert other.returncode == 3
    assert other.stderr.startswith(f"dtolbus-csv: the sink 'csv' of this journal is {data / 'csv'}; give ")
    assert "another --name" in other.stderr
    assert other.stderr.count("\n") == 1
    assert named.returncode == 0, named.stderr
    assert "csv2" in run("dtolbus", "verify", "--data", str(data)).stdout
