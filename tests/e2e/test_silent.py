"""A board of another package that falls silent, or whose code hangs: `up` says so while it is, and at its end."""

import signal
from pathlib import Path

import pytest
from tests.e2e.stacks import Up, runs
from tests.producer.acquired import blocks_of, events_of

BOARD = """
import os, threading, time
from dtolbus_producer.boards.sim import SimBlocks, SimBoard

class Quiet(SimBlocks):
    def read(self, timeout_s):
        if self._next < 500:
            return super().read(timeout_s)
        if os.environ["QUIET"] == "hangs":
            threading.Event().wait()
        if self._is_stopped:
            return self._rest()
        time.sleep(timeout_s)

class QuietBoard(SimBoard):
    def blocks(self, task):
        return Quiet(self, task, self._options)
"""


@pytest.fixture
def packages(tmp_path: Path) -> str:
    """A folder with a package that has the board `quiet`."""
    folder = tmp_path / "site"
    info = folder / "quiet_boards-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "quiet_boards.py").write_text(BOARD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quiet-boards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dtolbus.boards]\nquiet = quiet_boards:QuietBoard\n")
    return str(folder)


@pytest.mark.parametrize("how", ["gives nothing", "hangs"])
def test_up_says_that_a_board_gives_nothing_while_it_is_so_and_at_its_end(
    tmp_path: Path, packages: str, how: str
) -> None:
    path = tmp_path / "lab.toml"
    task = 'name = "t"\nrate_hz = 1000\nblock_samples = 100\nchannels = ["a"]\n'
    path.write_text(
        f'[[device]]\nname = "d"\nboard = "quiet"\n[[device.task]]\n{task}\n[[sink]]\nkind = "sqlite"\n', "utf-8"
    )
    with Up(tmp_path / "data", "--config", str(path), PYTHONPATH=packages, QUIET=how) as up:
        assert up.error_line().startswith("d/t: the board has given nothing for ")
        up.process.send_signal(signal.SIGINT)
        assert up.end() == 1
    assert "but not everything was recorded: d/t: the board has given nothing for" in up.output
    (run,) = runs(up.data)["d"]
    assert run.status().state == ("interrupted" if how == "hangs" else "ended")
    assert sum(block.samples_per_channel for block in blocks_of(run)) == 500
    kinds = [event.kind for event in events_of(run)]
    assert kinds == (["silent", "sdk_error"] if how == "hangs" else ["silent"])
