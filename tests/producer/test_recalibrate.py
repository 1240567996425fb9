"""`dtolbus recalibrate`: a run anew, with another calibration; nothing of the old one changes or is lost."""

import json
import os
import signal
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of, records_of
from tests.producer.looking import call
from tests.producer.test_sensors import CHANNELS, MAX, OPEN, task_of
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus.records import DaqEvent, Gap, SensorStatus
from dtolbus.runs import RunFile, RunFolder, list_runs, segment_name
from dtolbus.units.conversion import Thermocouple
from dtolbus_producer.boards import Buffer
from dtolbus_producer.boards.sim import SimBlocks
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalcli import recalibrate, runs
from dtolbus_producer.recalibration import header, recalibrated
from dtolbus_producer.remarking import read_remarks

VIBRATION = {
    "name": "t",
    "rate_hz": 1000.0,
    "samples": 500,
    "block_samples": 50,
    "channels": [{"name": "x", "unit": "g", "sensitivity_v": 0.1}, "y"],
}


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def recorded(data, task=VIBRATION, **options):
    (run,) = acquire_all(config_of(task, options={**MAX, **options}, run={"operator": "Ada"}), data)
    return run


def journaled(data, info, records, **settings):
    """A run with these records, ended."""
    writer = RunWriter(data / "journal", info, sync_ms=0, **settings)
    for record in records:
        writer.append(record)
    writer.close()
    return RunFolder(writer.path)


def anew(capsys, data, run, *words):
    """Recalibrate the run; return what was told, and the runs that are there now without it."""
    done = call(recalibrate, ["--data", data, "--run", run.info.run_id, *words], capsys)
    assert done.code == 0
    assert all(" run recovered " in line for line in done.err.splitlines())
    return done.out, [other for other in list_runs(data / "journal") if other.info.run_id != run.info.run_id]


def refused(capsys, data, run_id, *words, code=2):
    before = [path.path for path in list_runs(data / "journal")]
    done = call(recalibrate, ["--data", data, "--run", run_id, *words], capsys)
    assert (done.code, done.out) == (code, "")
    assert [path.path for path in list_runs(data / "journal")] == before
    return done.err


class TestLinear:
    def test_a_wrong_sensitivity_is_corrected_in_a_run_of_its_own(self, tmp_path, capsys):
        old = recorded(tmp_path, overrun_at_s=0.2)
        before = files_of(old.path)
        told, (new,) = anew(capsys, tmp_path, old, "--channel", "x", "--sensitivity-v", 0.05, "--unit", "m/s²")

        assert files_of(old.path) == before
        assert f"is also there as run {new.info.run_id}" in told
        assert "\n  x: 0.1 V/g → 0.05 V/(m/s²), values × 2\n" in told
        assert f"dtolbus up --catch-up --data {tmp_path}\n" in told
        assert new.info.run_id > old.info.run_id
        assert (new.refresh().state, new.refresh().samples, new.refresh().clock) == (
            "ended", old.refresh().samples, old.refresh().clock,
        )  # fmt: skip
        pairs = list(zip(records_of(old), records_of(new), strict=True))
        assert len(pairs) == 10
        for was, now in pairs:
            if isinstance(was, DaqEvent):
                assert now == msgspec.structs.replace(was, run_id=new.info.run_id)
                continue
            for name in (
                "index",
                "first_sample_index",
                "t_mono_ns",
                "clock",
                "anchor",
                "read_started_at",
                "t_utc",
                "t0",
            ):
                assert getattr(now, name) == getattr(was, name)
            np.testing.assert_array_equal(now.raw_codes, was.raw_codes)
            np.testing.assert_allclose(now.data[0], was.data[0] * 2, rtol=1e-12)
            np.testing.assert_array_equal(now.data[1], was.data[1])
        assert [e.kind for e in events_of(new)] == ["overrun"]
        assert new.info.units == {"x": "m/s²", "y": "V"}

    def test_the_header_says_where_it_is_from_and_what_changed(self, tmp_path, capsys):
        old = recorded(tmp_path)
        _, (new,) = anew(capsys, tmp_path, old, "--channel", "y", "--scale", 0.5, "--offset", -1, "--force")
        was = old.info.channels[1]
        assert new.info.meta == {
            "operator": "Ada",
            "recalibrated_from": old.info.run_id,
            "original_run": old.info.run_id,
            "recalibrated": {"y": {"scale": [was.scale, 0.5], "offset": [was.offset, -1.0]}},
        }
        same = msgspec.structs.replace(new.info, run_id=old.info.run_id, channels=old.info.channels, meta=old.info.meta)
        assert same == old.info
        codes = blocks_of(old)[0].raw_codes[1]
        assert blocks_of(new)[0].data[1].tolist() == (codes * 0.5 - 1).tolist()

    def test_a_dry_run_only_tells(self, tmp_path, capsys):
        old = recorded(tmp_path)
        told, others = anew(capsys, tmp_path, old, "--channel", "x", "--sensitivity-v", 0.05, "--dry-run")
        assert others == []
        assert "would be written anew" in told
        assert "x: 0.1 V/g → 0.05 V/g, values × 2" in told
        assert "--catch-up" not in told

    def test_said_again_it_makes_another_run(self, tmp_path, capsys):
        old = recorded(tmp_path)
        words = ("--channel", "x", "--sensitivity-v", 0.05)
        anew(capsys, tmp_path, old, *words)
        _, (one, two) = anew(capsys, tmp_path, old, *words)
        assert one.info.channels == two.info.channels
        assert one.status().head == two.status().head == 10

    def test_volts_of_a_board_get_another_sensitivity(self, tmp_path, capsys):
        info = block_run(dtype="float64")
        volts = tuple(
            msgspec.structs.replace(channel, encoding="float", scale=10.0, offset=0.0, resolution_bits=16)
            for channel in info.channels
        )
        info = msgspec.structs.replace(info, channels=volts)
        old = journaled(tmp_path, info, [block(info, 0)])
        _, (new,) = anew(capsys, tmp_path, old, "--channel", "ai0", "--sensitivity-v", 0.05)
        assert (new.info.channels[0].scale, new.info.channels[0].offset) == (20.0, 0.0)
        (was,), (now,) = blocks_of(old), blocks_of(new)
        np.testing.assert_array_equal(now.raw_codes, was.raw_codes)
        np.testing.assert_allclose(now.data[0], was.data[0] * 2, rtol=1e-12)


class TestWords:
    @pytest.mark.parametrize(
        ("channel", "words", "says"),
        [
            ("x", ("--sensitivity-v", 0.1021), "  x: 0.1 V/g → 0.1021 V/g, values × 0.97943\n"),
            ("x", ("--offset", 0.5), "  x: 0.1 V/g → code × 0.00305176 + 0.5 g, values × 1 + 100.5\n"),
            ("y", ("--sensitivity-v", 0.1, "--unit", "g"), "  y: V → 0.1 V/g, values × 10\n"),
            ("x", ("--unit", "m/s²"), "  x: 0.1 V/g → 0.1 V/(m/s²), values × 1\n"),
            ("x", ("--sensitivity-v", 0.01), "  x: 0.1 V/g → 0.01 V/g, values × 10\n"),
        ],
    )
    def test_what_changes_is_told_as_it_was_configured(self, tmp_path, capsys, channel, words, says):
        told, _ = anew(capsys, tmp_path, recorded(tmp_path), "--channel", channel, *words)
        assert says in told

    def test_ten_times_is_warned_of(self, tmp_path, capsys):
        told, _ = anew(capsys, tmp_path, recorded(tmp_path), "--channel", "x", "--sensitivity-v", 0.01)
        hint = "a sensitivity is the volts for one unit"
        assert f"warning: the values of x change 10 times; {hint}\n" in told

    def test_millivolts_are_refused_unless_forced(self, tmp_path, capsys):
        old = recorded(tmp_path)
        words = ("--channel", "x", "--sensitivity-v", 102.1)
        says = refused(capsys, tmp_path, old.info.run_id, *words)
        assert "x: 0.1 V/g → 102.1 V/g, values × 0.00097943: the values of x change 1021 times" in says
        assert "a sensitivity is the volts for one unit: 102.1 mV are 0.1021; if it is meant, say --force" in says
        told, others = anew(capsys, tmp_path, old, *words, "--dry-run")
        assert "0.1021 (needs --force)\n" in told
        assert others == []
        _, (new,) = anew(capsys, tmp_path, old, *words, "--force")
        assert new.status().head == 10

    def test_a_run_is_known_by_how_its_id_begins(self, tmp_path, capsys):
        old = recorded(tmp_path)
        words = ("--channel", "x", "--sensitivity-v", 0.1021)
        short = old.info.run_id[:13]
        done = call(recalibrate, ["--data", tmp_path, "--run", short, *words], capsys)
        assert (done.code, f"run {old.info.run_id} (dev/t, " in done.out) == (0, True)
        assert "run 01: 2 runs begin so, " in refused(capsys, tmp_path, "01", *words)
        assert "holds no run ''" in refused(capsys, tmp_path, "", *words)

    def test_runs_says_which_corrects_which_and_the_newest_counts(self, tmp_path, capsys):
        old = recorded(tmp_path)
        words = ("--channel", "x", "--sensitivity-v")
        _, (first,) = anew(capsys, tmp_path, old, *words, 0.2)
        _, ids = anew(capsys, tmp_path, first, *words, 0.3)
        (second,) = (run for run in ids if run.info.run_id not in (old.info.run_id, first.info.run_id))
        one, two, three = old.info.run_id, first.info.run_id, second.info.run_id
        lines = json.loads(call(runs, ["--data", tmp_path, "--json"], capsys).out)
        assert [(line["run_id"], line["corrects"], line["original"], line["corrected_by"]) for line in lines] == [
            (one, None, one, three), (two, one, one, three), (three, two, one, None),
        ]  # fmt: skip
        table = call(runs, ["--data", tmp_path], capsys).out.splitlines()
        assert table[1].endswith(f"corrected by {three}")
        assert table[2].endswith(f"corrects {one}; corrected by {three}")
        assert table[3].endswith(f"corrects {two}")


class TestConfig:
    def lab(self, tmp_path, channels):
        path = tmp_path / "lab.json"
        path.write_text(json.dumps({"device": [{"name": "dev", "task": [task_of(channels)]}]}))
        return path

    def test_a_wrong_thermocouple_is_corrected_with_its_status(self, tmp_path, capsys):
        wrong = [{**CHANNELS[0], "thermocouple": "B"}, *CHANNELS[1:]]  # a B has no value at 25 °C
        old = recorded(tmp_path, task_of(wrong), **OPEN)
        assert np.isnan(np.concatenate([b.data[0] for b in blocks_of(old)])).all()
        told, (new,) = anew(capsys, tmp_path, old, "--config", self.lab(tmp_path, CHANNELS))

        assert "tc: type B (ITS-90), cold junction from cjc, °C → type K (ITS-90), cold junction from cjc, °C" in told
        assert "sensor thermocouple B → thermocouple K" in told
        assert [remark.kind for remark in read_remarks(old.path)] == ["sensor_low", "sensor_open"]
        assert [(remark.kind, remark.samples) for remark in read_remarks(new.path)] == [("sensor_open", 100)]
        assert {event.kind for event in events_of(new)} == {"sensor_open", "sensor_ok"}
        assert new.info.channels[0].conversion == Thermocouple("K", "cjc")
        assert new.info.channels[1:] == old.info.channels[1:]
        right = recorded(tmp_path / "right", task_of(), **OPEN)  # what the codes of a B read as a K come to
        is_open = np.concatenate([b.sensor_status.get("tc", np.zeros(50, int)) for b in blocks_of(right)]) == 1
        values = np.concatenate([b.data[0] for b in blocks_of(new)])
        status = np.concatenate([b.sensor_status.get("tc", np.zeros(50, int)) for b in blocks_of(new)])
        np.testing.assert_array_equal(np.isnan(values), is_open)
        np.testing.assert_array_equal(status, np.where(is_open, SensorStatus.SENSOR_OPEN, SensorStatus.OK))

    def test_what_the_board_told_of_a_sample_stays(self, tmp_path, capsys):
        info = msgspec.structs.replace(recorded(tmp_path / "x", task_of()).info, run_id="run-1")
        told = {"tc": [0, 2, 0], "plain": [0, 0, 3]}
        codes = np.full((len(info.channels), 3), 32768, np.uint16)
        old = journaled(tmp_path, info, [block(info, 0, codes=codes, sensor_status=told)])
        fixed = [{**CHANNELS[0], "cold_junction": 20}, *CHANNELS[1:]]
        _, (new,) = anew(capsys, tmp_path, old, "--channel", "tc", "--config", self.lab(tmp_path, fixed))
        (found,) = blocks_of(new)
        assert {name: found.sensor_status[name].tolist() for name in told} == told
        assert found.data[0] == pytest.approx([20, np.nan, 20], nan_ok=True, abs=1e-6)

    def test_what_the_board_told_stays_where_the_old_codes_told_the_same(self, tmp_path, capsys, monkeypatch):
        """A thermocouple at the end of its range, of which the board says, too, that it is open."""
        rail, told = np.full((len(CHANNELS), 50), 65535, np.uint16), {"tc": np.ones(50, np.int64)}
        real = SimBlocks.read

        def read(self, timeout_s):
            found = real(self, timeout_s)
            return found._replace(codes=rail, sensor_status=told) if isinstance(found, Buffer) else found

        monkeypatch.setattr(SimBlocks, "read", read)
        old = recorded(tmp_path, task_of())
        plain = [{"name": "tc", "physical": 1, "unit": "g", "sensitivity_v": 0.1}, *CHANNELS[1:]]
        done, (new,) = anew(capsys, tmp_path, old, "--channel", "tc", "--config", self.lab(tmp_path, plain))
        for block_before, block_after in zip(blocks_of(old), blocks_of(new), strict=True):
            assert (block_before.sensor_status["tc"] == 1).all()
            assert (block_after.sensor_status["tc"] == 1).all()
            assert np.isnan(block_after.data[0]).all()
        assert "keep each sensor_status" not in done
        _, others = anew(capsys, tmp_path, new, "--channel", "tc", "--sensitivity-v", 0.2)
        (again,) = [run for run in others if run.info.run_id != old.info.run_id]
        assert (blocks_of(again)[0].sensor_status["tc"] == 1).all()

    def test_an_old_run_that_does_not_say_who_told_keeps_every_status(self, tmp_path, capsys):
        info = msgspec.structs.replace(recorded(tmp_path / "x", task_of()).info, run_id="run-1")
        codes = np.full((len(info.channels), 3), 65535, np.uint16)
        old = journaled(tmp_path, info, [block(info, 0, codes=codes, sensor_status={"tc": [1, 1, 1]})])
        plain = [{"name": "tc", "physical": 1, "unit": "g", "sensitivity_v": 0.1}, *CHANNELS[1:]]
        done, (new,) = anew(capsys, tmp_path, old, "--channel", "tc", "--config", self.lab(tmp_path, plain))
        (found,) = blocks_of(new)
        assert found.sensor_status["tc"].tolist() == [1, 1, 1]
        assert "1 records keep each sensor_status as it was: the old run does not say which its board told" in done

    def test_only_the_channels_that_are_named_change(self, tmp_path, capsys):
        old = recorded(tmp_path, task_of())
        plain = [{**channel, "name": channel["name"]} for channel in CHANNELS]
        plain[4] = {"name": "flow", "physical": 4}
        plain[5] = {"name": "ntc", "physical": 5}
        _, (new,) = anew(capsys, tmp_path, old, "--config", self.lab(tmp_path, plain), "--channel", "flow")
        differing = [a.name for a, b in zip(old.info.channels, new.info.channels, strict=True) if a != b]
        assert differing == ["flow"]
        assert new.info.channels[4].unit == "V"

    @pytest.mark.parametrize(
        ("channels", "words", "says"),
        [
            ([{"name": "tc", "thermocouple": "K", "cold_junction": "j"},
              {"name": "j", "unit": "°C", "sensitivity_v": 1}],
             ("--channel", "tc"), "cold_junction 'j': the run has no such channel in °C; it has tc, cjc"),
            ([{"name": "other"}], (), "has no channel 'other' in dev/t"),
            ([{"name": "flow"}], ("--channel", "tc"), "the config has no channel 'tc' in dev/t"),
            (CHANNELS, (), "has this calibration already: nothing would change"),
        ],
    )  # fmt: skip
    def test_a_config_that_does_not_fit_the_run_says_why(self, tmp_path, capsys, channels, words, says):
        old = recorded(tmp_path, task_of())
        lab = self.lab(tmp_path, channels)
        assert says in refused(capsys, tmp_path, old.info.run_id, "--config", lab, *words)


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ((), "say what was wrong: --sensitivity-v, --scale, --offset, --unit, or else --config"),
            (("--scale", 2), "say which channel was wrong: --channel NAME"),
            (("--channel", "z", "--scale", 2), "has no channel 'z'; it has x, y"),
            (("--channel", "x", "--scale", 0), "--scale 0.0: give a finite number, not 0"),
            (("--channel", "x", "--offset", "inf"), "--offset inf: give a finite number"),
            (("--channel", "x", "--sensitivity-v", 1, "--scale", 1), "--sensitivity-v stands for --scale and --offset"),
            (("--channel", "x", "--sensitivity-v", 1e-310), "-inf gives no values: give another sensitivity or scale"),
            (("--channel", "x", "--scale", 1e308), "gives no values: give another sensitivity or scale"),
            (("--channel", "x", "--offset", 1.7e308, "--scale", 1e300), "gives no values"),
            (("--channel", "x", "--unit", ""), "--unit '' is no unit: name it, or leave the option out"),
            (("--channel", "x", "--unit", "m\ns"), r"--unit 'm\ns' has characters that cannot be shown"),
            (("--channel", "x", "--sensitivity-v", 0.1), "has this calibration already: nothing would change"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, tmp_path, capsys, words, says):
        old = recorded(tmp_path)
        assert says in refused(capsys, tmp_path, old.info.run_id, *words)

    def test_a_run_that_is_not_there(self, tmp_path, capsys):
        recorded(tmp_path)
        assert "holds no run 'x'; `dtolbus runs` lists them" in refused(
            capsys, tmp_path, "x", "--channel", "x", "--scale", 2
        )

    def test_a_run_that_is_being_recorded(self, tmp_path, capsys):
        info = block_run()
        writer = RunWriter(tmp_path / "journal", info)
        writer.append(block(info, 0))
        says = refused(capsys, tmp_path, info.run_id, "--channel", "ai0", "--scale", "2")
        assert "is still being recorded: recalibrate it when it is over" in says
        writer.close()

    def test_readings_have_no_codes(self, tmp_path, capsys):
        readings = reading_run()
        journaled(tmp_path, readings, [reading(readings, 0)])
        words = ("--channel", "tc0", "--scale", 2)
        assert "holds readings, which were converted" in refused(capsys, tmp_path, readings.run_id, *words)

    def test_a_run_header_that_is_damaged_is_in_nobodys_way_but_its_own(self, tmp_path, capsys):
        old = recorded(tmp_path)
        info = block_run()
        damaged = journaled(tmp_path, info, [block(info, 0)]).path / "run.json"
        damaged.write_bytes(damaged.read_bytes()[:100])
        words = ("--channel", "x", "--scale", 2, "--force")
        done = call(recalibrate, ["--data", tmp_path, "--run", info.run_id, *words], capsys)
        assert (done.code, done.out) == (2, "")
        assert f"{damaged} is damaged" in done.err
        done = call(recalibrate, ["--data", tmp_path, "--run", old.info.run_id, *words], capsys)
        assert done.code == 0
        assert "is also there as run" in done.out

    def test_a_conversion_and_codes_of_unknown_volts(self, tmp_path, capsys):
        old = recorded(tmp_path, task_of())
        says = refused(capsys, tmp_path, old.info.run_id, "--channel", "tc", "--sensitivity-v", 2)
        assert "channel 'tc' has a conversion: give its new settings with --config" in says
        info = block_run()
        channels = tuple(msgspec.structs.replace(channel, range=None) for channel in info.channels)
        other = journaled(tmp_path, msgspec.structs.replace(info, channels=channels), [block(info, 0)])
        says = refused(capsys, tmp_path, other.info.run_id, "--channel", "ai0", "--sensitivity-v", 2)
        assert "does not say the volts of its codes: give --scale and --offset" in says


class TestLosses:
    def test_damage_is_an_event_with_its_exact_samples(self, tmp_path, capsys):
        old = recorded(tmp_path)
        path = old.path / segment_name("blocks", 0)
        whole = path.read_bytes()
        codes = blocks_of(old)[4].raw_codes.tobytes()
        at = whole.index(codes)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert [type(record) for record in records_of(old)].count(Gap) == 1

        told, (new,) = anew(capsys, tmp_path, old, "--channel", "x", "--sensitivity-v", 0.05)
        (event,) = events_of(new)
        assert event.message in told
        assert (event.kind, event.index, event.sample_index, event.lost_samples) == ("gap", 4, 200, 50)
        assert f"records 4 of run {old.info.run_id} are missing: damaged in the journal" in event.message
        assert event.t_utc_ns == pytest.approx(blocks_of(new)[4].t_utc_ns - 50_000_000, abs=10_000)
        assert [b.first_sample_index for b in blocks_of(new)] == [n * 50 for n in range(10) if n != 4]

    def test_what_was_pruned_is_an_event_too(self, tmp_path, capsys):
        info = block_run()
        old = journaled(tmp_path, info, [block(info, n) for n in range(6)], segment_bytes=1)
        for first in (0, 1, 5):
            (old.path / segment_name("blocks", first)).unlink()
        _, (new,) = anew(capsys, tmp_path, old, "--channel", "ai0", "--scale", 2, "--force")
        front, back = events_of(new)
        assert (front.index, front.sample_index, front.lost_samples) == (0, 0, 20)
        assert (back.index, back.sample_index, back.lost_samples) == (4, 50, 0)
        assert "records 5 of run" in back.message
        assert back.message.endswith("how many samples that were, it does not tell")
        assert [b.first_sample_index for b in blocks_of(new)] == [20, 30, 40]

    def test_an_interrupted_run_is_anew_an_interrupted_one(self, tmp_path, capsys):
        info = block_run()
        writer = RunWriter(tmp_path / "journal", info)
        writer.append(block(info, 0))
        writer.append(event(info, 1))
        writer.close("interrupted")
        old = RunFolder(writer.path)
        _, (new,) = anew(capsys, tmp_path, old, "--channel", "ai0", "--scale", 2, "--force")
        assert (new.refresh().state, new.status().head) == ("interrupted", 2)

    def test_one_that_is_killed_is_recovered_and_said_again_it_is_whole(self, tmp_path, capsys):
        old = recorded(tmp_path)
        words = ["--data", str(tmp_path), "--run", old.info.run_id, "--channel", "x", "--sensitivity-v", "0.05"]
        killed = f"""
import os, signal
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalcli import recalibrate, runs
append = RunWriter.append
def dying(writer, record):
    if record.index == 6:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    append(writer, record)
RunWriter.append = dying
recalibrate.main({words!r})
"""
        process = subprocess.run([sys.executable, "-c", killed], env=os.environ, timeout=60)
        assert process.returncode == -signal.SIGKILL
        (half,) = (run for run in list_runs(tmp_path / "journal") if run.info.run_id != old.info.run_id)
        assert half.refresh().state == "running"

        _, (half, new) = anew(capsys, tmp_path, old, *words[4:])
        assert (half.refresh().state, half.refresh().final is not None) == ("interrupted", True)
        assert half.refresh().final <= 6
        assert (new.refresh().state, new.status().head) == ("ended", 10)

    def test_a_run_that_a_killed_producer_left_is_ended_first(self, tmp_path, capsys):
        info = block_run()
        folder = journaled(tmp_path, info, [block(info, 0)]).path
        (folder / "run.json").write_bytes(msgspec.json.encode(RunFile(info)))  # as it is while a run is written
        _, (new,) = anew(capsys, tmp_path, RunFolder(folder), "--channel", "ai0", "--scale", 2, "--force")
        assert (new.refresh().state, new.status().head) == ("interrupted", 1)

    def test_records_are_taken_one_by_one(self):
        old = block_run()
        new = header(old, "run-9", (msgspec.structs.replace(old.channels[0], scale=2.0), old.channels[1]))
        taken = []

        def records():
            for n in range(100):
                taken.append(n)
                yield block(old, n)

        for n, found in enumerate(recalibrated(records(), old, new)):
            assert found.index == n
            assert len(taken) == n + 1
