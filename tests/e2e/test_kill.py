"""Killing any part of a running stack with −9 stops no other part, and in the end nothing is missing."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.e2e.stacks import KILL, Up, assert_complete, is_alive, runs
from tests.producer.acquired import records_of
from tests.producer.bus import eventually

from dtolbus.records import DaqEvent

SINKS = ("sink-parquet", "sink-sqlite", "sink-csv", "sink-jsonl")
PARTS = ("gateway", "acquisition-sim0", "acquisition-sim1", *SINKS)


def test_each_worker_and_the_gateway_killed(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "7") as up:
        first = up.wait_for_pids(*PARTS)
        up.wait_for_positions(1)
        killed = ("sink-parquet", "sink-sqlite", "gateway", "sink-csv", "sink-jsonl")
        for name in killed:
            before = up.pids()
            os.kill(before[name], KILL)
            after = up.wait_for_pids(name, other_than=before)
            assert {part: pid for part, pid in after.items() if part != name} == {
                part: pid for part, pid in before.items() if part != name
            }
        assert all(up.pids()[name] != first[name] for name in killed)
        code = up.end()
    assert_complete(up, code)
    assert {device: len(found) for device, found in runs(up.data).items()} == {"sim0": 1, "sim1": 1}
    assert [folder.status().head for found in runs(up.data).values() for folder in found] == [70, 35]


def test_all_workers_and_the_gateway_killed_at_once(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "5") as up:
        before = up.wait_for_pids(*PARTS)
        up.wait_for_positions(1)
        for name in ("gateway", *SINKS):
            os.kill(before[name], KILL)
        after = up.wait_for_pids("gateway", *SINKS, other_than=before)
        assert after["acquisition-sim0"] == before["acquisition-sim0"]
        code = up.end()
    assert_complete(up, code)
    assert [folder.status().head for found in runs(up.data).values() for folder in found] == [50, 25]


def test_a_killed_acquisition_goes_on_as_a_new_run(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "5") as up:
        before = up.wait_for_pids(*PARTS)
        up.wait_for_positions(1)
        os.kill(before["acquisition-sim0"], KILL)
        up.wait_for_pids("acquisition-sim0", other_than=before)
        code = up.end()
    assert_complete(up, code)
    found = runs(up.data)
    assert [folder.status().state for folder in found["sim0"]] == ["interrupted", "ended"]
    assert len(found["sim1"]) == 1
    heads = [folder.status().head for folder in found["sim0"]]
    assert min(heads) > 0
    assert sum(heads) == 50


def test_a_killed_up_leaves_no_process_behind_and_the_next_one_makes_all_complete(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "60") as up:
        pids = up.wait_for_pids(*PARTS)
        up.wait_for_positions(1)
        os.kill(up.process.pid, KILL)
        up.process.wait()
    for pid in pids.values():
        _ended(pid)
    for (cut_off,) in runs(up.data).values():
        assert cut_off.status().state == "interrupted"
        last = records_of(cut_off)[-1]
        assert isinstance(last, DaqEvent)
        assert (last.kind, last.message.partition(",")[0]) == ("stopped", "dtolbus up is gone")
    with Up(tmp_path / "data", "--duration", "1") as again:
        code = again.end()
    assert_complete(again, code)
    assert [len(found) for found in runs(again.data).values()] == [2, 2]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP")
def test_ctrl_c_again_and_again_leaves_no_process_behind_not_even_a_stopped_one(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--sinks", "csv") as up:
        pids = up.wait_for_pids("gateway", "acquisition-sim0", "sink-csv")
        up.wait_for_positions(1, ("csv",))
        for name in ("acquisition-sim0", "sink-csv"):
            os.kill(pids[name], signal.SIGSTOP)
        try:
            while up.process.poll() is None:
                up.process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    up.process.wait(1.1)  # Ctrl-C counts as a second one after a second
            for pid in pids.values():
                _ended(pid)
        finally:
            for pid in pids.values():
                if is_alive(pid):
                    os.kill(pid, KILL)
        assert up.process.returncode == 130


def _ended(pid: int) -> None:
    eventually(lambda: not is_alive(pid) or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
