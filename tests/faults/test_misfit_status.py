"""A journal whose blocks carry a status that does not fit them: a gap in every sink, and all else is stored."""

from pathlib import Path

import numpy as np
import pytest
from tests.e2e import commands
from tests.faults.test_oversize import store, write
from tests.protocol.specimens import block, block_run

from dtolbus_workers.verify import verify

RUN = block_run("0190a5f4-0000-7000-8000-000000000004")
NAME = RUN.channels[0].name


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({NAME: np.zeros(9, int)}, f"9 statuses of the channel '{NAME}' for 10 samples"),
        ({NAME: np.zeros(11, int)}, f"11 statuses of the channel '{NAME}' for 10 samples"),
        ({"nobody's": np.zeros(10, int)}, '10 statuses of the channel "nobody\'s" for 10 samples'),
    ],
)
def test_a_status_that_does_not_fit_is_a_gap_and_stops_no_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: dict[str, np.ndarray], says: str
) -> None:
    monkeypatch.setattr(commands, "TIMEOUT_S", 30.0)  # a worker that waits for ever is what is to be seen
    write(tmp_path, RUN, [block(RUN, 0), block(RUN, 1, sensor_status=status), block(RUN, 2)])
    store(tmp_path, "sqlite", "parquet")
    certificate = verify(tmp_path)
    assert not certificate.complete
    assert len(certificate.lines) == 2
    for line in certificate.lines:
        assert line.stored == 2
        ((start, end, cause),) = [(gap.from_index, gap.to_index, gap.cause) for gap in line.gaps]
        assert (start, end) == (1, 2)
        assert says in cause
