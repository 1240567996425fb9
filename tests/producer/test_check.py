"""`dtolbus check`: what it tells is what then happens, and it leaves nothing behind."""

import json
import re
import socket

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, config_of, records_of
from tests.producer.looking import call

from dtolbus.chunks import encode_record
from dtolbus.records import DaqEvent
from dtolbus_producer.boards.sim import SimBoard
from dtolbus_producer.checking.forecast import hours_left, journal_bytes_s, sink_bytes_s
from dtolbus_producer.checking.report import DiskReport, PlaceReport
from dtolbus_producer.checking.warnings import warnings_of
from dtolbus_producer.config import Config
from dtolbus_producer.locking import locked
from dtolbus_producer.lookingcli import check
from dtolbus_producer.stack import LOCK_FILE

LAB = """\
[run]
operator = "Ada"
[[device]]
name = "rig"
[[device.task]]
name = "vibration"
rate_hz = 7000
block_s = 0.05
channels = ["x", { name = "y", range = 1, unit = "g", sensitivity_v = 0.1, sensor = "352C33 SN 7" }]
[gateway]
pub_port = 0
catchup_port = 0
[[sink]]
kind = "sqlite"
blocks = "both"
[[sink]]
kind = "csv"
"""


@pytest.fixture
def lab(tmp_path):
    path = tmp_path / "lab.toml"
    path.write_text(LAB)
    return path


def asked(lab, *words):
    return ["--config", lab, "--data", lab.parent / "data", *words]


def test_it_tells_each_channel_the_rate_read_back_and_where_everything_goes(lab, capsys):
    done = call(check, asked(lab, "--meta", "specimen=bearing"), capsys)

    assert (done.code, done.err) == (0, "")
    data = lab.parent / "data"
    for words in (
        "7001.166861 Hz a channel (asked: 7000 Hz)",
        "blocks of 350 samples (0.04999 s)",
        "until it is stopped",
        "y 1 -1 to 1 V 10 -10 to 10 g 0.00031 g 352C33 SN 7",
        str(data / "journal"),
        str(data / "dtolbus.sqlite"),
        "operator = 'Ada', specimen = 'bearing'",
        "any free port, free",
    ):
        assert words in " ".join(done.out.split())
    assert [path.name for path in lab.parent.iterdir()] == ["lab.toml"]


def test_a_conversion_that_no_voltage_of_the_range_has_a_value_of_is_a_problem(tmp_path, capsys):
    lab = tmp_path / "lab.json"
    channels = [
        {"name": "load", "range": 1.0, "unit": "kN", "table": [[20, 0], [30, 1]]},
        {"name": "pt", "physical": 1, "rtd": {"r0_ohm": 100, "excitation_a": 1}},
        {"name": "cold", "physical": 2, "range": 0.1, "rtd": {"r0_ohm": 100, "excitation_a": 0.001}},
    ]
    lab.write_text(json.dumps({"device": [{"name": "dev", "task": [{"name": "t", "channels": channels}]}]}))
    done = call(check, asked(lab), capsys)
    assert done.code == 2
    assert "channel 'load': no voltage of its range gives a value: look at its range (-1 to 1 V) or gain" in done.err
    assert "and at its table" in done.err
    assert "channel 'pt': no voltage" in done.err
    assert "'cold'" not in done.err
    assert re.search(r"cold +2 +-0\.1 to 0\.1 V +100 +-199\.\d+ to -0\.\d+ °C", done.out), done.out


@pytest.mark.parametrize(
    ("junction", "says"),
    [
        ({"range": 10, "sensitivity_v": 0.01}, None),
        ({"range": 1, "sensitivity_v": 0.01}, None),
        ({"range": 0.1, "sensitivity_v": 0.01}, "a cold junction that measures -10 to 10 °C in its range"),
        ({"range": 10, "rtd": {"r0_ohm": 100, "excitation_a": 0.001}}, None),
        ({"range": 0.1, "rtd": {"r0_ohm": 100, "excitation_a": 0.001}}, " °C in its range: terminals have 0 to 50 °C"),
    ],
)
def test_a_cold_junction_that_cannot_measure_a_room_is_noted(tmp_path, capsys, junction, says):
    lab = tmp_path / "lab.json"
    terminals = {"name": "terminals", "physical": 0, "unit": "°C", **junction}
    channels = [{"name": "tc", "physical": 1, "thermocouple": "K", "cold_junction": "terminals"}, terminals]
    lab.write_text(json.dumps({"device": [{"name": "dev", "task": [{"name": "t", "channels": channels}]}]}))
    done = call(check, asked(lab), capsys)
    assert done.code == 0
    notes = [line.strip() for line in done.out.partition("look at these")[2].splitlines() if "a cold junction" in line]
    assert len(notes) == (0 if says is None else 1)
    assert all(says in note and "channel 'terminals'" in note for note in notes)
    warnings = json.loads(call(check, asked(lab, "--json"), capsys).out)["warnings"]
    assert [warning for warning in warnings if "a cold junction" in warning] == notes


def test_as_json_it_is_whole(lab, capsys):
    done = call(check, asked(lab, "--json", "--duration", "2"), capsys)
    report = json.loads(done.out)
    (device,) = report["devices"]
    (task,) = device["tasks"]
    assert (task["rate_asked_hz"], round(task["rate_hz"], 3), task["block_samples"]) == (7000.0, 7001.167, 350)
    assert task["samples"] == 14_002
    assert [(place["what"], place["bytes_s"] > 0) for place in report["places"]] == [
        ("journal", True),
        ("sqlite", True),
        ("csv", False),
    ]
    journal, sqlite, _ = report["places"]
    (disk,) = report["disks"]
    assert disk["bytes_s"] == journal["bytes_s"] + sqlite["bytes_s"]
    assert journal["hours_left"] == disk["hours_left"]
    room = disk["free_bytes"] - disk["kept_free_bytes"]
    assert disk["hours_left"] == pytest.approx(room / disk["bytes_s"] / 3600)
    assert report["problems"] == []


def test_a_simulation_that_runs_faster_fills_the_disk_faster(lab, capsys):
    def told(speed):
        lab.write_text(LAB.replace('name = "rig"', f'name = "rig"\noptions = {{ speed = {speed} }}'))
        return json.loads(call(check, asked(lab, "--json"), capsys).out)

    usual, fast, fastest = told("1"), told("100"), told("'max'")
    for place, faster in zip(usual["places"], fast["places"], strict=True):
        assert faster["bytes_s"] == pytest.approx(100 * place["bytes_s"])
    (disk,) = fast["disks"]
    assert disk["hours_left"] == pytest.approx((disk["free_bytes"] - disk["kept_free_bytes"]) / disk["bytes_s"] / 3600)
    assert [report["devices"][0]["tasks"][0]["speed"] for report in (usual, fast, fastest)] == [1, 100, None]
    assert [place["bytes_s"] for place in fastest["places"]] == [place["bytes_s"] for place in usual["places"]]
    told_of_speed = [
        [warning for warning in report["warnings"] if "fast" in warning] for report in (usual, fast, fastest)
    ]
    assert told_of_speed == [
        [],
        [],
        [
            "device 'rig', task 'vibration': as fast as the journal takes it: "
            "bytes a second are those at its rate, the least"
        ],
    ]
    assert "100 times as fast; " in (told("100") and call(check, asked(lab), capsys).out)


def test_a_recording_that_is_played_faster_fills_the_disk_faster(tmp_path, capsys):
    path = tmp_path / "r.npz"
    np.savez(path, codes=np.zeros((1, 100), np.int16), channels=["a"], unit="V", full_scale=1.0, rate_hz=1000.0)
    slow, fast = (
        json.loads(
            call(
                check, ["--board", f"playback:{path}", "--speed", speed, "--data", tmp_path / "d", "--json"], capsys
            ).out
        )
        for speed in ("1", "8")
    )
    assert fast["places"][0]["bytes_s"] == pytest.approx(8 * slow["places"][0]["bytes_s"])


@pytest.mark.parametrize(("block_s", "is_told"), [("10", False), ("11", True)])
def test_a_block_that_takes_long_to_fill_is_told_and_keeps_nothing_from_starting(lab, capsys, block_s, is_told):
    lab.write_text(LAB.replace("block_s = 0.05", f"block_s = {block_s}"))
    done = call(check, asked(lab), capsys)
    assert (done.code, done.err) == (0, "")
    says = (
        "  device 'rig', task 'vibration': a block is 11 s long: nothing of a block is safe, seen or stored before "
        "it is full; give block_s, 10 at most\n"
    )
    assert (says in done.out) == is_told


@pytest.mark.parametrize(
    "task",
    [
        {"name": "t", "rate_hz": 10_000, "channels": ["a", "b", "c"]},
        {"name": "t", "rate_hz": 20_000, "block_samples": 64, "channels": ["a"]},
        {"name": "t", "rate_hz": 500, "kind": "readings", "channels": ["a", "b", "c", "d"]},
    ],
)
def test_the_journal_then_grows_as_it_was_told(tmp_path, capsys, task):
    lab = tmp_path / "lab.json"
    lab.write_text(json.dumps({"device": [{"name": "dev", "task": [task]}]}))
    report = json.loads(call(check, asked(lab, "--json"), capsys).out)
    told = report["devices"][0]["tasks"][0]
    assert report["places"][0]["bytes_s"] == told["journal_bytes_s"]

    options = {} if task.get("kind") == "readings" else {"speed": "max"}
    (run,) = acquire_all(config_of({**task, "samples": task["rate_hz"]}, options=options), tmp_path / "data")

    written = sum(path.stat().st_size for path in run.path.glob("*.dt-r*"))
    records = records_of(run)
    events = [record for record in records if isinstance(record, DaqEvent)]  # polls that a busy machine missed
    written -= sum(len(part) for event in events for part in encode_record(event, event.index))
    records_s = told["rate_hz"] / told["block_samples"]
    assert written / (len(records) - len(events)) == pytest.approx(told["journal_bytes_s"] / records_s, rel=0.05)


def test_a_port_in_use_a_taken_folder_and_a_foreign_host_are_exit_3_below_the_report(lab, capsys):
    with socket.socket() as taken, locked(lab.parent / "data" / LOCK_FILE, ""):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call(check, asked(lab, "--pub-port", port), capsys)
    assert done.code == 3
    assert "7001.166861 Hz" in done.out
    assert done.err.count("\n") == 1
    assert f"port {port} is in use: stop what uses it, or choose another with --pub-port" in done.err
    assert "has a `dtolbus up` already" in done.err

    lab.write_text(LAB.replace("pub_port = 0", 'host = "198.51.100.1"'))
    done = call(check, asked(lab), capsys)
    assert done.code == 3
    assert "gateway.host = '198.51.100.1': this machine has no such address" in done.err


def test_a_data_folder_that_is_a_file_is_exit_3(lab, capsys):
    (lab.parent / "data").write_text("mine")
    done = call(check, asked(lab), capsys)
    assert done.code == 3
    assert f"{lab.parent / 'data'} is not a folder: choose another with --data" in done.err
    assert (lab.parent / "data").read_text() == "mine"


def test_a_board_that_is_away_is_exit_3_and_the_rest_is_told(lab, capsys, monkeypatch):
    real_init = SimBoard.__init__

    def away(self, device):
        real_init(self, device)
        self._away_until_ns = 1 << 63

    monkeypatch.setattr(SimBoard, "__init__", away)
    done = call(check, asked(lab), capsys)
    assert done.code == 3
    assert "not to be had: DT9806 (simulated): the board is not there" in done.out
    assert "journal" in done.out
    assert "device 'rig': DT9806 (simulated): the board is not there; connect the board" in done.err


class TestLookAtThese:
    """What can run, and may not be meant: told, and exit 0."""

    def told(self, lab, capsys, task, *, top="", device="", words=()):
        lab.write_text(
            f'{top}\n[gateway]\npub_port = 0\ncatchup_port = 0\n[[device]]\nname = "rig"\n{device}\n'
            f'[[device.task]]\nname = "t"\n{task}\n[[sink]]\nkind = "parquet"\n'
        )
        words = words or ("--data", lab.parent / "data")
        machine = call(check, ["--config", lab, "--json", *words], capsys)
        assert (machine.code, machine.err) == (0, "")
        warnings = json.loads(machine.out)["warnings"]
        done = call(check, ["--config", lab, *words], capsys)
        assert (done.code, done.err) == (0, "")
        section = done.out.partition("look at these\n")[2]
        assert section.splitlines() == [f"  {warning}" for warning in warnings]
        return [warning.removeprefix("device 'rig', task 't': ").removeprefix("device 'rig', ") for warning in warnings]

    def test_nothing_to_look_at_is_not_told(self, lab, capsys):
        task = 'rate_hz = 10_000\nchannels = [{ name = "x", range = 10, unit = "g", sensitivity_v = 0.1 }, "y"]'
        assert self.told(lab, capsys, task) == []
        assert "look at these" not in call(check, ["--config", lab, "--data", lab.parent / "data"], capsys).out

    @pytest.mark.parametrize(
        ("task", "says"),
        [
            (
                'channels = [{ name = "x", physical = 3 }, { name = "y", physical = 3 }]',
                ["task 't', channels 'x', 'y' are all on input 3: give each its own `physical`"],
            ),
            (
                'channels = [{ name = "x", range = 5 }, { name = "y", range = 5 }, { name = "z", range = 0.05 }]',
                [
                    "task 't', channels 'x', 'y': range 5 → -10 to 10 V: the board has no nearer one that holds it",
                    "task 't', channel 'z': range 0.05 → -0.1 to 0.1 V: the board has no nearer one that holds it",
                ],
            ),
            (
                'channels = [{ name = "x", unit = "g", sensitivity_v = 100 }]',
                ["task 't', channel 'x': sensitivity_v = 100 V for one g: it measures ±0.1 g at most: 100 mV for"],
            ),
            (
                'channels = [{ name = "x", unit = "g", sensitivity_v = 0.0001 }]',
                ["task 't', channel 'x': sensitivity_v = 0.0001 V for one g: its range is ±1e+05 g: 100 mV for one g"],
            ),
            (
                'channels = [{ name = "x", unit = "widgets", sensitivity_v = -20 }]',
                ["sensitivity_v = -20 V for one widgets turns the sign", "it measures ±0.5 widgets at most"],
            ),
            (
                'channels = [{ name = "x", thermocouple = "K", cold_junction = 25, gain = 1 }]',
                ["task 't', channel 'x': one code is 7.", "°C: give it a smaller range or a higher gain"],
            ),
            ('channels = [{ name = "x", thermocouple = "K", cold_junction = 25 }]', []),
            (
                'kind = "readings"\nrate_hz = 500\nchannels = ["x"]',
                ["500 polls a second: each poll is a call of its own"],
            ),
            ('kind = "readings"\nrate_hz = 100\nchannels = ["x"]', []),
            (
                'rate_hz = 51_200\nchannels = ["a", "b", "c", "d"]',
                ["the board's clock cannot do 51200 Hz: it does 51282.05128 Hz, +0.16 %"],
            ),
        ],
    )
    def test_what_a_channel_or_a_task_may_not_mean(self, lab, capsys, task, says):
        found = self.told(lab, capsys, task, device="options = { throughput_hz = 204_800 }")
        for words in says:
            assert any(words in warning for warning in found), found
        if not says:
            assert found == []

    def test_a_sink_that_takes_many_times_the_journals_bytes_is_named_with_its_mode(self, lab, capsys):
        both = '\n[[sink]]\nkind = "sqlite"\nblocks = "both"'
        (found,) = self.told(lab, capsys, f'rate_hz = 10_000\nchannels = ["x", "y"]{both}')
        assert re.match(
            r"sink 'sqlite' takes \d\d times the journal's, \d+\.\d GiB a day: that is blocks = 'both'; ", found
        )
        assert self.told(lab, capsys, f'rate_hz = 10_000\nchannels = ["x", "y"]{both.replace("both", "summary")}') == []
        disk = json.loads(call(check, asked(lab, "--json"), capsys).out)["disks"][0]
        assert disk["most_by"] in ("journal", "parquet")

    def test_a_relative_folder_and_keys_that_fell_into_run_are_told(self, lab, capsys, monkeypatch):
        monkeypatch.chdir(lab.parent)
        top = 'data = "rigs"\n[run]\ndata = "mine"\ndate = 2026-02-11\n[run.journal]\nmax_size = "1G"'
        found = self.told(lab, capsys, 'channels = ["x"]', top=top, words=("--log-level", "warning"))
        assert found == [
            "data = 'mine' stands in [run]: it is metadata, and the data folder is 'rigs'; "
            "for the folder move the line to the top, above [run]",
            "[run.journal] is metadata: write [journal]",
            f"data = 'rigs' is below the folder that this was started in: {lab.parent / 'rigs'}; "
            "a service needs the whole path",
        ]
        assert "date = 2026-02-11," in call(check, ["--config", lab], capsys).out

    def test_a_board_that_cannot_be_looked_at_is_in_no_number(self, lab, capsys):
        done = call(check, ["--board", "uldaq", "--data", lab.parent / "data", "--json"], capsys)
        assert done.code == 3
        assert json.loads(done.out)["warnings"] == [
            "device 'uldaq0' could not be looked at: what it will take is in none of these numbers"
        ]

    def test_of_several_disks_the_first_to_be_full_is_named_with_who_fills_it(self):
        known = {"free_bytes": 1 << 40, "kept_free_bytes": 0, "bytes_s": 1e6}
        disks = [
            DiskReport(disk="/", hours_left=900.0, most_by="journal", **known),
            DiskReport(disk="/mnt/second", hours_left=90.0, most_by="sqlite", **known),
        ]
        journal = PlaceReport(what="journal", kind="journal", place="/j", bytes_s=1.0, disk="/", hours_left=900.0)
        config = Config(data="/rig")
        (found,) = warnings_of(config, [], [journal], disks)
        assert found == "the disk /mnt/second is full first; most of what goes there is written by sqlite"
        assert list(warnings_of(config, [], [journal], disks[:1])) == []

    def test_one_sample_is_one_sample(self, lab, capsys):
        lab.write_text(LAB.replace("block_s = 0.05", "block_samples = 1\nsamples = 1"))
        assert "blocks of 1 sample (" in (out := call(check, asked(lab), capsys).out)
        assert "ends after 1 sample\n" in out


class TestForecast:
    def run_info(self, **fields):
        from dtolbus.records import Channel, RunInfo

        known = {"run_id": "r", "device": "d", "task": "t", "kind": "blocks", "started_utc_ns": 0, "started_mono_ns": 0}
        channels = tuple(Channel(name) for name in "abcd")
        return RunInfo(**{**known, "channels": channels, "rate_hz": 1000.0, "block_samples": 100, **fields})

    def test_codes_of_16_bit_take_two_bytes_and_a_little(self):
        assert 8000 < journal_bytes_s(self.run_info(dtype="uint16")) < 13_000

    def test_a_sink_takes_its_topics_only_and_what_blocks_says(self):
        run = self.run_info()
        assert sink_bytes_s("sqlite", None, ("reading/",), run) == 0
        assert sink_bytes_s("csv", None, (), run) == 0
        both, samples, summary = (sink_bytes_s("sqlite", mode, (), run) for mode in ("both", "samples", "summary"))
        assert both == samples + summary
        assert samples > 100 * summary / 2 > 0

    def test_hours(self):
        assert hours_left(3600 * 1000, 1000.0) == 1.0
        assert hours_left(-5, 1000.0) == 0.0
        assert hours_left(1000, 0.0) is None
