"""The wall clock is set back an hour and forward an hour while the whole stack runs."""

import json
import struct
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from tests.e2e.stacks import Up, assert_complete, runs

from dtolbus.records import DaqBlock, DaqReading, Gap
from dtolbus.runs import RunFolder

HOUR_S = 3600
STEP_S = 60
"""Far less than the clock was set by, far more than a fit slews."""


class WallClock:
    """The clock of the processes that the shim is loaded into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(8))

    def set_by(self, seconds: int) -> None:
        """Let it differ from the machine's by so many seconds from now on."""
        with self.path.open("r+b", buffering=0) as file:
            file.write(struct.pack("<q", seconds))


def test_a_clock_that_is_set_back_and_forth_loses_nothing(tmp_path: Path, shim_library: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    preloaded = {"LD_PRELOAD": str(shim_library), "SHIM_CLOCK": str(clock.path)}
    with Up(tmp_path / "data", "--duration", "5", **preloaded) as up:
        up.wait_for_positions(4)
        clock.set_by(-HOUR_S)
        up.wait_for_positions(10)
        clock.set_by(HOUR_S)
        code = up.end()
    assert_complete(up, code)
    _assert_the_parts_saw_it(up)
    for folders in runs(up.data).values():
        (folder,) = folders
        assert folder.status().state == "ended"
        _assert_even(folder)


def _assert_the_parts_saw_it(up: Up) -> None:
    ahead = datetime.now(UTC) + timedelta(seconds=HOUR_S / 2)
    written = [sink.seen_utc for sink in up.registered()]
    for sidecar in up.data.glob("csv/*/*/*.position.json"):
        written.append(json.loads(sidecar.read_text())["updated_at"])
    assert len(written) == 5
    assert min(map(datetime.fromisoformat, written)) > ahead, written


def _assert_even(folder: RunFolder) -> None:
    """No record is missing, and UTC goes on with the monotonic clock from the first sample to the last."""
    with folder:
        records = list(folder.records(0, folder.head()))
    assert not [record for record in records if isinstance(record, Gap)]
    data = [record for record in records if isinstance(record, DaqBlock | DaqReading)]
    assert len(data) > 10
    for before, after in pairwise(data):
        went = after.t_utc - before.t_utc
        assert timedelta(0) < went
        assert abs(went - timedelta(microseconds=(after.t_mono_ns - before.t_mono_ns) / 1000)) < timedelta(
            seconds=STEP_S
        )
