"""Durations that are too short for a rate, and what is said of boards that gave nothing."""

from pathlib import Path

import pytest
from tests.e2e.commands import run

from dtolbus.errors import UsageError
from dtolbus.runs import list_runs
from dtolbus_producer.config import config_from, with_duration
from dtolbus_producer.plan import UpOptions, resolve
from dtolbus_producer.tasks import TaskConfig

SLOW = '[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nrate_hz = 0.01\nchannels = ["a"]\n'


def test_a_duration_shorter_than_one_sample_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        resolve(UpOptions(rate_hz=0.01, duration_s=3.0))
    assert str(refused.value).startswith("--duration 3 is shorter than one sample at 0.01 Hz (sim0/vibration)")
    assert resolve(UpOptions(rate_hz=0.01, duration_s=100.0)).devices[0].tasks[0].samples_asked(0.01) == 1


def test_so_is_one_in_the_config_and_one_of_the_producer(tmp_path: Path) -> None:
    config = tmp_path / "lab.toml"
    config.write_text(SLOW)
    done = run("dtolbus-producer", "run", "--config", str(config), "--data", str(tmp_path / "d"), "--duration", "3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--duration 3 is shorter than one sample at 0.01 Hz (d/t)" in done.stderr
    assert not (tmp_path / "d").exists()

    config.write_text(SLOW + "duration_s = 3\n")
    done = run("dtolbus-producer", "run", "--config", str(config), "--data", str(tmp_path / "d"))
    assert done.returncode == 2
    assert "device[0].task[0].duration_s: 3 is shorter than one sample at 0.01 Hz" in done.stderr
    with pytest.raises(UsageError, match=r"device\[0\].task\[0\].duration_s: 3 is shorter than one sample"):
        resolve(UpOptions(config=config))


def test_a_polled_task_is_read_at_its_start_however_short_the_time_is() -> None:
    polled = TaskConfig("t", "readings", rate_hz=0.01, duration_s=3.0)
    assert polled.samples_asked(0.01) == 1


@pytest.mark.parametrize(
    ("rate_hz", "duration_s", "asked"),
    [(0.01, 199.0, 1), (0.01, 200.0, 2), (100.0, 0.29, 29), (1000.0, 0.1, 100), (3.0, 0.9, 2), (0.01, 3.0, 1)],
)
def test_a_clocked_task_asks_for_no_sample_that_comes_after_its_time(
    rate_hz: float, duration_s: float, asked: int
) -> None:
    assert TaskConfig("t", rate_hz=rate_hz, duration_s=duration_s).samples_asked(rate_hz) == asked


def test_a_task_of_so_many_samples_and_a_time_ends_with_what_comes_first() -> None:
    task = TaskConfig("t", rate_hz=1000.0, samples=500, duration_s=2.0)
    assert task.samples_asked(1000.0) == 500
    assert task.samples_asked(100.0) == 200
    config = config_from({"device": [{"name": "d", "task": [{"name": "t", "samples": 100_000, "channels": ["x"]}]}]})
    (device,) = with_duration(config, 3.0).devices
    assert device.tasks[0].samples_asked(1000.0) == 3000


def test_a_block_is_no_longer_than_the_run() -> None:
    assert TaskConfig("t", block_s=30.0, duration_s=3.0).samples_in_block(10.0) == 30
    assert TaskConfig("t", block_samples=500, samples=20).samples_in_block(10.0) == 20


def test_a_board_that_gave_nothing_is_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    recording = tmp_path / "empty.dt-raw"
    from tests.producer.test_journal import info_of

    from dtolbus.framing import encode_file_header

    recording.write_bytes(encode_file_header(info_of()))
    config = tmp_path / "lab.toml"
    config.write_text(
        "[gateway]\npub_port = 0\ncatchup_port = 0\n"
        f'[[device]]\nname = "p"\nboard = "playback:{recording.as_posix()}"\n[[device.task]]\nname = "t"\n'
    )
    done = run(*("dtolbus", "up", "--config", str(config), "--sinks", "csv", "--data", str(tmp_path / "data")))
    ((folder),) = list_runs(tmp_path / "data" / "journal")
    assert folder.status().final == 0
    assert done.returncode == 1
    assert "p acquired nothing; see " in done.stderr
