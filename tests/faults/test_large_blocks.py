"""Blocks of 2 MB: a sample's row takes many times its code, yet neither worker nor `verify` holds a batch of them."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.protocol.specimens import block, block_run

from dtolbus.records import DaqBlock
from dtolbus_workers.certificate import Line, compare
from dtolbus_workers.destination import RunBatch
from dtolbus_workers.parquet_destination import ParquetDestination, stored

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

MIB = 1 << 20
CHANNELS, SAMPLES, BATCH, BATCHES = 16, 62_500, 9, 2
RUN = block_run("0190a5f4-0000-7000-8000-000000000001", CHANNELS, rate_hz=1_000_000.0, block_samples=SAMPLES)
FORMS: dict[str, dict[str, Any]] = {
    "long": {},
    "wide": {"layout": "wide"},
    "codes": {"layout": "wide", "values": "codes"},
}
BOUNDS = {"long": 500 * MIB, "wide": 320 * MIB, "codes": 200 * MIB}


def blocks(first: int, count: int) -> list[DaqBlock]:
    codes = np.random.default_rng(7).integers(0, 65536, (CHANNELS, SAMPLES)).astype(np.uint16)
    return [block(RUN, index, SAMPLES, codes=np.roll(codes, index)) for index in range(first, first + count)]


async def write(place: Path, form: str) -> None:
    destination = ParquetDestination(place, **FORMS[form])
    await destination.open()
    for number in range(BATCHES):
        first = number * BATCH
        await destination.commit(RunBatch(RUN, first, first + BATCH, tuple(blocks(first, BATCH))))
    await destination.close()


def read(place: Path) -> None:
    line, held = Line("parquet", "d/t", RUN.run_id, "ended", BATCH * BATCHES), stored(place, RUN)
    assert held is not None
    compare(line, (blocks(index, 1)[0] for index in range(line.expected)), held, "parquet", run=RUN)
    assert line.complete, line
    assert line.samples == BATCH * BATCHES * CHANNELS * SAMPLES


def most() -> int:
    """The most memory that this process ever had, bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("form", FORMS)
def test_memory_does_not_grow_with_the_rows_of_a_batch(tmp_path: Path, form: str) -> None:
    for what in ("write", "read"):
        child = subprocess.run(
            [sys.executable, "-m", "tests.faults.test_large_blocks", what, str(tmp_path / "parquet"), form],
            capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert child.returncode == 0, child.stderr
        grown = int(child.stdout)
        assert grown <= BOUNDS[form], f"to {what}: {grown / MIB:.0f} MiB more"


if __name__ == "__main__":
    at_start, folder = most(), Path(sys.argv[2])
    if sys.argv[1] == "write":
        asyncio.run(write(folder, sys.argv[3]))
    else:
        read(folder)
    print(most() - at_start)
