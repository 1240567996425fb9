"""What `up` works out before and while it runs: its plan, its children, its progress, its table."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from tests.e2e.commands import run, running
from tests.producer.bus import eventually
from tests.protocol.specimens import block_run, reading_run

from dtolbus.errors import CannotStartError, UsageError
from dtolbus.records import RunInfo, RunStatus
from dtolbus.registrations import Registration, SinkPosition
from dtolbus.runs import list_runs
from dtolbus_producer.children import Child, ChildSpec, environment
from dtolbus_producer.plan import UpOptions, resolve, worker_arguments
from dtolbus_producer.progress import Rates, SinkProgress, Snapshot, sink_progress, what_is_behind
from dtolbus_producer.table import View, line_of, say, table_of


class TestPlan:
    def test_without_options_it_is_the_two_simulated_boards_and_four_sinks(self) -> None:
        config = resolve(UpOptions())
        assert [(d.name, d.tasks[0].name, d.tasks[0].kind) for d in config.devices] == [
            ("sim0", "vibration", "blocks"),
            ("sim1", "temperature", "readings"),
        ]
        assert [sink.kind for sink in config.sinks] == ["parquet", "sqlite", "csv", "jsonl"]
        assert config.devices[0].tasks[0].rate_hz == 10_000
        assert len(config.devices[0].tasks[0].channels) == 4

    def test_a_dsn_adds_postgres_and_stands_on_no_command_line(self) -> None:
        config = resolve(UpOptions(dsn="postgresql://ada:s3cret@db/lab", blocks="both"))
        assert [sink.kind for sink in config.sinks] == ["parquet", "sqlite", "csv", "jsonl", "postgres"]
        lines = [list(worker_arguments(sink, config, Path("/data"))) for sink in config.sinks]
        assert all("s3cret" not in word for line in lines for word in line)
        assert [("--blocks" in line) for line in lines] == [False, True, False, False, True]

    def test_a_dsn_beside_a_config_goes_to_its_postgres_sink_or_adds_one(self, tmp_path: Path) -> None:
        task = '[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nrate_hz = 10\nchannels = ["a"]\n'
        dsn = "postgresql://lab@dbhost/other"
        for sinks, expected in (
            ('[[sink]]\nkind = "csv"\n', [("csv", None), ("postgres", dsn)]),
            ('[[sink]]\nkind = "postgres"\nname = "pg"\ndsn = "postgresql://lab@dbhost/one"\n', [("pg", dsn)]),
        ):
            path = tmp_path / "dtolbus.toml"
            path.write_text(task + sinks)
            config = resolve(UpOptions(config=path, dsn=dsn))
            assert [(sink.name, sink.dsn) for sink in config.sinks] == expected

    def test_how_tables_are_made_goes_to_the_postgres_sink_alone(self, tmp_path: Path) -> None:
        config = resolve(UpOptions(sinks="sqlite,postgres", index="none", partition="month"))
        lines = [" ".join(worker_arguments(sink, config, Path("/data"))) for sink in config.sinks]
        assert ["--index none --partition month" in line for line in lines] == [False, True]
        assert "--hypertable" not in lines[1]
        config = resolve(UpOptions(dsn="postgresql://db/lab", hypertable=True))
        assert "--hypertable" in worker_arguments(config.sinks[-1], config, Path("/data"))
        path = tmp_path / "dtolbus.toml"
        path.write_text('[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nrate_hz = 10\nchannels = ["a"]\n')
        for options, told in (
            (UpOptions(partition="month"), "--partition is the sink postgres's, which does not run"),
            (
                UpOptions(config=path, index="brin"),
                "--index and --config: set index in the .sink.options.",
            ),
            (
                UpOptions(catch_up=True, hypertable=True),
                "--hypertable and --catch-up: .* stores as it did",
            ),
            (UpOptions(sinks="postgres", partition="month", hypertable=True), "a hypertable has its own parts"),
        ):
            with pytest.raises(UsageError, match=told):
                resolve(options)

    def test_sinks_named_are_the_sinks(self) -> None:
        config = resolve(UpOptions(dsn="postgresql://db/lab", sinks="csv, parquet,csv"))
        assert [sink.kind for sink in config.sinks] == ["csv", "parquet"]

    def test_layout_and_values_are_the_parquet_sinks(self) -> None:
        config = resolve(UpOptions(layout="wide", values="codes"))
        lines = {sink.kind: list(worker_arguments(sink, config, Path("/data"))) for sink in config.sinks}
        assert lines["parquet"][-4:] == ["--layout", "wide", "--values", "codes"]
        assert not any("--layout" in line for kind, line in lines.items() if kind != "parquet")

    @pytest.mark.parametrize(("beside", "words"), [("config", "[sink.options]"), ("catch_up", "as it did")])
    def test_layout_and_values_are_refused_beside_what_says_them(self, tmp_path: Path, beside: str, words: str) -> None:
        path = tmp_path / "dtolbus.toml"
        path.write_text('[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nrate_hz = 10\nchannels = ["a"]\n')
        given = {"config": path} if beside == "config" else {"catch_up": True}
        for form in ({"layout": "wide"}, {"values": "float32"}):
            with pytest.raises(UsageError, match=f"--{next(iter(form))} and --.*{re.escape(words)}"):
                resolve(UpOptions(**given, **form))  # type: ignore[arg-type]  # by keyword

    def test_the_duration_is_every_tasks(self) -> None:
        config = resolve(UpOptions(duration_s=2.5, rate_hz=2000.0))
        assert [device.tasks[0].samples_asked(2000.0) for device in config.devices] == [5000, 5000]

    @pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "quick"])
    def test_a_speed_that_is_none(self, speed: str) -> None:
        with pytest.raises(UsageError, match="--speed"):
            resolve(UpOptions(speed=speed))


class TestProducerCommand:
    CONFIG = (
        '[[device]]\nname = "{0}"\nboard = "sim"\n[[device.task]]\nname = "t"\nrate_hz = 2000\nchannels = ["a", "b"]\n'
    )

    @pytest.mark.parametrize("devices", [["one"], ["one", "two"]])
    def test_all_devices_run_for_exactly_the_duration(self, tmp_path: Path, devices: list[str]) -> None:
        config = tmp_path / "lab.toml"
        config.write_text("".join(self.CONFIG.format(name) for name in devices))
        done = run(
            *("dtolbus-producer", "run", "--config", str(config)),
            *("--data", str(tmp_path / "data"), "--duration", "0.3"),
        )
        assert done.returncode == 0, done.stderr
        found = {folder.info.device: folder.refresh() for folder in list_runs(tmp_path / "data" / "journal")}
        assert {name: (file.state, file.samples) for name, file in found.items()} == dict.fromkeys(
            devices, ("ended", 600)
        )
        if len(devices) > 1:  # one process for each: their words are this one's
            for name in devices:
                assert re.search(rf"recording .*stream={name}/t .*channels='?a, b'? ", done.stderr), done.stderr

    def test_a_device_that_cannot_start_costs_another_one_nothing(self, tmp_path: Path) -> None:
        config = tmp_path / "lab.toml"
        away = self.CONFIG.format("away").replace('"sim"', '"dtollib"')
        config.write_text(self.CONFIG.format("one") + away)
        words = ("--config", str(config), "--data", str(tmp_path / "data"), "--duration", "4")
        done = run("dtolbus-producer", "run", *words)
        assert done.returncode == 3, done.stderr
        assert "a device cannot start, tried again part=acquisition-away" in done.stderr
        (only,) = list_runs(tmp_path / "data" / "journal")
        assert (only.info.device, only.refresh().state, only.refresh().samples) == ("one", "ended", 8000)

    def test_a_second_producer_of_a_device_is_refused(self, tmp_path: Path) -> None:
        config = tmp_path / "lab.toml"
        config.write_text(self.CONFIG.format("one"))
        words = ("--config", str(config), "--data", str(tmp_path / "data"))
        with running("dtolbus-producer", "run", *words):
            eventually(lambda: (tmp_path / "data" / "journal").exists() and list_runs(tmp_path / "data" / "journal"))
            second = run("dtolbus-producer", "run", *words, "--duration", "1")
        assert second.returncode == 3
        assert "device 'one' is recorded into" in second.stderr
        assert len(list_runs(tmp_path / "data" / "journal")) == 1

    def test_a_device_that_is_not_there(self, tmp_path: Path) -> None:
        config = tmp_path / "lab.toml"
        config.write_text(self.CONFIG.format("one"))
        failed = run(
            *("dtolbus-producer", "run", "--config", str(config), "--device", "two"), *("--data", str(tmp_path))
        )
        assert failed.returncode == 2
        assert failed.stderr.count("\n") == 1
        assert "'two'" in failed.stderr


class TestChildren:
    def child(self, logs: Path, code: str, *, ends_by_itself: bool = False) -> Child:
        (logs / "a_child.py").write_text(code)
        return Child(ChildSpec("part", lambda: ["a_child"], {"PYTHONPATH": str(logs)}, ends_by_itself), logs)

    def tended(self, child: Child, is_so: object) -> None:
        clock = iter(range(0, 10_000, 60))

        def look() -> bool:
            child.tend(float(next(clock)))
            return bool(is_so())  # type: ignore[operator]

        eventually(look)

    def test_one_that_dies_is_started_again(self, tmp_path: Path) -> None:
        child = self.child(tmp_path, "import sys; sys.exit(1)")
        child.is_settled = True
        child.start(0.0)
        self.tended(child, lambda: child.restarts >= 3)
        child.stop()
        child.end(20.0)

    @pytest.mark.parametrize(("code", "error"), [(2, UsageError), (3, CannotStartError)])
    def test_one_that_can_never_start_ends_all_with_its_last_words(
        self, tmp_path: Path, code: int, error: type[Exception]
    ) -> None:
        child = self.child(tmp_path, f"import sys; print('dtolbus-x: no port', file=sys.stderr); sys.exit({code})")
        child.start(0.0)
        with pytest.raises(error, match=r"^no port$"):
            self.tended(child, lambda: False)

    def test_one_that_crashes_at_each_start_ends_all_too(self, tmp_path: Path) -> None:
        child = self.child(tmp_path, "raise RuntimeError('broken')")
        child.start(0.0)
        with pytest.raises(
            CannotStartError, match=r"part ends with exit code 1: RuntimeError: broken \(see .*part.log"
        ):
            self.tended(child, lambda: False)

    def test_its_stdin_ends_it_and_its_work_is_done(self, tmp_path: Path) -> None:
        child = self.child(tmp_path, "import sys; sys.stdin.read()", ends_by_itself=True)
        child.start(0.0)
        assert child.pid is not None
        child.stop()
        assert child.end(20.0)
        assert (child.is_done, child.pid, child.restarts) == (True, None, 0)

    def test_one_that_does_not_end_is_killed(self, tmp_path: Path) -> None:
        child = self.child(tmp_path, "import time; time.sleep(600)")
        child.start(0.0)
        child.stop()
        assert not child.end(0.1)
        assert child.pid is None

    def test_settings_for_up_do_not_reach_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DTOLBUS_DURATION", "5")
        monkeypatch.setenv("DTOLBUS_DSN", "postgresql://db")
        monkeypatch.setenv("DTOLBUS_LOG_FORMAT", "json")
        passed = environment({"DTOLBUS_DSN": "other"})
        assert {key: value for key, value in passed.items() if key.startswith("DTOLBUS_")} == {
            "DTOLBUS_LOG_FORMAT": "json",
            "DTOLBUS_LOG_LEVEL": "info",
            "DTOLBUS_DSN": "other",
        }


def sink_at(topics: Sequence[str] = (), **positions: int) -> Registration:
    stored = {run.replace("_", "-"): SinkPosition("", position) for run, position in positions.items()}
    return Registration(name="s", sink="csv", place="/", destination_id="1", topics=tuple(topics), positions=stored)


class TestProgress:
    blocks: RunInfo = block_run("run-1")
    polls: RunInfo = reading_run("run-2")

    def test_a_sink_is_behind_until_it_has_all_that_it_takes(self) -> None:
        over = [RunStatus(self.blocks, "ended", 0, 40), RunStatus(self.polls, "interrupted", 0, 7)]
        assert what_is_behind({"s": sink_at(run_1=40, run_2=7)}, over) == {}
        assert what_is_behind({"s": sink_at(["reading/"], run_2=7)}, over) == {}
        assert what_is_behind({"s": sink_at(run_1=40, run_2=6)}, over) == {"s": SinkProgress(46, 47)}
        assert what_is_behind({"s": None}, over) == {"s": SinkProgress(0, 47)}
        running = [RunStatus(self.polls, "running", 0, 7)]
        assert "s" in what_is_behind({"s": sink_at(run_2=7)}, running)
        assert what_is_behind({"s": sink_at(["block/"], run_2=7)}, running) == {}

    def test_lag_and_rates(self) -> None:
        assert sink_progress(sink_at(run_1=30), [RunStatus(self.blocks, "running", 0, 40)]).lag == 10
        rates = Rates()
        for second in range(10):
            rates.add(Snapshot(second, {"a/b": 1000 * second}, {"a/b": second}, {"s": SinkProgress(5 * second, 50)}))
        assert rates.of_stream("a/b") == 1000
        assert rates.of_sink("s") == 5

    def test_the_table_shows_streams_and_sinks(self) -> None:
        rates = Rates()
        shown = Snapshot(1.0, {"sim0/vib": 500}, {"sim0/vib": 5}, {"parquet": SinkProgress(3, 5)})
        rates.add(shown)
        remark = "sim0/vib: acc [y] at the end of its range: 12 % of samples"
        restarts = {"sink-parquet": 4, "gateway": 1, "acquisition-sim0": 2}
        view = View(12.0, "acquiring", shown, rates, restarts, {"parquet": 10.0}, (remark,))
        console = Console(file=io.StringIO(), width=120)
        console.print(table_of(view))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 2}
        assert [cell.strip() for cell in rows["sim0/vib"].split("│")[2:-1]] == ["5", "", "0 samples/s", "2", ""]
        assert [cell.strip() for cell in rows["parquet"].split("│")[2:-1]] == ["3", "2", "0 records/s", "4", "10 s"]
        assert "1" in rows["gateway"]
        assert "lag: records not stored yet" in text
        assert line_of(view).startswith("  12.0 s acquiring: sim0/vib 5 (0/s) | parquet 3 lag 2")
        assert "parquet restarted 4×" in line_of(view)
        assert remark in " ".join(text.split())
        assert line_of(view).endswith(f" | {remark}")


def test_for_machines_news_on_stderr_are_objects_and_what_people_read_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTOLBUS_LOG_FORMAT", "json")
    say("csv has stored nothing for 12 s", err=True)
    say("COMPLETE: nothing is missing")
    told = capsys.readouterr()
    news = json.loads(told.err)
    assert (news["level"], news["message"]) == ("warning", "csv has stored nothing for 12 s")
    assert told.out == "COMPLETE: nothing is missing\n"


def test_the_pids_are_there_to_read(tmp_path: Path) -> None:
    done = run(
        *("dtolbus", "up", "--data", str(tmp_path / "data"), "--duration", "0.2", "--sinks", "csv"),
        *("--config", str(_zero_ports(tmp_path))),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pids = json.loads((tmp_path / "data" / "logs" / "pids.json").read_text())
    assert set(pids) == {"gateway", "sink-csv", "acquisition-d"}


def _zero_ports(folder: Path) -> Path:
    path = folder / "lab.toml"
    path.write_text(
        "[gateway]\npub_port = 0\ncatchup_port = 0\n"
        '[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nkind = "readings"\nrate_hz = 50\nchannels = ["a"]\n'
    )
    return path
