"""Ratios, goals and the turns that ours and the reference take."""

import math

from bench.measuring import Case, Pair, Plan, Repeated, at_least, at_most, measure, summary

RATE = at_least(0.8)
PLAN = Plan(pairs=5, most_pairs=5, budget_s=0.0, trial_s=0.001)


def case(goal=RATE, ours=lambda: 1.0, reference=lambda: 1.0, **more) -> Case:
    return Case("wire", "16 kB", "MB/s", ours, reference, goal, **more)


def test_the_ratio_is_that_of_the_medians_and_the_spread_that_of_the_pairs():
    pairs = [Pair(80.0, 100.0), Pair(90.0, 100.0), Pair(10.0, 50.0)]

    found = summary(case(), pairs)

    assert (found.ours, found.reference, found.ratio, found.spread) == (80.0, 100.0, 0.8, (0.2, 0.9))
    assert found.met


def test_a_rate_must_reach_its_goal_and_a_cost_must_not_pass_it():
    assert [at_least(0.8).is_met(figure) for figure in (0.79, 0.8, 0.81, math.nan)] == [False, True, True, False]
    assert [at_most(1.5).is_met(figure) for figure in (1.49, 1.5, 1.51, math.nan)] == [True, True, False, False]
    assert (str(at_least(0.85)), str(at_most(3))) == ("≥ 0.85", "≤ 3")


def test_without_a_reference_the_goal_is_for_the_median_itself():
    found = summary(case(at_most(3.0), reference=None), [Pair(2.0, None), Pair(9.0, None), Pair(2.5, None)])

    assert (found.ours, found.reference, found.ratio, found.spread) == (2.5, None, None, (2.0, 9.0))
    assert found.met


def test_a_reference_that_did_nothing_meets_no_goal():
    assert not summary(case(at_most(3.0)), [Pair(1.0, 0.0)]).met
    assert not summary(case(), [Pair(1.0, 0.0)]).met


def test_ours_and_the_reference_take_turns_and_who_begins_changes():
    turns = []

    def turn(who):
        turns.append(who)
        return 1.0

    measure(case(ours=lambda: turn("o"), reference=lambda: turn("r")), PLAN)

    assert "".join(turns) == "or" + "or" + "ro" + "or" + "ro" + "or"  # the first pair is the warm-up


def test_a_slow_case_ends_with_its_budget_and_a_quick_one_with_the_most_pairs():
    times = iter(range(0, 1000, 10))
    counted = []

    measure(
        case(ours=lambda: counted.append(1) or 1.0),
        Plan(pairs=2, most_pairs=50, budget_s=35.0, trial_s=1),
        lambda: next(times),
    )

    assert len(counted) == 1 + 5  # the warm-up; two pairs without asking the clock, and then at 10, 20 and 30 s


def test_a_case_of_its_own_number_of_trials_is_not_warmed_up_for_one():
    counted = []

    measure(case(ours=lambda: counted.append(1) or 1.0, trials=1), PLAN)

    assert len(counted) == 1


def test_repeated_work_gives_a_rate_or_a_cost():
    asked = []

    rate = Repeated(asked.append, amount=16.0, trial_s=1e-6, most=64)()
    cost = Repeated(lambda times: None, amount=1e6, trial_s=1e-6, cost=True, most=64)()

    assert rate > 0
    assert cost > 0
    assert max(asked) <= 64
