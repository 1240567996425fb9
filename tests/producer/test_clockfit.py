from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.producer.lateboard import RATE_HZ, busy, even, exponential, follow

from dtolbus_producer.clockfit import MAX_SLEW_PPM, ClockFit
from dtolbus_producer.envelope import Callback, expected_line, lower_hull

SEEDS = range(40)


@pytest.mark.parametrize("late", [even, exponential, busy])
@pytest.mark.parametrize("drift_ppm", [50.0, -50.0])
def test_samples_are_stamped_within_a_millisecond_after_ten_seconds(drift_ppm, late):
    followed = [follow(12, drift_ppm=drift_ppm, late=late, seed=seed) for seed in SEEDS]
    errors_ns = np.abs([run.error_ns[run.from_s(10)] for run in followed])
    bounds_ns = np.array([run.uncertainty_ns[run.from_s(10)] for run in followed])

    worst = f"the worst seed is {int(np.argmax(errors_ns.max(axis=1)))}"
    assert np.percentile(errors_ns, 95) < 1e6, worst
    assert np.mean(errors_ns <= bounds_ns) >= 0.95, worst
    assert np.median(bounds_ns) < 2.5e6
    rates = [run.fit.mean_rate() for run in followed]
    assert np.mean([abs(rate.drift_ppm - drift_ppm) <= rate.uncertainty_ppm for rate in rates]) >= 0.9, worst


def test_samples_are_stamped_within_a_fifth_of_a_millisecond_after_ten_minutes():
    runs = {seed: follow(615, drift_ppm=(50.0, -50.0)[seed % 2], seed=seed) for seed in range(4)}
    errors_ns = np.abs([run.error_ns[run.from_s(600)] for run in runs.values()])
    bounds_ns = np.array([run.uncertainty_ns[run.from_s(600)] for run in runs.values()])

    assert np.percentile(errors_ns, 95) < 0.2e6, errors_ns.max(axis=1)
    assert (errors_ns <= bounds_ns).all()
    assert np.median(bounds_ns) < 0.7e6
    for seed, run in runs.items():
        rate, drift_ppm = run.fit.mean_rate(), (50.0, -50.0)[seed % 2]
        assert abs(rate.drift_ppm - drift_ppm) <= rate.uncertainty_ppm < 1.5, seed
        assert rate.rate_hz == pytest.approx(RATE_HZ * (1 + drift_ppm * 1e-6), rel=1.5e-6)


def test_a_board_that_warms_up_stays_within_the_uncertainty():
    run = follow(400, drift_ppm=20.0, warming_ppm_min=1.0, seed=3)
    errors_ns = np.abs(run.error_ns[run.from_s(60)])

    assert (errors_ns <= run.uncertainty_ns[run.from_s(60)]).all()
    assert errors_ns.max() < 1e6


def test_a_start_that_is_not_known_well_is_in_the_uncertainty_until_it_is_slewed_away():
    runs = [follow(60, drift_ppm=50.0, bracket_ns=30_000_000, seed=seed) for seed in range(10)]

    assert np.mean([np.abs(run.error_ns) <= run.uncertainty_ns for run in runs]) >= 0.95
    for seed, run in enumerate(runs):
        assert np.abs(run.error_ns[run.from_s(45)]).max() < 2e6, seed


@settings(max_examples=30, deadline=None)
@given(
    drift_ppm=st.floats(-200, 200),
    seed=st.integers(0, 2**32),
    block=st.integers(1, 2000),
    bracket_ns=st.integers(0, 50_000_000),
    lost=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_each_block_begins_where_the_one_before_it_ended(drift_ppm, seed, block, bracket_ns, lost):
    seconds = 400 * block / RATE_HZ
    run = follow(
        seconds,
        drift_ppm=drift_ppm,
        seed=seed,
        bracket_ns=bracket_ns,
        block=block,
        utc_offset_ns=10**18,
        lost_s=(lost[0] * seconds, lost[1] * seconds),
    )

    for (left_s, left), (right_s, right) in pairwise(zip(run.at_s, run.stamps, strict=True)):
        samples = round((right_s - left_s) * RATE_HZ)
        period_ns = left.clock.period_ns if samples == block else 1e9 / RATE_HZ
        allowed_ns = 1.5 if samples == block else samples * 1e9 / RATE_HZ * 2e-3
        assert abs(right.t_mono_ns - (left.t_mono_ns + samples * period_ns)) <= allowed_ns
        assert right.clock.utc_ns == right.t_mono_ns + 10**18
        assert abs(right.clock.period_ns * RATE_HZ / 1e9 - 1) < 2e-3


def test_the_published_rate_is_near_the_fitted_one_however_far_the_stamps_are_off():
    fit = ClockFit(RATE_HZ, (0, 200_000_000), 0)
    for place in range(500):
        late_ns = 100_000_000 if place < 100 else 0
        fit.callback((place + 1) * 200, (place + 1) * 20_000_000 + late_ns)
        _, clock, _ = fit.stamp(place * 200, 200)
        assert abs(clock.period_ns / fit._line.period_ns - 1) <= MAX_SLEW_PPM * 1.001e-6


def test_a_long_loss_is_passed_over_and_not_overshot():
    runs = [follow(500, drift_ppm=50.0, seed=seed, lost_s=(100.0, 450.0)) for seed in range(4)]
    errors_ns = np.abs([run.error_ns[run.from_s(450)] for run in runs])
    bounds_ns = np.array([run.uncertainty_ns[run.from_s(450)] for run in runs])

    assert errors_ns.max() < 5e6, errors_ns.max(axis=1)
    assert np.mean(errors_ns <= bounds_ns) >= 0.95


def test_a_late_callback_does_not_move_the_samples():
    fit = ClockFit(RATE_HZ, (0, 0), 0)
    fit.callback(200, 20_000_000)
    fit.stamp(0, 200)
    fit.callback(400, 40_000_000 + 500_000_000)

    assert abs(fit.stamp(200, 200).t_mono_ns - 20_000_000) < 10_000


def test_the_first_sample_is_stamped_not_the_end_of_the_buffer():
    fit = ClockFit(1000.0, (5_000_000_000, 5_000_000_000), 0)
    fit.callback(1000, 6_000_000_000)

    assert abs(fit.stamp(0, 1000).t_mono_ns - 5_000_000_000) <= 1000


def test_lost_samples_keep_their_place_in_time():
    fit = ClockFit(1000.0, (0, 0), 0)
    fit.callback(100, 100_000_000)
    fit.stamp(0, 100)
    fit.callback(300, 300_000_000)

    assert abs(fit.stamp(200, 100).t_mono_ns - 200_000_000) < 50_000


def test_of_each_second_the_earliest_callback_is_told_once_and_the_very_first_at_once():
    fit = ClockFit(1000.0, (7_000_000_000, 7_000_000_000), 0)
    told = []
    for place, late_ms in enumerate([9, 8, 2, 5, 7, 6, 5, 1, 4, 3]):
        samples = (place + 1) * 250
        fit.callback(samples, 7_000_000_000 + samples * 1_000_000 + late_ms * 1_000_000)
        told.append(fit.take_earliest())

    assert told[0] == (250, 7_259_000_000)
    assert told[3] == (750, 7_752_000_000)
    assert told[7] == (1750, 8_755_000_000)
    assert [place for place, one in enumerate(told) if one is not None] == [0, 3, 7]


def test_before_the_first_callback_and_without_a_clock_of_its_own_there_is_no_rate():
    assert ClockFit(1000.0, (0, 10), 0).mean_rate() is None
    fit = ClockFit(1000.0, (0, 10), 0, keeps_time=False)
    fit.callback(1000, 1)
    assert fit.mean_rate() is None
    assert fit.take_earliest() is None


@pytest.mark.parametrize("rate_hz", [48_000.0, 44_100.0, 24e6 / 667 / 3])
def test_a_day_of_stamps_by_the_nominal_rate_is_exact(rate_hz):
    fit = ClockFit(rate_hz, (0, 0), 0, keeps_time=False)
    exact, block = Fraction(10**9) / Fraction(rate_hz), round(rate_hz / 10)
    for first in range(0, round(86_400 * rate_hz), block):
        t_mono_ns, clock, _ = fit.stamp(first, block)
        if first % (block * 997) == 0:
            assert abs(t_mono_ns - first * exact) <= 1
            assert abs(clock.period_ns * block - block * exact) <= Fraction(1, 1000)


def test_a_day_at_48_khz_follows_the_board_without_drift_and_without_a_step():
    fit, block = ClockFit(48_000.0, (0, 0), 0), 48_000
    exact = Fraction(10**9) / (48_000 * (1 + Fraction(37, 10**6)))
    end_ns = None
    for first in range(0, 86_400 * 48_000, block):
        end = first + block
        if end % (30 * block) == 0:
            fit.callback(end, int(end * exact) + 1)
        t_mono_ns, clock, _ = fit.stamp(first, block)
        assert end_ns is None or abs(t_mono_ns - end_ns) <= 1.5
        end_ns = t_mono_ns + block * clock.period_ns
        if first > 600 * 48_000:
            assert abs(t_mono_ns - first * exact) < 10_000
    rate = fit.mean_rate()
    assert abs(rate.drift_ppm - 37) <= rate.uncertainty_ppm < 0.05


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), min_size=1, max_size=40, unique_by=lambda p: p[0])
)
def test_the_lower_hull_lies_below_all_callbacks(points):
    callbacks = [Callback(*point) for point in sorted(points)]
    hull = lower_hull(callbacks)

    x, y = np.array(hull, dtype=float).T
    for one in callbacks:
        assert np.interp(one.samples, x, y) <= one.since_start_ns + 1e-3


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**14)), min_size=2, max_size=40, unique_by=lambda p: p[0]
    ),
    st.one_of(st.none(), st.integers(0, 10**8)),
)
def test_whatever_a_board_calls_back_the_line_is_a_line(points, bracket_ns):
    line = expected_line([Callback(*point) for point in sorted(points)], 1e5, bracket_ns)

    assert abs(line.period_ns / 1e5 - 1) <= 1.001e-3
    assert np.isfinite([line.pivot_ns, line.sigma_ns(0), line.at(0)]).all()
