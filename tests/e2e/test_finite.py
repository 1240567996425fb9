"""A finite task whose process is killed, or whose board goes away, goes on for what is left; `up` tells what is not."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import KILL, TIMEOUT_S, Up, assert_complete, runs
from tests.producer.acquired import blocks_of, events_of, readings_of
from tests.producer.bus import eventually

from dtolbus.runs import RunFolder

TASK = 'name = "t"\nrate_hz = 1000\nblock_samples = 100\nchannels = ["a", "b"]\n'


def lab(tmp_path: Path, task: str, device: str = "") -> tuple[str, ...]:
    """The options of `up` for one simulated device `d` with one task, and one sink."""
    path = tmp_path / "lab.toml"
    path.write_text(f'[[device]]\nname = "d"\n{device}\n[[device.task]]\n{task}\n[[sink]]\nkind = "sqlite"\n')
    return ("--config", str(path))


def wait_for_records(up: Up, device: str, records: int, besides: str = "") -> None:
    """Wait until the device's newest run, another one than `besides`, has so many records."""

    def has_them() -> bool:
        newest = runs(up.data).get(device, [])[-1:]
        return any(folder.info.run_id != besides and folder.status().head >= records for folder in newest)

    eventually(has_them, TIMEOUT_S)


def kill_once_recorded(up: Up, name: str, records: int = 1) -> RunFolder:
    """Kill the acquisition once its newest run has so many records; return that run."""
    device = name.removeprefix("acquisition-")
    wait_for_records(up, device, records)
    newest = runs(up.data)[device][-1]
    before = up.pids()
    os.kill(before[name], KILL)
    up.wait_for_pids(name, other_than=before)
    return newest


def samples_of(run: RunFolder) -> int:
    return sum(block.samples_per_channel for block in blocks_of(run))


def test_a_task_of_so_many_samples_goes_on_for_the_rest_however_often_it_is_killed(tmp_path: Path) -> None:
    with Up(tmp_path / "data", *lab(tmp_path, TASK + "samples = 5050")) as up:
        for _ in range(2):
            killed = kill_once_recorded(up, "acquisition-d", 3)
            wait_for_records(up, "d", 3, besides=killed.info.run_id)
        assert_complete(up, up.end())
    found = runs(up.data)["d"]
    assert [folder.status().state for folder in found] == ["interrupted", "interrupted", "ended"]
    had = [samples_of(folder) for folder in found]
    assert min(had) > 0
    assert sum(had) == 5050
    assert [folder.info.goes_on_from for folder in found] == [None, *(folder.info.run_id for folder in found[:-1])]
    assert [folder.info.samples_before for folder in found] == [0, had[0], had[0] + had[1]]
    assert [folder.info.samples_asked for folder in found] == [5050, 5050 - had[0], had[2]]
    assert "not everything" not in up.output


def test_polls_that_were_had_or_missed_are_not_polled_again(tmp_path: Path) -> None:
    task = 'name = "t"\nkind = "readings"\nrate_hz = 20\nsamples = 60\nchannels = [{ name = "x", thermocouple = "K" }]'
    with Up(tmp_path / "data", *lab(tmp_path, task)) as up:
        kill_once_recorded(up, "acquisition-d", 10)
        assert_complete(up, up.end())
    found = runs(up.data)["d"]
    assert len(found) == 2
    polls = [len(readings_of(folder)) + sum(event.lost_samples for event in events_of(folder)) for folder in found]
    assert sum(polls) == 60
    assert found[1].info.samples_before == polls[0]


def test_a_board_for_which_its_process_gave_up_goes_on_for_the_rest_too(tmp_path: Path) -> None:
    device = "reconnect_s = 0\noptions = { lose_device_at_s = 1.5 }"
    with Up(tmp_path / "data", *lab(tmp_path, TASK + "duration_s = 2.5", device)) as up:
        assert_complete(up, up.end())
    first, second = runs(up.data)["d"]
    assert first.status().state == "interrupted"
    assert [event.kind for event in events_of(first)] == ["device_lost"]
    assert (samples_of(first), samples_of(second)) == (1500, 1000)


def test_a_recording_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recording = tmp_path / "long.npz"
    codes = np.arange(2 * 3000, dtype=np.int16).reshape(2, 3000)
    np.savez(recording, codes=codes, channels=["a", "b"], unit="V", full_scale=10.0, rate_hz=1000.0)
    device = f'board = "playback:{recording.as_posix()}"'
    with Up(tmp_path / "data", *lab(tmp_path, 'name = "t"\nblock_samples = 70', device)) as up:
        kill_once_recorded(up, "acquisition-d", 10)
        assert_complete(up, up.end())
    found = runs(up.data)["d"]
    assert len(found) == 2
    played = np.concatenate([block.raw_codes for folder in found for block in blocks_of(folder)], axis=1)
    assert np.array_equal(played, codes)


def test_what_was_not_recorded_is_the_last_line_and_exit_code_1(tmp_path: Path) -> None:
    recording = tmp_path / "gone.npz"
    np.savez(recording, codes=np.zeros((1, 9000), np.int16), channels=["a"], unit="V", full_scale=1.0, rate_hz=1000.0)
    options = lab(tmp_path, 'name = "t"', f'board = "playback:{recording.as_posix()}"')
    with Up(tmp_path / "data", *options, "--duration", "3") as up:
        wait_for_records(up, "d", 3)
        recording.unlink()
        os.kill(up.pids()["acquisition-d"], KILL)
        code = up.end()
    (folder,) = runs(up.data)["d"]
    had = samples_of(folder)
    assert 0 < had < 3000
    last = f"but not everything was recorded: d/t has {had} of 3000 samples ({had / 1000:.3g} s of 3 s)"
    assert up.output.splitlines()[-1] == last
    assert "\nCOMPLETE: " in up.output
    assert up.output.endswith((up.data / "logs" / "certificate.txt").read_text())
    assert code == 1


def test_whoever_stops_it_earlier_is_told_how_much_there_is_and_that_is_no_failure(tmp_path: Path) -> None:
    with Up(tmp_path / "data", *lab(tmp_path, TASK), "--duration", "60") as up:
        up.wait_for_positions(1, ("sqlite",))
        up.process.send_signal(signal.SIGINT)
        assert_complete(up, up.end())
    had = samples_of(runs(up.data)["d"][0])
    assert up.output.splitlines()[-1].startswith(f"stopped before its end: d/t has {had} of 60000 samples (")


@pytest.mark.parametrize("asked", ["samples = 300", "duration_s = 0.3"])
def test_nothing_is_started_where_nothing_is_left(tmp_path: Path, asked: str) -> None:
    _, config = lab(tmp_path, TASK + asked)
    words = ("dtolbus-producer", "run", "--config", config, "--data", str(tmp_path / "data"))
    assert run(*words).returncode == 0
    (whole,) = runs(tmp_path / "data")["d"]
    again = run(*words, "--goes-on-from", whole.info.run_id)
    assert (again.returncode, len(runs(tmp_path / "data")["d"])) == (0, 1)
    refused = run(*words, "--goes-on-from", "nobody")
    assert refused.returncode == 2
    assert refused.stderr == (
        "dtolbus-producer: --goes-on-from nobody: the journal has no such run of 'd'; see `dtolbus runs`\n"
    )
