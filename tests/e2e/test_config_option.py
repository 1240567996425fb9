"""`--config` where a command asks for the data folder, or for the gateway."""

import json
from pathlib import Path

import pytest
from tests.e2e.commands import run
from tests.producer.acquired import acquire_all
from tests.producer.bus import free_ports

from dtolbus_producer.config import load_config


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = tmp_path / "lab.toml"
    pub, catchup = free_ports()
    path.write_text(
        f'data = "{(tmp_path / "rig").as_posix()}"\n[gateway]\npub_port = {pub}\ncatchup_port = {catchup}\n'
        '[[device]]\nname = "d"\noptions = { speed = "max" }\n'
        '[[device.task]]\nname = "t"\nsamples = 100\nchannels = [{ name = "a", unit = "g", sensitivity_v = 0.1 }]\n'
    )
    return path


def test_commands_find_the_data_folder_of_the_config(lab: Path) -> None:
    config = load_config(lab)
    (found,) = acquire_all(config, Path(config.data))
    run_id = found.info.run_id
    wrong = []
    for words, code, says in (
        (["runs"], 0, run_id),
        (["sinks"], 0, "no sink has registered"),
        (["prune", "--keep", "7d", "--dry-run"], 0, "nothing to do"),
        (["verify"], 1, "no sink here"),
        (["recalibrate", "--run", run_id, "--channel", "a", "--sensitivity-v", "0.2", "--dry-run"], 0, "a"),
        (["recalibrate", "--run", run_id, "--dry-run"], 2, "nothing"),
        (["sinks", "forget", "csv"], 2, "csv"),
    ):
        done = run("dtolbus", *words, "--config", str(lab))
        said = done.stdout + done.stderr
        if (done.returncode, says in said) != (code, True):
            wrong.append((words, done.returncode, said))
    assert not wrong
    machine = run("dtolbus", "runs", "--json", env={"DTOLBUS_CONFIG": str(lab)})
    assert [line["run_id"] for line in json.loads(machine.stdout)] == [run_id]


def test_listen_finds_the_gateway_of_the_config(lab: Path) -> None:
    pub = load_config(lab).gateway.pub_port
    done = run("dtolbus", "listen", "--config", str(lab), "--duration", "0.3s")
    assert (done.returncode, done.stderr.startswith(f"dtolbus: nothing heard from tcp://127.0.0.1:{pub}")) == (3, True)
