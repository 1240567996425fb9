"""What is written for people only may fail, as on a full disk, and nothing recorded suffers."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.e2e.commands import TIMEOUT_S, command, environment
from tests.e2e.stacks import runs

CONFIG = (
    "[gateway]\npub_port = 0\ncatchup_port = 0\n"
    '[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nkind = "readings"\nrate_hz = 50\nchannels = ["a"]\n'
)


def up(tmp_path: Path, stdout: str | int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "lab.toml"
    config.write_text(CONFIG)
    words = ("dtolbus", "up", "--data", str(tmp_path / "data"), "--duration", "1", "--sinks", "csv")
    output = subprocess.PIPE if stdout == subprocess.PIPE else os.open(stdout, os.O_WRONLY)
    try:
        return subprocess.run(
            command(*words, "--config", str(config)),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
        )
    finally:
        if output != subprocess.PIPE:
            os.close(output)


def assert_recorded(data: Path) -> None:
    ((run,),) = runs(data).values()
    polls = run.refresh().samples  # fewer than 50 where a busy machine missed some
    assert run.status().state == "ended"
    assert polls is not None
    assert 0 < polls <= 50
    (stored,) = [path for path in (data / "csv").rglob("*.csv") if path.stat().st_size]
    assert len(stored.read_text().splitlines()) == polls + 1


def test_pids_and_logs_that_cannot_be_written_end_nothing(tmp_path: Path) -> None:
    logs = tmp_path / "data" / "logs"
    for name in ("pids.json", "gateway.log", "sink-csv.log", "acquisition-d.log"):
        (logs / name).mkdir(parents=True)

    done = up(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert_recorded(tmp_path / "data")
    assert done.stderr.count("pids not written") == 1
    assert "Traceback" not in done.stderr


def test_a_config_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data" / "logs" / "config.json").mkdir(parents=True)
    done = up(tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "config.json cannot be written" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_screen_that_is_a_file_on_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    done = up(tmp_path, "/dev/full")
    assert done.returncode == 0
    assert_recorded(tmp_path / "data")
    assert "COMPLETE: nothing is missing" in (tmp_path / "data" / "logs" / "certificate.txt").read_text()
