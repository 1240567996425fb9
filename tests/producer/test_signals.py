"""A channel at an end of its range, a sensor that is open: events in their place, few of them, and none untold."""

import logging

import msgspec
import numpy as np
import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of, readings_of, records_of
from tests.producer.test_sensors import MAX
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus import files
from dtolbus.channels import Channel
from dtolbus.records import DaqEvent, SensorStatus
from dtolbus.remarks import KINDS, WORDS, Remark, Tally, line_of, message_of, percent, remark_of
from dtolbus.runs import list_runs, segment_name
from dtolbus_producer import acquisition
from dtolbus_producer.boards import Buffer
from dtolbus_producer.boards.recording import open_recording
from dtolbus_producer.boards.sim import SimBlocks
from dtolbus_producer.deletion import describe
from dtolbus_producer.journal import JournalFullError, RunWriter
from dtolbus_producer.remarking import REMARKS_FILE, read_remarks
from dtolbus_producer.retention import SegmentFacts
from dtolbus_producer.signals import Signals

CLIPPED = {
    "name": "t",
    "rate_hz": 1000.0,
    "samples": 500,
    "block_samples": 50,
    "channels": [
        {"name": "acc_de", "range": 10, "sensitivity_v": 0.1, "unit": "g"},
        {"name": "acc_nde_y", "range": 0.02, "sensitivity_v": 0.1, "unit": "g"},
    ],
}


def remarks_of(events):
    return [(event.kind, event.sample_index, remark_of(event)) for event in events if event.kind in WORDS]


def at_an_end(run, channel):
    """The numbers of the samples of one channel that are at an end of a 16 bit converter."""
    codes = np.concatenate([one.raw_codes[one.channels.index(channel)] for one in blocks_of(run)])
    return np.flatnonzero((codes == 0) | (codes == 65535))


class TestOverRange:
    def test_a_channel_that_clips_is_told_at_once_and_again_at_the_end_with_all_that_is_left(self, tmp_path):
        (run,) = acquire_all(config_of(CLIPPED, options=MAX), tmp_path)
        clipped = at_an_end(run, "acc_nde_y")
        assert 300 < clipped.size <= 500
        records = records_of(run)
        assert isinstance(records[0], DaqEvent), "it comes before the block that it is about"
        assert [record.index for record in records] == list(range(12))

        now, rest = remarks_of(events_of(run))
        in_first = int(np.count_nonzero(clipped < 50))
        assert now == ("over_range", 0, Remark("acc_nde_y", "over_range", in_first, 50, int(clipped[0])))
        later = clipped[clipped >= 50]
        assert rest == ("over_range", 500, Remark("acc_nde_y", "over_range", int(later.size), 450, int(later[0])))
        assert f"acc_nde_y: at the end of its range: {in_first} of 50 samples" in events_of(run)[0].message
        assert f"{later.size} of 450 samples" in events_of(run)[1].message
        assert not any(block.sensor_status for block in blocks_of(run)), "the value stays the value"
        (kept,) = read_remarks(run.path)
        assert kept == Remark("acc_nde_y", "over_range", int(clipped.size), 500, int(clipped[0]))

    def test_what_was_lost_is_told_while_it_goes_on_with_how_many_samples(self):
        info = block_run()
        signals = Signals(info)
        signals.look(block(info, 0, samples=100), 0)
        signals.look(event(info, 1, sample_index=100, lost_samples=50), 1)
        signals.look(block(info, 2, samples=50), 2)
        signals.look(event(info, 3, sample_index=200, lost_samples=50), 3)
        (lost,) = signals.remarks
        assert lost == Remark("every channel", "lost", 100, 250, 100)
        assert str(lost) == "every channel lost: 100, 40 %"

    def test_the_simulated_board_says_nothing_of_good_signals(self, tmp_path):
        task = {**CLIPPED, "channels": [{"name": f"c{k}", "gain": (1, 10)[k % 2]} for k in range(16)], "rate_hz": 200.0}
        (run,) = acquire_all(config_of(task, options=MAX), tmp_path)
        assert events_of(run) == []
        assert not (run.path / REMARKS_FILE).exists()

    def test_a_month_of_it_makes_one_event_a_minute_and_loses_no_count(self):
        info = block_run()  # 1 kHz, blocks of 10 000 samples: ten seconds
        signals, told, index = Signals(info), [], 0
        codes = np.full((2, 10_000), 32768, np.uint16)
        for n in range(60):
            codes[1] = 65535 if n % 2 else 32768
            codes[1, 5000] = 65535
            told += signals.look(block(info, n, samples=10_000, codes=codes), index)
        told += signals.rest(index)
        assert len(told) == 11
        assert {event.kind for event in told} == {"over_range"}
        steps = np.diff([event.sample_index for event in told[:-1]])
        assert (steps == 60_000).all()
        assert sum(remark_of(event).samples for event in told) == 30 * 10_000 + 30
        assert signals.remarks == (Remark("ai1", "over_range", 300_030, 600_000, 5000),)

    def test_what_was_held_back_is_told_a_minute_later_though_all_is_well_by_then(self):
        info = block_run()
        signals, told = Signals(info), []
        for n in range(10):
            codes = np.full((2, 10_000), 0 if n < 2 else 32768, np.uint16)
            told += signals.look(block(info, n, samples=10_000, codes=codes), 0)
        assert [(event.sample_index, remark_of(event).samples) for event in told if "ai0" in event.message] == [
            (0, 10_000), (60_000, 10_000),
        ]  # fmt: skip
        assert signals.rest(0) == []

    @pytest.mark.parametrize(
        ("fields", "dtype", "codes", "tells"),
        [
            ({}, "uint16", [0, 5], True),
            ({}, "uint16", [65534, 5], False),
            ({}, "uint16", [65535, 5], True),
            ({"range": (0.0, 10.0)}, "uint16", [0, 0], False),  # where such an input rests
            ({"range": (0.0, 10.0)}, "uint16", [65535, 0], True),
            ({"range": (-10.0, 0.0)}, "uint16", [65535, 65535], False),
            ({"range": None}, "uint16", [0, 0], False),  # nobody knows
            ({"range": None}, "uint16", [65535, 0], True),
            ({"resolution_bits": 12}, "uint16", [4095, 5], True),
            ({"resolution_bits": 12}, "uint16", [4094, 5], False),
            ({"resolution_bits": None}, "uint16", [0, 65535], False),
            ({"encoding": "twos_complement"}, "int16", [-32768, 5], True),
            ({"encoding": "twos_complement"}, "int16", [32767, 5], True),
            ({"encoding": "twos_complement"}, "int16", [0, -1], False),
            ({"encoding": "twos_complement", "resolution_bits": 24}, "int32", [2**23 - 1, 0], True),
            ({"encoding": "float"}, "float64", [10.0, 0.0], True),
            ({"encoding": "float"}, "float64", [-10.5, 0.0], True),
            ({"encoding": "float"}, "float64", [9.999, -9.999], False),
            ({"encoding": "float", "range": None, "resolution_bits": None}, "float64", [1e9, 0.0], False),
        ],
    )
    def test_where_the_end_is(self, fields, dtype, codes, tells):
        info = block_run(channels=1, dtype=dtype)
        channel = msgspec.structs.replace(info.channels[0], **fields)
        info = msgspec.structs.replace(info, channels=(channel,))
        told = Signals(info).look(block(info, 0, samples=2, codes=np.array([codes], dtype)), 3)
        assert [event.kind for event in told] == (["over_range"] if tells else [])
        assert [event.index for event in told] == [3][: len(told)]

    def test_polled_inputs(self, tmp_path):
        channels = [{"name": "low", "range": 0.02, "sensitivity_v": -0.1, "unit": "g"}, {"name": "fine", "physical": 1}]
        task = {"name": "p", "kind": "readings", "rate_hz": 200.0, "samples": 40, "channels": channels}
        (run,) = acquire_all(config_of(task), tmp_path)
        ends = {run.info.channels[0].offset, run.info.channels[0].offset + 65535 * run.info.channels[0].scale}
        clipped = sum(reading.values["low"] in ends for reading in readings_of(run))
        assert clipped > 0
        found = remarks_of(event for event in events_of(run) if event.kind != "overrun")
        assert {remark.channel for _, _, remark in found} == {"low"}
        assert sum(remark.samples for _, _, remark in found) == clipped

    def test_a_fault_of_the_looking_costs_no_record(self, tmp_path, monkeypatch, caplog):
        def fails(self, record, index):
            raise ZeroDivisionError

        monkeypatch.setattr(Signals, "look", fails)
        with caplog.at_level(logging.ERROR):
            (run,) = acquire_all(config_of(CLIPPED, options=MAX), tmp_path)
        assert run.status().state == "ended"
        assert sum(one.samples_per_channel for one in blocks_of(run)) == 500
        assert [line.message for line in caplog.records] == ["the signals are not looked at any more"]

    def test_remarks_that_cannot_be_kept_cost_nothing(self, tmp_path, monkeypatch):
        real = files.replace

        def full(path, data, **settings):
            if path.name == REMARKS_FILE:
                raise OSError(28, "No space left on device")
            real(path, data, **settings)

        monkeypatch.setattr(files, "replace", full)
        (run,) = acquire_all(config_of(CLIPPED, options=MAX), tmp_path)
        assert len(remarks_of(events_of(run))) == 2

    def test_a_journal_that_is_full_at_the_very_end_says_so_and_nothing_hangs(self, tmp_path, monkeypatch):
        real = RunWriter.append

        def append(self, record):
            if record.index == 11:
                raise JournalFullError("no room")
            real(self, record)

        monkeypatch.setattr(RunWriter, "append", append)
        with pytest.raises(JournalFullError, match="no room"):
            acquire_all(config_of(CLIPPED, options=MAX), tmp_path)
        (run,) = list_runs(tmp_path / "journal")
        assert (run.status().state, len(blocks_of(run))) == ("interrupted", 10)

    def test_a_recording_that_is_played_is_looked_at_anew_and_nothing_in_it_is_a_fault(self, tmp_path):
        (run,) = acquire_all(config_of(CLIPPED, options=MAX), tmp_path)
        device = {"board": f"playback:{run.path / segment_name('blocks', 0)}"}
        task = {"name": "t", "block_samples": 50}
        (played,) = acquire_all(config_of(task, device={**device, "options": MAX}), tmp_path / "played")
        assert [(event.kind, event.message) for event in events_of(played)] == [
            (event.kind, event.message) for event in events_of(run)
        ]
        was, now = blocks_of(run), blocks_of(played)
        assert [one.raw_codes.tolist() for one in now] == [one.raw_codes.tolist() for one in was]

    def test_a_part_of_a_run_that_begins_with_such_an_event_lacks_nothing(self, tmp_path, monkeypatch):
        def open_writer(journal, info, *_):
            return RunWriter(journal, info, segment_bytes=1)

        monkeypatch.setattr(acquisition, "open_writer", open_writer)
        (run,) = acquire_all(config_of({**CLIPPED, "samples": 100}, options=MAX), tmp_path)
        told = [index for index, record in enumerate(records_of(run)) if isinstance(record, DaqEvent)]
        assert told == [0, 3]
        for index, first in ((0, 0), (3, 100)):
            part = run.path / segment_name("blocks", index)
            assert list(open_recording(part).pieces()) == []
            facts = SegmentFacts(index, index + 1, 0, 0, is_sealed=True, is_condemned=False)
            gone = describe(part, run.info, facts, "by hand")
            assert (gone.first_sample, gone.end_sample) == (first, first)


OPEN = {"open_thermocouple": {"channel": "tc", "from_s": 0.125, "to_s": 0.275}}
WARM = {
    **CLIPPED,
    "channels": [{"name": "tc", "thermocouple": "K", "cold_junction": 25}, {"name": "v", "physical": 1}],
}


class TestSensors:
    def test_a_thermocouple_that_opens_and_is_well_again(self, tmp_path):
        (run,) = acquire_all(config_of(WARM, options={**MAX, **OPEN}), tmp_path)
        first, back, rest = events_of(run)
        assert (first.kind, first.sample_index, remark_of(first).first) == ("sensor_open", 100, 125)
        assert "tc: sensor open: 25 of 50 samples, the first is number 125" in first.message
        assert (back.kind, back.sample_index) == ("sensor_ok", 250)
        assert back.message == "tc: good again from number 275 on"
        assert (rest.kind, rest.sample_index, remark_of(rest).samples) == ("sensor_open", 500, 125)
        assert rest.message.endswith("; good again from number 275 on")

    def test_open_throughout(self, tmp_path):
        options = {**MAX, "open_thermocouple": {"channel": "tc"}}
        (run,) = acquire_all(config_of(WARM, options=options), tmp_path)
        assert [event.kind for event in events_of(run)] == ["sensor_open", "sensor_open"]
        assert sum(remark_of(event).samples for event in events_of(run)) == 500

    def test_one_that_flaps_is_bounded_too(self):
        info = block_run()
        signals, told = Signals(info), []
        codes = np.full((2, 1000), 32768, np.uint16)
        for n in range(300):
            status = {"ai0": np.full(1000, n % 2)}
            told += signals.look(block(info, n, samples=1000, codes=codes, sensor_status=status), 0)
        told += signals.rest(0)
        kinds = [event.kind for event in told]
        assert 5 <= kinds.count("sensor_open") <= 6
        assert kinds.count("sensor_ok") <= 6
        assert sum(remark_of(event).samples for event in told if event.kind == "sensor_open") == 150 * 1000

    def test_polled_ones_by_every_status(self, tmp_path):
        task = {"name": "p", "kind": "readings", "rate_hz": 100.0, "samples": 40, "channels": WARM["channels"]}
        (run,) = acquire_all(config_of(task, options=OPEN), tmp_path)
        opens = [event for event in events_of(run) if event.kind == "sensor_open"]
        (back,) = [event for event in events_of(run) if event.kind == "sensor_ok"]
        lacking = sum(bool(reading.sensor_status) for reading in readings_of(run))
        assert sum(remark_of(event).samples for event in opens) == lacking > 0
        assert opens[0].sample_index == remark_of(opens[0]).first
        assert "of 1 polls" in opens[0].message or "polls" in opens[0].message
        assert back.message.startswith("tc: good again from number ")

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(SensorStatus.SENSOR_OPEN, "sensor_open"), (2, "sensor_low"), (3, "sensor_high"), (0, "no_value")],
    )
    def test_a_poll_without_a_value(self, status, kind):
        info = reading_run()
        signals = Signals(info)
        values = {"tc0": float("nan"), "tc1": 20.0}
        (told,) = signals.look(reading(info, 0, values=values, sensor_status={"tc0": status} if status else {}), 0)
        assert told.kind == kind
        assert remark_of(told).channel == "tc0"

    def test_volts_that_are_none(self):
        info = block_run(channels=1, dtype="float64")
        channel = Channel("x", "V", range=(-10.0, 10.0), encoding="float")
        info = msgspec.structs.replace(info, channels=(channel,))
        (told,) = Signals(info).look(block(info, 0, samples=3, codes=np.array([[1.0, np.nan, 12.0]])), 0)[:1]
        assert (told.kind, remark_of(told).samples) == ("over_range", 1)
        _, none = Signals(info).look(block(info, 0, samples=3, codes=np.array([[1.0, np.nan, 12.0]])), 0)
        assert (none.kind, remark_of(none)) == ("no_value", Remark("x", "no_value", 1, 3, 1))


def test_a_short_last_block_and_lost_samples_keep_their_numbers(tmp_path, monkeypatch):
    real = SimBlocks.read

    def clips(self, timeout_s):
        found = real(self, timeout_s)
        if isinstance(found, Buffer):
            found.codes[0, -1] = 65535
        return found

    monkeypatch.setattr(SimBlocks, "read", clips)
    task = {**CLIPPED, "samples": 130, "channels": ["x"]}
    (run,) = acquire_all(config_of(task, options={**MAX, "overrun_at_s": 0.05}), tmp_path)
    assert [(e.kind, e.sample_index) for e in events_of(run)] == [("over_range", 0), ("overrun", 50)]


@pytest.mark.parametrize("channel", ["x", "a: b", "at the end of its range: 1 of 2 samples, ", "ü\n", ""])
def test_what_is_said_is_understood_again(channel):
    for kind in WORDS:
        remark = Remark(channel, kind, 12, 50, 7)
        for more in ({}, {"good_from": 3}, {"what": "polls"}):
            event = DaqEvent(
                device="d", task="t", run_id="r", record_index=0, kind=kind, message=message_of(remark, **more)
            )
            assert remark_of(event) == remark
            tally = Tally()
            tally.take(event)
            tally.take(block(block_run(), 0, samples=24))
            (found,) = tally.remarks
            assert line_of(found, block_run()) == f"{channel} {WORDS[kind]}: 50 % of samples, the first is number 7"


def test_a_boards_own_fault_is_no_remark():
    event = DaqEvent(device="d", task="t", run_id="r", record_index=0, kind="over_range", message="amplifier")
    assert remark_of(event) is None
    assert "sensor_ok" in KINDS


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (1, 100_000, "< 0.1 %"),
        (12, 100, "12 %"),
        (1, 80, "1.2 %"),
        (9_999, 10_000, "> 99.9 %"),
    ],
)
def test_shares(part, whole, text):
    assert percent(part, whole) == text
