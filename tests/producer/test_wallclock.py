import threading
from itertools import pairwise

import pytest
from tests.producer.acquired import acquire_all, blocks_of, config_of, events_of, readings_of, records_of

from dtolbus.records import DaqBlock
from dtolbus_producer import wallclock
from dtolbus_producer.wallclock import WallClock, is_step

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


@pytest.mark.parametrize(
    ("moved_ns", "elapsed_ns", "tick_ns", "is_set"),
    [
        (0, SECOND_NS, 1, False),
        (500_000, SECOND_NS, 1, False),  # NTP slews as fast as it may
        (-500_000, SECOND_NS, 1, False),
        (50_000_000, 100 * SECOND_NS, 1, False),  # the same, not looked at for long
        (15_625_000, SECOND_NS, 15_625_000, False),  # a clock that ticks 64 times a second
        (6_000_000, SECOND_NS, 1, True),
        (-6_000_000, SECOND_NS, 1, True),
        (HOUR_NS, SECOND_NS, 15_625_000, True),
    ],
)
def test_a_clock_that_is_set_is_told_from_one_that_is_slewed(moved_ns, elapsed_ns, tick_ns, is_set):
    assert is_step(moved_ns, elapsed_ns, tick_ns) == is_set


class SetClock:
    """A wall clock that is set forward an hour, and later back, after so many looks."""

    def __init__(self, monkeypatch, every_ns=50_000_000):
        self.looks = 0
        self._real = wallclock.utc_offset_ns
        monkeypatch.setattr(wallclock, "utc_offset_ns", self)
        monkeypatch.setattr(wallclock, "_LOOK_EVERY_NS", every_ns)

    def __call__(self):
        self.looks += 1
        return self._real() + (HOUR_NS if 3 <= self.looks < 6 else 0)


def test_the_clock_is_looked_at_once_in_its_time_and_a_step_told_once(monkeypatch):
    SetClock(monkeypatch, every_ns=0)
    clock = WallClock()
    steps = [clock.look() for _ in range(6)]

    assert [step is not None for step in steps] == [False, True, False, False, True, False]
    assert abs(steps[1].after_ns - steps[1].before_ns - HOUR_NS) < SECOND_NS
    assert clock.base_ns == pytest.approx(clock.offset_ns, abs=SECOND_NS)
    assert abs(clock.moved_ns()) < SECOND_NS
    monkeypatch.setattr(wallclock, "_LOOK_EVERY_NS", HOUR_NS)
    assert clock.look() is None


def test_a_clock_set_in_mid_run_is_two_events_in_their_places_and_no_sample_moves(tmp_path, monkeypatch):
    SetClock(monkeypatch)
    task = {"name": "t", "rate_hz": 10_000.0, "block_samples": 100, "channels": ["a"], "samples": 10_000}
    (run,) = acquire_all(config_of(task), tmp_path)

    forward, back = events_of(run)
    assert (forward.kind, back.kind) == ("clock_step", "clock_step")
    assert "set by +3600.0" in forward.message
    assert "set by -3600.0" in back.message
    assert (forward.lost_samples, back.lost_samples) == (0, 0)
    records = records_of(run)
    for event in (forward, back):
        before, after = records[event.index - 1], records[event.index + 1]
        assert isinstance(before, DaqBlock)
        assert before.end_sample_index == event.sample_index == after.first_sample_index
    blocks = blocks_of(run)
    assert sum(block.samples_per_channel for block in blocks) == 10_000
    for left, right in pairwise(blocks):
        assert abs(right.t_utc_ns - left.t_utc_ns - 100 * left.period_ns) <= 2
    assert abs(blocks[-1].t_utc_ns - blocks[0].t_utc_ns - 0.99e9) < 5e6


def test_the_anchors_hold_what_the_wall_clock_said(tmp_path, monkeypatch):
    class Forward(SetClock):
        def __call__(self):
            self.looks += 1
            return self._real() + (HOUR_NS if self.looks >= 3 else 0)

    Forward(monkeypatch)
    task = {"name": "t", "rate_hz": 1000.0, "block_samples": 100, "channels": ["a"], "samples": 3000}
    (run,) = acquire_all(config_of(task), tmp_path)

    first, *rest = [block.anchor for block in blocks_of(run) if block.anchor is not None]
    offset_ns = run.info.started_utc_ns - run.info.started_mono_ns
    assert first.samples == 100
    assert first.utc_ns - first.mono_ns == offset_ns
    assert 1 <= len(rest) <= 3
    assert all(abs(anchor.utc_ns - anchor.mono_ns - offset_ns - HOUR_NS) < SECOND_NS for anchor in rest)
    assert all(0 < anchor.uncertainty_ns < 10_000_000 for anchor in [first, *rest])
    clock = run.refresh().clock
    assert abs(clock.utc_moved_ns - HOUR_NS) < SECOND_NS
    assert abs(clock.drift_ppm) < 200  # how far its uncertainty holds is shown in simulated time: test_clockfit.py
    assert clock.drift_uncertainty_ppm > 0
    assert clock.uncertainty_ns > 0


def test_a_polled_run_tells_it_too(tmp_path, monkeypatch):
    SetClock(monkeypatch)
    task = {"name": "t", "kind": "readings", "rate_hz": 50.0, "samples": 30, "channels": ["a"]}
    (run,) = acquire_all(config_of(task), tmp_path, threading.Event())

    steps = [event for event in events_of(run) if event.kind == "clock_step"]
    assert len(steps) == 2
    readings = readings_of(run)
    assert all(left.t_utc < right.t_utc for left, right in pairwise(readings))
    assert (readings[-1].t_utc - readings[0].t_utc).total_seconds() < 60
    clock = run.refresh().clock
    assert (clock.rate_hz, clock.drift_ppm, clock.uncertainty_ns) == (None, None, None)
