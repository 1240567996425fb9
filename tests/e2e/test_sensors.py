"""Sensors through the whole stack: every sink stores values, NaN and status; a calibration is corrected."""

import csv
import json
import sqlite3
from pathlib import Path

import duckdb
import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import Up, assert_complete, runs

from dtolbus.records import DaqEvent, SensorStatus
from dtolbus.runs import RunFolder

LAB = """\
[[device]]
name = "rig"
[device.options]
speed = "max"
open_thermocouple = { channel = "tc", from_s = 0.5, to_s = 0.7 }
[[device.task]]
name = "slow"
rate_hz = 500
samples = 500
channels = [
    { name = "tc", physical = 1, thermocouple = "THE_TYPE", cold_junction = "cjc" },
    { name = "cjc", physical = 0, sensitivity_v = 0.01, unit = "°C" },
    { name = "pt", physical = 2, range = 1, rtd = { r0_ohm = 100, excitation_a = 0.001 } },
    { name = "plain", physical = 3 },
]
[[device]]
name = "box"
[device.options]
open_thermocouple = { channel = "tc", from_s = 0.3, to_s = 0.5 }
[[device.task]]
name = "polled"
kind = "readings"
rate_hz = 20
samples = 20
channels = [{ name = "tc", physical = 1, thermocouple = "K", cold_junction = 25 }, { name = "v", physical = 2 }]
[[sink]]
kind = "parquet"
[[sink]]
kind = "sqlite"
blocks = "both"
[[sink]]
kind = "csv"
blocks = "samples"
[[sink]]
kind = "jsonl"
blocks = "samples"
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = tmp_path / "lab.toml"
    path.write_text(LAB.replace("THE_TYPE", "K"))
    return path


def recorded(data: Path, lab: Path) -> None:
    with Up(data, "--config", str(lab)) as up:
        assert_complete(up, up.end())


def expected(folder: RunFolder) -> list[tuple[float | None, int | None]]:
    """Value and status of each sample of `tc`, NaN as None."""
    found: list[tuple[float | None, int | None]] = []
    with folder:
        for block in folder.records(0, folder.status().head):
            if isinstance(block, DaqEvent):
                continue
            place = block.channels.index("tc")  # type: ignore[union-attr]
            status = block.sensor_status.get("tc")  # type: ignore[union-attr]
            for k, value in enumerate(block.data[place].tolist()):  # type: ignore[union-attr]
                found.append((None if value != value else value, None if status is None else int(status[k])))
    return found


def in_each_sink(data: Path, folder: RunFolder) -> dict[str, list[tuple[float | None, int | None]]]:
    info = folder.info
    at = f"{info.device}/{info.task}/{info.run_id}"
    columns = "value, sensor_status"
    where = "WHERE channel = 'tc' ORDER BY sample_index"
    with sqlite3.connect(data / "dtolbus.sqlite") as db:
        sqlite = db.execute(
            f"SELECT {columns} FROM samples {where.replace('WHERE', 'WHERE run_id = ? AND')}", [info.run_id]
        )
        rows = {"sqlite": sqlite.fetchall()}
    parquet = duckdb.sql(f"SELECT {columns} FROM '{data}/parquet/{at}/*.parquet' {where}").fetchall()
    rows["parquet"] = [(None if value != value else value, status) for value, status in parquet]
    with (data / f"csv/{at}.csv").open(newline="") as file:
        rows["csv"] = [
            (
                None if row["value"] == "nan" else float(row["value"]),
                int(row["sensor_status"]) if row["sensor_status"] else None,
            )
            for row in csv.DictReader(file)
            if row["channel"] == "tc"
        ]
    lines = [json.loads(line) for line in (data / f"jsonl/{at}.jsonl").read_text().splitlines()]
    rows["jsonl"] = [(line["value"], line["sensor_status"]) for line in lines if line["channel"] == "tc"]
    return rows


def test_every_sink_stores_temperatures_and_what_is_open(tmp_path: Path, lab: Path) -> None:
    data = tmp_path / "data"
    recorded(data, lab)
    (folder,) = runs(data)["rig"]
    wanted = expected(folder)
    assert len(wanted) == 500
    assert [status for _, status in wanted].count(SensorStatus.SENSOR_OPEN) == 100
    assert all((value is None) == (status == SensorStatus.SENSOR_OPEN) for value, status in wanted)
    assert all(24 < value < 28 for value, _ in wanted if value is not None)
    for sink, rows in in_each_sink(data, folder).items():
        assert rows == wanted, sink

    with sqlite3.connect(data / "dtolbus.sqlite") as db:
        summaries = db.execute("SELECT min, max, mean, rms FROM blocks ORDER BY block_index").fetchall()
        polled = db.execute("SELECT tc, tc_unit, sensor_status FROM readings ORDER BY reading_index").fetchall()
        (header,) = db.execute("SELECT header FROM runs WHERE run_id = ?", [folder.info.run_id]).fetchone()
    assert [json.loads(row[0])[0] is None for row in summaries] == [False] * 5 + [True] * 2 + [False] * 3
    assert all(len(json.loads(text)) == 4 for row in summaries for text in row)
    assert [row[0] is None for row in polled] == [6 <= slot < 10 for slot in range(20)]
    assert all(24 < row[0] < 28 for row in polled if row[0] is not None)
    assert {row[1] for row in polled} == {"°C"}
    assert json.loads(polled[6][2]) == {"tc": SensorStatus.SENSOR_OPEN}
    conversions = [channel.get("conversion") for channel in json.loads(header)["channels"]]
    assert conversions[0] == {"type": "thermocouple", "kind": "K", "cold_junction": "cjc"}
    assert conversions[1] is None


def test_a_wrong_type_is_corrected_in_every_sink(tmp_path: Path, lab: Path) -> None:
    data = tmp_path / "data"
    right = lab.read_text()
    lab.write_text(LAB.replace("THE_TYPE", "J"))
    recorded(data, lab)
    (old,) = runs(data)["rig"]
    lab.write_text(right)

    done = run("dtolbus", "recalibrate", "--data", str(data), "--run", old.info.run_id, "--config", str(lab))
    assert (done.returncode, done.stderr) == (0, "")
    assert "sensor thermocouple J → thermocouple K" in done.stdout
    assert run("dtolbus", "verify", "--data", str(data)).returncode == 1, "the sinks do not have the new run yet"

    recorded(data, lab)  # whatever is recorded next, the sinks take it up
    _, new, _ = runs(data)["rig"]
    assert new.info.meta["recalibrated_from"] == old.info.run_id
    for folder in (old, new):
        for sink, rows in in_each_sink(data, folder).items():
            assert rows == expected(folder), sink
    assert all(24 < value < 28 for value, _ in expected(new) if value is not None)
    assert run("dtolbus", "verify", "--data", str(data)).returncode == 0
