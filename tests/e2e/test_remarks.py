"""Nobody finds out too late that a channel was overloaded or gave nothing, nor mixes up a correction and its run."""

import contextlib
import json
import re
import sqlite3
from pathlib import Path

import duckdb
import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import Up, assert_complete, runs
from tests.producer.bus import RunningGateway

from dtolbus_producer.certifying import CERTIFICATE_FILE

UNITS = Path(__file__).parents[2] / "docs" / "units.md"
LAB = """\
[[device]]
name = "rig"
[[device.task]]
name = "vib"
rate_hz = 1000
block_s = 0.1
samples = 3000
channels = [
    { name = "acc_de", range = 10, sensitivity_v = 0.1, unit = "g" },
    { name = "acc_nde_y", range = 0.02, sensitivity_v = 0.1, unit = "g" },
]
[[device]]
name = "box"
[device.options]
open_thermocouple = { channel = "tc" }
[[device.task]]
name = "polled"
kind = "readings"
rate_hz = 10
samples = 30
channels = [{ name = "tc", thermocouple = "K", cold_junction = 25 }, { name = "v", physical = 2 }]
[[sink]]
kind = "sqlite"
blocks = "samples"
[[sink]]
kind = "parquet"
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Up:
    lab = tmp_path / "lab.toml"
    lab.write_text(LAB)
    with Up(tmp_path / "data", "--config", str(lab)) as up:
        assert_complete(up, up.end())
    return up


def test_up_verify_runs_and_listen_tell_it(recorded: Up) -> None:
    data, output = recorded.data, recorded.output
    (rig,), (box,) = runs(data)["rig"], runs(data)["box"]
    live = [line for line in output.splitlines() if "acquiring" in line]
    assert re.search(r" \| rig/vib: acc_nde_y at the end of its range: [0-9.]+ % of samples", live[-1])
    assert " | box/polled: tc sensor open: 100 % of polls" in live[-1]
    assert not any("acc_de " in line for line in live)

    certificate = (data / "logs" / CERTIFICATE_FILE).read_text()
    clipped = (
        rf"rig/vib {rig.info.run_id}: acc_nde_y at the end of its range: [0-9.]+ % of samples, the first is number"
    )
    is_open = f"box/polled {box.info.run_id}: tc sensor open: 100 % of polls, the first is number 0"
    verified = run("dtolbus", "verify", "--data", str(data))
    assert verified.returncode == 0, "nothing is missing"
    for text in (output, certificate, verified.stdout):
        assert re.search(clipped, text)
        assert is_open in text
        assert text.endswith("COMPLETE: nothing is missing\n")
    machine = run("dtolbus", "verify", "--data", str(data), "--run", rig.info.run_id[:14], "--json")
    (remark,) = json.loads(machine.stdout)["remarks"]
    assert (re.fullmatch(rf"{clipped} \d+", remark) is not None, machine.returncode) == (True, 0)

    lines = json.loads(run("dtolbus", "runs", "--data", str(data), "--json").stdout)
    told = {line["task"]: [(one["channel"], one["kind"]) for one in line["remarks"]] for line in lines}
    assert told == {"vib": [("acc_nde_y", "over_range")], "polled": [("tc", "sensor_open")]}
    table = run("dtolbus", "runs", "--data", str(data)).stdout
    assert re.search(r"  acc_nde_y at the end of its range: [0-9.]+ %\n", table)
    assert "  tc sensor open: 100 %\n" in table

    with contextlib.closing(sqlite3.connect(data / "dtolbus.sqlite")) as database:
        events = database.execute("SELECT kind, count(*) FROM events GROUP BY 1 ORDER BY 1").fetchall()
    assert events == [("over_range", 2), ("sensor_open", 2)]
    with RunningGateway(data) as gateway:
        at = [f"tcp://127.0.0.1:{port}" for port in (gateway.pub_port, gateway.catchup_port)]
        heard = run("dtolbus", "listen", at[0], "--catchup", at[1], "--duration", "3").stdout
    assert re.search(r"rig/vib: over_range: acc_nde_y: at the end of its range: \d+ of 100 samples, ", heard)
    assert "box/polled: sensor_open: tc: sensor open: 1 of 1 polls, the first is number 0" in heard


def test_the_documented_queries_select_the_newest_correction(recorded: Up) -> None:
    data = recorded.data
    (rig,), (box,) = runs(data)["rig"], runs(data)["box"]
    begin = rig.info.run_id[:-4]
    for sensitivity_v in ("0.2", "0.1021"):
        words = ("--channel", "acc_de", "--sensitivity-v", sensitivity_v)
        done = run("dtolbus", "recalibrate", "--data", str(data), "--run", begin, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"dtolbus up --catch-up --data {data}" in done.stdout
    with Up(data, "--catch-up") as up:
        assert_complete(up, up.end())
    _, _, newest = runs(data)["rig"]

    queries = re.findall(r"```sql\n(.*?)```", UNITS.read_text(), re.DOTALL)
    (sql,) = [query for query in queries if "original_run" in query and "::json" not in query]
    with contextlib.closing(sqlite3.connect(data / "dtolbus.sqlite")) as database:
        assert {run_id for (run_id,) in database.execute("SELECT DISTINCT run_id FROM samples")} == {
            folder.info.run_id for folder in runs(data)["rig"]
        }
        found = database.execute(sql).fetchall()
    assert len(found) == 2 * 3000
    assert {row[0] for row in found} == {newest.info.run_id}

    (pandas,) = re.findall(r"```python\n(.*?)```", UNITS.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(pandas.replace('"data"', repr(str(data))), names)
    assert names["current"] == {newest.info.run_id, box.info.run_id}
    stored = duckdb.sql(f"SELECT DISTINCT run_id FROM '{data}/parquet/rig/vib/*/*.parquet'").fetchall()
    assert len(stored) == 3
