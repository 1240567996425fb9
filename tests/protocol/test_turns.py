"""Whose turn it is: as if all were looked at, without looking at all."""

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from dtolbus.records import Channel, RunInfo, RunStatus
from dtolbus.sequencer import Sequencer, _Run
from dtolbus.turns import Turns
from dtolbus.wire import Done, RunGap, Welcome

KEYS = st.text("abc", max_size=3)


@given(st.lists(KEYS, unique=True), st.sets(KEYS), KEYS)
def test_the_first_behind_is_the_least_that_is_greater_or_else_the_least(added, removed, last):
    turns = Turns()
    for key in added:
        turns.add(key)
    for key in removed & set(added):
        turns.remove(key)

    left = sorted(set(added) - removed)
    later = [key for key in left if key > last]
    assert list(turns) == left
    assert list(turns.behind(last)) == later + [key for key in left if key <= last]


def test_a_worker_that_catches_up_on_many_runs_looks_at_each_of_them_a_few_times_only():
    count = 500
    runs = [
        RunInfo(f"run{n:04d}", "dev", "task", "blocks", (Channel(name="a"),), 1000.0, 0, 0, block_samples=10)
        for n in range(count)
    ]
    sequencer = Sequencer()
    with mock.patch.object(_Run, "missing", autospec=True, side_effect=_Run.missing) as looked:
        step = sequencer.heard(Welcome(tuple(RunStatus(run, "ended", 0, 2) for run in runs), 256, 1.0), fetched=True)
        asked = []
        while (fetch := step.fetch) is not None:
            asked.append(fetch.run_id)
            sequencer.heard(RunGap(fetch.run_id, 0, 2, "lost", number=fetch.number), fetched=True)
            step = sequencer.heard(Done(fetch.run_id, 2, fetch.number), fetched=True)

    assert asked == [run.run_id for run in runs]
    assert sequencer.complete()
    assert looked.call_count < 5 * count
