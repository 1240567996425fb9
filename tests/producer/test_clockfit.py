import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtolbus_producer.clockfit import Anchor, ClockFit, lower_hull

RATE_HZ = 10_000.0
BLOCK = 200
ORIGIN_NS = 10**15


def followed(seconds, *, drift_ppm, lateness_ms=60.0, seed=0, bracket_ns=20_000, block=BLOCK, utc_offset_ns=0):
    """Stamps of a board whose callbacks are late, and each block's error against the samples' true instants, ns."""
    chance = random.Random(seed)
    start_ns = ORIGIN_NS + chance.random() * bracket_ns
    period_ns = 1e9 / (RATE_HZ * (1 + drift_ppm * 1e-6))
    fit = ClockFit(RATE_HZ, (ORIGIN_NS, ORIGIN_NS + bracket_ns), utc_offset_ns)
    stamps, errors, last_ns = [], [], 0.0
    for first in range(0, int(seconds * RATE_HZ), block):
        end = first + block
        last_ns = max(last_ns, start_ns + end * period_ns + chance.random() * lateness_ms * 1e6)
        fit.anchor(end, int(last_ns) + 1)
        stamp = fit.stamp(first, block)
        stamps.append(stamp)
        errors.append(abs(stamp[0] - (start_ns + first * period_ns)))
    return stamps, np.array(errors)


@pytest.mark.parametrize("drift_ppm", [50.0, -50.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_samples_are_stamped_within_a_millisecond_after_ten_seconds_and_a_fifth_after_ten_minutes(drift_ppm, seed):
    _, errors_ns = followed(660, drift_ppm=drift_ppm, seed=seed)
    at = np.arange(len(errors_ns)) * BLOCK / RATE_HZ

    assert np.percentile(errors_ns[(at >= 10) & (at < 60)], 95) < 1e6
    assert np.percentile(errors_ns[at >= 600], 95) < 0.2e6


@settings(max_examples=30, deadline=None)
@given(
    drift_ppm=st.floats(-200, 200),
    lateness_ms=st.floats(0, 200),
    seed=st.integers(0, 2**32),
    block=st.integers(1, 2000),
    bracket_ns=st.integers(0, 50_000_000),
)
def test_each_block_begins_where_the_one_before_it_ended(drift_ppm, lateness_ms, seed, block, bracket_ns):
    stamps, _ = followed(
        400 * block / RATE_HZ,
        drift_ppm=drift_ppm,
        lateness_ms=lateness_ms,
        seed=seed,
        bracket_ns=bracket_ns,
        block=block,
        utc_offset_ns=10**18,
    )

    for (t_mono_ns, clock), (next_ns, _) in pairwise(stamps):
        assert abs(next_ns - (t_mono_ns + block * clock.period_ns)) <= 1.5
        assert clock.utc_ns == t_mono_ns + 10**18
        assert abs(clock.period_ns * RATE_HZ / 1e9 - 1) < 1e-3


def test_a_late_callback_does_not_move_the_samples():
    fit = ClockFit(RATE_HZ, (0, 0), 0)
    fit.anchor(200, 20_000_000)
    fit.stamp(0, 200)
    fit.anchor(400, 40_000_000 + 500_000_000)

    t_mono_ns, _ = fit.stamp(200, 200)

    assert abs(t_mono_ns - 20_000_000) < 10_000


def test_the_first_sample_is_stamped_not_the_end_of_the_buffer():
    fit = ClockFit(1000.0, (5_000_000_000, 5_000_000_000), 0)
    fit.anchor(1000, 6_000_000_000)

    assert fit.stamp(0, 1000)[0] == 5_000_000_000


def test_lost_samples_keep_their_place_in_time():
    fit = ClockFit(1000.0, (0, 0), 0)
    fit.anchor(100, 100_000_000)
    fit.stamp(0, 100)
    fit.anchor(300, 300_000_000)

    assert abs(fit.stamp(200, 100)[0] - 200_000_000) < 50_000


def test_without_a_clock_of_its_own_the_nominal_rate_holds():
    fit = ClockFit(48_000.0, (0, 10), 0, keeps_time=False)
    for n in range(100):
        fit.anchor((n + 1) * 480, 1)
        t_mono_ns, clock = fit.stamp(n * 480, 480)
        assert clock.period_ns == 1e9 / 48_000
        assert t_mono_ns == round(5 + n * 480 * 1e9 / 48_000)


def test_the_period_does_not_accumulate_its_rounding():
    fit = ClockFit(48_000.0, (0, 0), 0, keeps_time=False)
    hour = 3600 * 48_000
    fit.stamp(0, hour)

    assert fit.stamp(hour, 1)[0] == 3_600_000_000_000


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), min_size=1, max_size=40, unique_by=lambda p: p[0])
)
def test_the_lower_hull_lies_below_all_anchors(points):
    anchors = [Anchor(*point) for point in sorted(points)]
    hull = lower_hull(anchors)

    x, y = np.array(hull, dtype=float).T
    for anchor in anchors:
        assert np.interp(anchor.samples, x, y) <= anchor.since_start_ns + 1e-3
