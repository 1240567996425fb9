"""`dtolbus check`, `boards`, `doctor` and the examples as a new user meets them."""

import json
import socket
from pathlib import Path

import pytest
from tests.e2e.commands import run, running
from tests.e2e.stacks import Up, assert_complete, runs
from tests.producer.bus import eventually, free_ports

from dtolbus_producer.config import load_config

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


def ports() -> list[str]:
    return [
        word for pair in zip(("--pub-port", "--catchup-port"), map(str, free_ports()), strict=True) for word in pair
    ]


def doctor(data: Path, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = run("dtolbus", "doctor", "--data", str(data), "--json", *words)
    assert done.stderr == ""
    return done.returncode, {found["name"]: found for found in json.loads(done.stdout)}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A config of one board with ports of its own."""
    pub, catchup = free_ports()
    path = tmp_path / "lab.toml"
    path.write_text(
        f"[gateway]\npub_port = {pub}\ncatchup_port = {catchup}\n"
        '[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nrate_hz = 1000\nchannels = ["a"]\n'
        '[[sink]]\nkind = "csv"\n'
    )
    return path


def port_of(lab: Path, key: str) -> int:
    return int(lab.read_text().partition(f"{key} = ")[2].split()[0])


def test_there_are_examples() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "finite",
        "mixed",
        "strain-and-resistance",
        "thermocouples",
        "vibration-iepe",
        "vibration-iepe-dt9837",
    ]


@pytest.mark.parametrize("path", [path for path in EXAMPLES if "dt9837" not in path.stem], ids=lambda path: path.stem)
def test_each_example_passes_the_check(path: Path, tmp_path: Path) -> None:
    done = run("dtolbus", "check", "--config", str(path), "--data", str(tmp_path / "data"), *ports())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "A. Meyer" in done.stdout
    assert not (tmp_path / "data").exists()


def test_the_example_of_a_real_board_is_a_configuration() -> None:
    config = load_config(next(path for path in EXAMPLES if "dt9837" in path.stem))
    assert config.devices[0].options["iepe"] == ["drive_end", "fan_end"]


def test_the_finite_example_ends_by_itself_with_all_that_was_asked_for(tmp_path: Path) -> None:
    path = next(path for path in EXAMPLES if path.stem == "finite")
    with Up(tmp_path / "data", "--config", str(path)) as up:
        assert_complete(up, up.end())
    (burst,) = runs(up.data)["rig"]
    assert burst.refresh().samples == 16_384


def test_the_mixed_example_records(tmp_path: Path) -> None:
    path = next(path for path in EXAMPLES if path.stem == "mixed")
    with Up(tmp_path / "data", "--config", str(path), "--duration", "2") as up:
        assert_complete(up, up.end())
    (fast,), (slow,) = runs(up.data)["motor"], runs(up.data)["surroundings"]
    assert [channel.unit for channel in fast.info.channels] == ["g", "Nm", "V"]
    assert (fast.refresh().samples, slow.info.kind) == (10_000, "readings")


def test_a_check_that_fails_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    lab = tmp_path / "lab.toml"
    lab.write_text('[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nrat_hz = 1\n')
    done = run("dtolbus", "check", "--config", str(lab))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dtolbus: {lab}: device[0].task[0].rat_hz: there is no such key; did you mean 'rate_hz'?\n"


def test_up_tells_of_a_data_folder_that_fell_into_the_metadata(tmp_path: Path, lab: Path) -> None:
    lab.write_text('[run]\ndata = "rig"\n' + lab.read_text().replace('"csv"', '"sqlite"'))
    with Up(tmp_path / "data", "--config", str(lab), "--duration", "0.5") as up:
        assert up.end() == 0
    (line,) = up.errors.splitlines()
    assert line.startswith("note: data = 'rig' stands in [run]: it is metadata, and the data folder is ")


def test_boards(tmp_path: Path) -> None:
    done = run("dtolbus", "boards")
    assert (done.returncode, done.stderr) == (0, "")
    assert "DT9806 (simulated)" in done.stdout


class TestDoctor:
    def test_a_machine_that_can_record_has_no_problem_and_is_left_as_it_was(self, lab: Path) -> None:
        data = lab.parent / "data"
        code, found = doctor(data, "--config", str(lab))
        assert (code, [one for one in found.values() if one["state"] == "problem"]) == (0, [])
        assert {"Python", "versions", "clock resolution", "wall clock", "disk speed", "disk room", "new files"} <= set(
            found
        )
        assert {"memory", "sleep", "keys", "board sim", "sink parquet", "dtolbus up"} <= set(found)
        assert all(one["todo"] for one in found.values() if one["state"] != "ok")
        assert [path.name for path in lab.parent.iterdir()] == ["lab.toml"]

    def test_a_port_that_another_has_is_a_problem_that_names_it(self, lab: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port_of(lab, "pub_port")))
            taken.listen()
            code, found = doctor(lab.parent / "data", "--config", str(lab))
        assert code == 1
        port = found[f"port {port_of(lab, 'pub_port')}"]
        assert port["state"] == "problem"
        assert port["what"].startswith("in use: ")
        assert "--pub-port" in port["todo"]

    def test_a_recording_that_runs_is_no_problem(self, lab: Path) -> None:
        data = lab.parent / "data"
        given = [str(port_of(lab, "pub_port")), str(port_of(lab, "catchup_port"))]
        with Up(data, "--config", str(lab), ports=[int(port) for port in given]) as up:
            up.wait_for_pids("gateway", "acquisition-d")
            code, found = doctor(data, "--config", str(lab))
            assert code == 0, found
            assert "gateway" in found["dtolbus up"]["what"]
            assert "of this folder" in found[f"port {given[0]}"]["what"]

    def test_a_run_whose_producer_was_killed_is_told(self, lab: Path) -> None:
        data = lab.parent / "data"
        with running("dtolbus-producer", "run", "--config", str(lab), "--data", str(data)) as producer:
            eventually(lambda: any(folder.status().head for found in runs(data).values() for folder in found))
            producer.kill()
        code, found = doctor(data, "--config", str(lab))
        assert (code, found["runs"]["state"]) == (0, "warning")
        assert found["runs"]["what"].startswith("1 run has not been ended")

    def test_a_database_that_answers_and_one_that_does_not(self, lab: Path, postgres_dsn: str) -> None:
        code, found = doctor(lab.parent / "data", "--dsn", postgres_dsn, "--config", str(lab))
        assert (code, found["database"]["state"]) == (0, "ok"), found
        away = "postgresql://ada:secret@127.0.0.1:1/lab"
        done = run(
            "dtolbus", "doctor", "--data", str(lab.parent / "data"), "--config", str(lab), env={"DTOLBUS_DSN": away}
        )
        assert done.returncode == 1
        assert "127.0.0.1:1/lab" in done.stdout
        assert "secret" not in done.stdout
