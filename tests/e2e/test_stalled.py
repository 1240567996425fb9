"""A sink that stores nothing under `dtolbus up`: the terminal says so while the recording runs, and when it is over."""

import os
import signal
import sys
from pathlib import Path

import pytest
from tests.e2e.stacks import Up, assert_complete


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_a_sink_that_hangs_is_told_and_told_again_when_it_is_well(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--sinks", "sqlite,csv") as up:
        up.wait_for_positions(4, ("sqlite", "csv"))
        sink = up.pids()["sink-sqlite"]
        os.kill(sink, signal.SIGSTOP)
        assert up.process.stderr is not None
        told = up.process.stderr.readline()
        os.kill(sink, signal.SIGCONT)
        again = up.process.stderr.readline()
        up.process.send_signal(signal.SIGINT)
        assert_complete(up, up.end())
    assert told.startswith("sqlite has stored nothing for 1")
    assert told.endswith(" records behind: it does not say why\n")
    assert again.startswith("sqlite stores again after 1")
    assert up.errors == ""
