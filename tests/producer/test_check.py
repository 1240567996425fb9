"""`dtolbus check`: what it tells is what then happens, and it leaves nothing behind."""

import json
import re
import socket

import numpy as np
import pytest
from tests.producer.acquired import acquire_all, config_of
from tests.producer.looking import call

from dtolbus_producer.boards.sim import SimBoard
from dtolbus_producer.checking.forecast import hours_left, journal_bytes_s, sink_bytes_s
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
        "y 1 -1 to 1 V 10 -10 to 10 g 352C33 SN 7",
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
    assert done.code == 3
    assert "channel 'load': no voltage of its range gives a value: look at its range" in done.err
    assert "channel 'pt': no voltage" in done.err
    assert "'cold'" not in done.err
    assert re.search(r"cold +2 +-0\.1 to 0\.1 V +100 +-199\.\d+ to -0\.\d+ °C", done.out), done.out


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
    assert (usual["warnings"], fast["warnings"]) == ([], [])
    assert fastest["warnings"] == [
        "device 'rig', task 'vibration': as fast as the journal takes it: "
        "bytes a second are those at its rate, the least"
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
        "note: device 'rig', task 'vibration': a block is 11 s long: nothing of a block is safe, seen or stored before "
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
    records_s = told["rate_hz"] / told["block_samples"]
    assert written / run.status().head == pytest.approx(told["journal_bytes_s"] / records_s, rel=0.05)


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

    lab.write_text(LAB.replace("pub_port = 0", 'host = "192.0.2.1"'))
    done = call(check, asked(lab), capsys)
    assert done.code == 3
    assert "gateway.host = '192.0.2.1': only 127.0.0.1 is served until there are keys" in done.err


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
