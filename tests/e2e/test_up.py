"""`dtolbus up` as its user meets it."""

import contextlib
import csv
import json
import re
import signal
import socket
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import Up, assert_complete, runs
from tests.producer.bus import free_ports

from dtolbus.records import DaqBlock, DaqReading
from dtolbus.registrations import read_registrations
from dtolbus_producer.boards.simsignal import simulated_codes
from dtolbus_producer.certifying import CERTIFICATE_FILE
from dtolbus_producer.stack import LOCK_FILE


class TestTheMainJob:
    def test_everything_asked_for_is_in_every_sink(self, tmp_path: Path) -> None:
        with Up(tmp_path / "data", "--duration", "3", "--meta", "operator=Ada") as up:
            assert_complete(up, up.end())
        data = up.data
        (vibration,), (temperature,) = runs(data)["sim0"], runs(data)["sim1"]
        assert (vibration.info.task, temperature.info.task) == ("vibration", "temperature")
        assert vibration.info.meta["operator"] == temperature.info.meta["operator"] == "Ada"
        with vibration, temperature:
            blocks = [r for r in vibration.records(0, vibration.head()) if isinstance(r, DaqBlock)]
            readings = [r for r in temperature.records(0, temperature.head()) if isinstance(r, DaqReading)]
        assert sum(block.samples_per_channel for block in blocks) == 30_000
        assert len(readings) == 15

        rate_hz = vibration.info.rate_hz
        stored = pq.read_table(data / "parquet" / "sim0" / "vibration")
        assert stored.num_rows == 30_000 * 4
        for number, channel in enumerate(vibration.info.channels):
            rows = rows_of(stored, channel.name)
            assert np.array_equal(rows["sample_index"].to_numpy(), np.arange(30_000))
            codes = simulated_codes(0, number, 0, 30_000, rate_hz=rate_hz)
            assert np.array_equal(rows["value"].to_numpy(), codes * channel.scale + channel.offset)

        with contextlib.closing(sqlite3.connect(data / "dtolbus.sqlite")) as database:
            assert database.execute("SELECT block_index FROM blocks ORDER BY 1").fetchall() == [(n,) for n in range(30)]
            assert database.execute("SELECT reading_index FROM readings ORDER BY 1").fetchall() == [
                (n,) for n in range(15)
            ]
        (csv_file,) = (data / "csv").rglob("*.csv")
        (jsonl_file,) = (path for path in (data / "jsonl").rglob("*.jsonl") if path.stem == temperature.info.run_id)
        with csv_file.open(newline="") as file:
            rows_of_csv = list(csv.DictReader(file))
        rows_of_jsonl = [json.loads(line) for line in jsonl_file.read_text().splitlines()]
        for reading, text, document in zip(readings, rows_of_csv, rows_of_jsonl, strict=True):
            assert float(text["tc0"]) == document["tc0"] == reading.values["tc0"]

    def test_the_first_screen_and_the_progress(self, tmp_path: Path) -> None:
        with Up(tmp_path / "data", "--duration", "1", "--sinks", "sqlite,csv") as up:
            assert up.end() == 0
        first, *_ = up.output.split("acquiring")
        for part in ("sim0", "vibration", "sim1", str(up.data / "journal"), "dtolbus.sqlite", "csv", "Ctrl-C"):
            assert part in first
        assert "sim0/vibration 10" in up.output
        assert "lag: records not stored yet; commits: sqlite and csv every 1 s" in first
        phases = [line.partition(":")[0].split(" s ")[1] for line in up.output.splitlines() if " | " in line]
        assert list(dict.fromkeys(phases)) == ["starting the boards", "acquiring", "stopping the boards", "draining"]
        assert all("sim" in line for line in up.output.splitlines() if "acquiring:" in line)
        last = [line for line in up.output.splitlines() if "draining" in line][-1]
        assert "sqlite 15 lag 0" in last
        assert "csv 5 lag 0" in last
        assert up.errors == ""
        assert [sink.name for sink in read_registrations(up.data)] == ["csv", "sqlite"]

    def test_starting_again_adds_runs_and_a_new_sink_takes_the_old_ones_too(self, tmp_path: Path) -> None:
        for count, sinks in ((1, "csv"), (2, "csv,sqlite")):
            with Up(tmp_path / "data", "--duration", "0.5", "--sinks", sinks) as up:
                assert_complete(up, up.end())
            assert [len(found) for found in runs(up.data).values()] == [count, count]
        assert [len(sink.positions) for sink in read_registrations(up.data)] == [2, 4]

    def test_only_the_sinks_of_this_start_are_verified(self, tmp_path: Path) -> None:
        for sinks in ("jsonl", "csv"):
            with Up(tmp_path / "data", "--duration", "0.5", "--sinks", sinks) as up:
                assert up.end() == 0, up.output
        assert up.output.endswith(
            "in what was recorded now; `dtolbus verify` checks 2 other runs too\n"
            "not compared: jsonl, which this stack does not run; "
            f"`dtolbus verify --data {up.data}` compares every sink\n"
        )
        everything = run("dtolbus", "verify", "--data", str(up.data))
        assert everything.returncode == 1
        assert "jsonl sim1/temperature" in everything.stdout
        assert (
            "records missing; `dtolbus up --catch-up`, or the start of its worker, fills them in" in everything.stdout
        )
        assert run("dtolbus", "verify", "--data", str(up.data), "--sink", "csv").returncode == 0
        with Up(tmp_path / "data", "--catch-up", "--sinks", "jsonl,csv") as again:
            assert_complete(again, again.end())
        assert [len(found) for found in runs(up.data).values()] == [2, 2]


class TestTheEnd:
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_a_signal_drains_and_verifies(self, tmp_path: Path, name: str) -> None:
        if not hasattr(signal, name):
            pytest.skip(f"this system has no {name}")
        with Up(tmp_path / "data") as up:
            up.wait_for_positions(2)
            up.process.send_signal(getattr(signal, name))
            assert_complete(up, up.end())
        assert up.output.endswith((up.data / "logs" / CERTIFICATE_FILE).read_text())
        assert {folder.status().state for found in runs(up.data).values() for folder in found} == {"ended"}

    def test_a_finite_board_ends_it(self, tmp_path: Path) -> None:
        codes = np.arange(3 * 4567, dtype=np.int16).reshape(3, 4567)
        recording = tmp_path / "three channels.npz"
        np.savez(recording, codes=codes, channels=["a", "b", "c"], unit="g", full_scale=8.0, rate_hz=1000.0)
        with Up(tmp_path / "data", "--board", f"playback:{recording}", "--speed", "max", "--sinks", "parquet") as up:
            assert_complete(up, up.end())
        stored = pq.read_table(up.data / "parquet")
        for number, name in enumerate("abc"):
            values = rows_of(stored, name)["value"].to_numpy()
            assert np.array_equal(np.rint(values / 8.0 * 32768), codes[number])

    def test_a_device_that_never_delivers_is_no_success(self, tmp_path: Path) -> None:
        config = tmp_path / "lab.toml"
        config.write_text(
            '[[device]]\nname = "d"\nboard = "sim"\n[[device.task]]\nname = "t"\nrate_hz = 1000\nchannels = ["a"]\n'
        )
        with Up(tmp_path / "data", "--config", str(config), "--sinks", "csv") as up:
            up.wait_for_pids("gateway")
            up.process.send_signal(signal.SIGINT)
            code = up.end()
        assert code == (0 if runs(up.data) else 1)
        if code:
            assert re.search(r"d acquired nothing: stopped (before|[0-9.]+ s after) .*; see ", up.errors)
            assert "d acquired nothing: stopped" in (up.data / "logs" / CERTIFICATE_FILE).read_text()


def rows_of(table: pa.Table, channel: str) -> pa.Table:
    """The channel's rows in the order of the samples."""
    return table.take(np.flatnonzero(table["channel"].to_numpy() == channel)).sort_by("sample_index")


class TestOptions:
    def test_a_config_with_sinks_of_its_own(self, tmp_path: Path) -> None:
        config = tmp_path / "dtolbus.toml"
        config.write_text(
            f"""
            data = "{(tmp_path / "elsewhere").as_posix()}"
            [run]
            specimen = "beam 7"
            [gateway]
            pub_port = 0
            catchup_port = 0
            [[device]]
            name = "Zähler 1"
            board = "sim"
            [[device.task]]
            name = "a/b"
            rate_hz = 1000
            block_samples = 100
            samples = 1250
            channels = ["x", "y"]
            [[sink]]
            kind = "sqlite"
            name = "every sample"
            blocks = "samples"
            """
        )
        done = run("dtolbus", "up", "--config", str(config))
        assert done.returncode == 0, done.stdout + done.stderr
        ((folder,),) = runs(tmp_path / "elsewhere").values()
        assert (folder.info.device, folder.info.task, folder.head()) == ("Zähler 1", "a/b", 13)
        assert folder.info.meta["specimen"] == "beam 7"
        with contextlib.closing(sqlite3.connect(tmp_path / "elsewhere" / "every sample.sqlite")) as database:
            assert database.execute("SELECT count(*), max(sample_index) FROM samples").fetchone() == (2500, 1249)

    def test_options_from_the_environment_reach_up_and_not_its_children(self, tmp_path: Path) -> None:
        settings = {
            "DTOLBUS_DURATION": "0.6",
            "DTOLBUS_SINKS": "parquet,csv",
            "DTOLBUS_TOPIC": "block/",
            "DTOLBUS_NAME": "x",
        }
        with Up(tmp_path / "data", **settings) as up:
            assert_complete(up, up.end())
        assert [(sink.name, sink.topics) for sink in read_registrations(up.data)] == [
            ("csv", ("reading/",)),
            ("parquet", ()),
        ]

    def test_an_embedded_postgres(self, tmp_path: Path) -> None:
        with Up(tmp_path / "data", "--duration", "1", "--sinks", "postgres", "--blocks", "both") as up:
            assert_complete(up, up.end())
        assert (up.data / "postgres" / "PG_VERSION").is_file()
        assert not (up.data / "postgres" / "postmaster.pid").exists()

    def test_an_embedded_postgres_with_a_partition_for_each_month(self, tmp_path: Path) -> None:
        asked = ["--duration", "1", "--sinks", "postgres"]
        settings = {"DTOLBUS_BLOCKS": "samples", "DTOLBUS_INDEX": "none", "DTOLBUS_PARTITION": "month"}
        with Up(tmp_path / "data", *asked, **settings) as up:
            assert_complete(up, up.end())
        with Up(tmp_path / "data", *asked, "--blocks", "samples") as again:
            assert_complete(again, again.end())
        with Up(tmp_path / "data", *asked, "--partition", "none") as otherwise:
            assert otherwise.end() == 3
        assert "--partition none was asked for, and it is partitioned by RANGE (t_utc)" in otherwise.errors


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("options", "code", "said"),
        [
            (["--frobnicate"], 2, "No such option"),
            (["--duration", "-1"], 2, "--duration"),
            (["--sinks", "parket"], 2, "'parket'; did you mean 'parquet'?"),
            (["--sinks", ","], 2, "--sinks names none"),
            (["--board", "dt9999"], 2, "'dt9999' is no board; there are sim, sim-fast"),
            (["--board", "playback:missing.npz"], 2, "missing.npz: there is no such file"),
            (["--board", "playback:x.npz", "--rate", "5"], 2, "--rate"),
            (["--speed", "fast"], 2, "--speed fast: give a number above 0, or max"),
            (["--catch-up", "--sinks", "csv"], 2, "--duration and --catch-up"),
            (["--meta", "operator"], 2, "'operator' is not KEY=VALUE"),
            (["--config", "missing.toml"], 2, "missing.toml: the config cannot be read"),
            (["--config", "missing.toml", "--board", "sim"], 2, "--board and --config"),
            (["--pub-port", "5700", "--catchup-port", "5700"], 2, "5700"),
            (["--data", "/dev/null/data"], 3, "cannot be written"),
        ],
    )
    def test_one_line_and_the_exit_code(self, tmp_path: Path, options: list[str], code: int, said: str) -> None:
        failed = run("dtolbus", "up", "--data", str(tmp_path / "data"), "--duration", "1", *options)
        assert failed.returncode == code
        assert said in failed.stderr
        assert failed.stderr.count("\n") == 1
        assert not (tmp_path / "data").exists()

    def test_a_port_in_use(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            other = str(free_ports(1)[0])
            failed = run(
                *("dtolbus", "up", "--data", str(tmp_path / "data"), "--duration", "1"),
                *("--pub-port", other, "--catchup-port", port),
            )
        assert failed.returncode == 3
        assert failed.stderr == (
            f"dtolbus: port {port} is in use: stop what uses it, or choose another with --catchup-port\n"
        )
        assert runs(tmp_path / "data") == {}

    def test_a_database_that_is_not_there(self, tmp_path: Path) -> None:
        dsn = f"postgresql://ada:s3cret@127.0.0.1:{free_ports(1)[0]}/lab"
        with Up(tmp_path / "data", "--duration", "1", DTOLBUS_DSN=dsn) as up:
            code = up.end()
        assert code == 3
        assert up.errors.count("\n") == 1
        assert "start the server" in up.errors
        assert "s3cret" not in up.output + up.errors
        assert all("s3cret" not in path.read_text() for path in (up.data / "logs").iterdir())
        assert runs(up.data) == {}

    def test_a_second_up_on_the_same_folder(self, tmp_path: Path) -> None:
        with Up(tmp_path / "data", "--sinks", "csv") as first:
            first.wait_for_pids("gateway")
            assert (first.data / LOCK_FILE).exists()
            with Up(tmp_path / "data", "--duration", "1") as second:
                assert second.end() == 3
                assert "has a `dtolbus up` already" in second.errors
            first.process.send_signal(signal.SIGINT)
            first.end()

    def test_a_destination_that_holds_something_else(self, tmp_path: Path) -> None:
        place = tmp_path / "data" / "dtolbus.sqlite"
        place.parent.mkdir()
        with contextlib.closing(sqlite3.connect(place)) as database:
            database.execute("CREATE TABLE blocks (something TEXT)")
            database.commit()
        before = place.read_bytes()
        with Up(tmp_path / "data", "--duration", "1", "--sinks", "sqlite") as up:
            code = up.end()
        assert code == 3
        assert "dtolbus.sqlite" in up.errors
        assert place.read_bytes() == before
