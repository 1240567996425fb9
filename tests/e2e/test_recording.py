"""A real recording through the whole stack: three accelerometers on a motor bearing, 122 917 instants at 12 kHz."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
from tests.e2e.commands import run
from tests.producer.bus import free_ports
from tests.workers import postgres

from dtolbus import iter_blocks
from dtolbus.runs import list_runs

RECORDING = Path(__file__).parents[3] / "shared" / "data" / "bearing-inner-race-12k.npz"
pytestmark = pytest.mark.skipif(not RECORDING.is_file(), reason=f"the recording is not here: {RECORDING}")


def test_every_instant_comes_back_from_parquet_postgres_and_the_journal(tmp_path: Path, postgres_dsn: str) -> None:
    data = tmp_path / "data"
    pub_port, catchup_port = (str(port) for port in free_ports())
    done = run(
        "dtolbus", "up", "--board", f"playback:{RECORDING}", "--speed", "max", "--sinks", "parquet,postgres",
        "--blocks", "samples", "--data", str(data), "--pub-port", pub_port, "--catchup-port", catchup_port,
        env={"DTOLBUS_DSN": postgres_dsn},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "COMPLETE: nothing is missing" in done.stdout

    recording = np.load(RECORDING)
    codes = recording["codes"]
    full_scale = np.broadcast_to(recording["full_scale"], (3,)).astype(float)
    g = codes / 32768 * full_scale[:, None]
    within_a_code = full_scale[:, None] / 32768
    assert codes.shape == (3, 122_917)

    (folder,) = list_runs(data / "journal")
    segments = sorted(folder.path.glob("*.dt-raw"))
    journaled = [block.raw_codes for segment in segments for block in iter_blocks(segment)]
    assert np.array_equal(np.concatenate(journaled, axis=1), codes)  # type: ignore[arg-type]

    def check(rows: dict[str, list[float]]) -> None:
        assert list(rows) == [str(name) for name in recording["channels"]]
        values = np.array(list(rows.values()))
        assert values.shape == codes.shape
        assert (np.abs(values - g) <= within_a_code).all()
        assert np.array_equal(np.rint(values / full_scale[:, None] * 32768).astype(np.int64), codes)

    names = folder.info.channel_names
    check({name: [value for (value,) in parquet_values(data / "parquet", name)] for name in names})
    in_order = "SELECT value FROM samples WHERE channel = $1 ORDER BY sample_index"
    check({name: [value for (value,) in postgres.query(postgres_dsn, in_order, name)] for name in names})


def parquet_values(folder: Path, channel: str) -> list[tuple[float]]:
    """The query that the README shows, but for the column."""
    return duckdb.execute(
        f"SELECT value FROM '{folder}/**/*.parquet' WHERE channel = ? ORDER BY sample_index", [channel]
    ).fetchall()
