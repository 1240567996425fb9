"""What catching up alone cannot mend: which file or folder to move away is said, and doing so mends it."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.e2e.commands import run
from tests.e2e.folders import as_it_was
from tests.e2e.stacks import Up, assert_complete

from dtolbus.registrations import read_registrations, registration_path
from dtolbus.runs import list_runs
from dtolbus_producer.registered import registered_sinks
from dtolbus_workers.verify import verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with four sinks that have all."""
    data = tmp_path_factory.mktemp("finished") / "data"
    with Up(data, "--duration", "1", "--sinks", "parquet,sqlite,csv,jsonl") as up:
        assert_complete(up, up.end())
    return data


@pytest.fixture
def data(finished: Path) -> Path:
    """That folder, as it was, at its own place."""
    return as_it_was(finished)


def without_a_row(data: Path) -> str:
    with closing(sqlite3.connect(data / "dtolbus.sqlite")) as connection:
        connection.execute("DELETE FROM blocks WHERE rowid = 2")
        connection.commit()
    return "sqlite"


def with_a_flipped_byte(data: Path) -> str:
    part = next(data.glob("parquet/sim0/*/*/part-*.parquet"))
    content = bytearray(part.read_bytes())
    content[2000] ^= 0xFF
    part.write_bytes(content)
    return "parquet"


def with_another_value(data: Path) -> str:
    (path,) = data.glob("csv/*/*/*.csv")
    lines = path.read_text().splitlines(keepends=True)
    digit = max(lines[1].rfind(letter) for letter in "0123456789")
    lines[1] = f"{lines[1][:digit]}{9 - int(lines[1][digit])}{lines[1][digit + 1 :]}"
    path.write_text("".join(lines))
    return "csv"


@pytest.mark.parametrize("damage", [without_a_row, with_a_flipped_byte, with_another_value])
def test_what_is_damaged_inside_is_mended_by_what_is_advised(data: Path, damage: Callable[[Path], str]) -> None:
    sink = damage(data)
    told = run("dtolbus", "verify", "--data", str(data))
    assert told.returncode == 1
    (line,) = [line for line in told.stdout.splitlines() if "what it has stored is damaged" in line]
    assert line.startswith(f"  {sink} ")
    assert "fills them in" not in told.stdout
    advised = re.search(r"move (?:the folder |the files )?(\S+) ", line)
    assert advised is not None
    place = Path(advised[1])
    found = list(place.parent.glob(f"{place.name}-*")) if sink == "sqlite" else []
    for path in (*place.parent.glob(place.name), *found):
        shutil.move(path, data.parent / f"away-{sink}-{path.name}")
    with Up(data, "--catch-up") as up:
        assert_complete(up, up.end())
    for path in data.parent.glob("away-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_sink_that_cannot_open_keeps_no_other_from_catching_up(data: Path) -> None:
    (data / "csv" / "dtolbus.json").unlink()
    with Up(data, "--duration", "0.5", "--sinks", "sqlite") as up:
        up.end()
    with Up(data, "--catch-up") as again:
        assert again.end() == 1, again.output
    assert "csv does not catch up: " in again.errors
    assert "is this sink's folder without its marker dtolbus.json: restore that file" in again.errors
    heads = {folder.info.run_id: folder.head() for folder in list_runs(data / "journal")}
    for known in read_registrations(data):
        if known.name != "csv":
            assert all(known.positions[run_id].position == heads[run_id] for run_id in known.positions)
            assert known.positions.keys() == heads.keys() or known.name == "jsonl"
    assert again.output.endswith("INCOMPLETE\n")


def test_a_parquet_folder_without_its_marker_is_told_as_such(data: Path) -> None:
    (data / "parquet" / "_dtolbus.json").unlink()
    refused = run("dtolbus-parquet", "--out", str(data / "parquet"), "--until-end")
    assert refused.returncode == 3
    assert "is this sink's folder without its marker _dtolbus.json: restore that file" in refused.stderr


def garbled(path: Path) -> None:
    path.write_text("{")


def copied(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.json"))


def with_bad_blocks(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "options": {**content["options"], "blocks": "everything"}}))


def with_bad_topics(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "topics": ["rig"]}))


def without_a_place(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "place": ""}))


@pytest.mark.parametrize("damage", [garbled, copied, with_bad_blocks, with_bad_topics, without_a_place])
def test_a_registration_of_no_use_is_told_with_its_file(
    data: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = registration_path(data, "csv")
    damage(path)
    named = path.with_name("copy.json") if damage is copied else path
    certificate = verify(data)
    assert not certificate.complete
    assert any(failure.startswith(f"{named}: ") for failure in certificate.failures), certificate.failures
    names = {sink.name for sink in registered_sinks(data, None)}
    assert names == {"parquet", "sqlite", "jsonl"} | ({"csv"} if damage is copied else set())
    assert any(str(named) in str(vars(record)) for record in caplog.records)


def test_one_damaged_registration_keeps_no_other_from_catching_up(data: Path) -> None:
    path = registration_path(data, "csv")
    with_bad_blocks(path)
    with Up(data, "--catch-up") as up:
        code = up.end()
    assert code == 1, up.output + up.errors
    assert str(path) in up.errors
    assert "sqlite  " in up.output
    assert "Traceback" not in up.errors


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in a folder here")
def test_a_pipe_in_the_place_of_what_a_sink_has_hangs_nobody(data: Path) -> None:
    sidecar = next(data.glob("csv/*/*/*.position.json"))
    for path in (data / "dtolbus.sqlite", next(data.glob("parquet/sim0/*/*/part-*.parquet")), sidecar):
        path.unlink()
        os.mkfifo(path)
    certificate = verify(data)
    assert not certificate.complete
    assert sum("not a regular file" in failure for failure in certificate.failures) == 3, certificate.failures


def test_a_run_json_that_is_damaged_or_missing_says_what_to_do(data: Path) -> None:
    folder = list_runs(data / "journal")[0].path
    for damage in (lambda: (folder / "run.json").write_text("{"), (folder / "run.json").unlink):
        damage()
        told = run("dtolbus", "verify", "--data", str(data))
        assert told.returncode == 1
        (line,) = [line for line in told.stdout.splitlines() if line.strip().startswith(str(folder))]
        assert "restore the file from a backup, or move the run's folder out of the journal" in line
