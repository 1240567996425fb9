"""When a batch is due, and what it holds."""

from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus.records import Gap
from dtolbus.sequencer import Arrived, Ended, Missing
from dtolbus_workers.batch import Batcher, BatchPolicy

POLICY = BatchPolicy(records=3, bytes=1 << 20, age_s=1.0)


def test_a_batch_is_due_when_full_and_goes_on_where_the_last_ended() -> None:
    run = block_run()
    batcher = Batcher(POLICY, {run.run_id: 5})
    for index in range(5, 8):
        assert batcher.due(0.0) == []
        batcher.add(Arrived(run, block(run, index), fetched=index == 6), 0.0)
    (due,) = batcher.due(0.0)
    assert (due.batch.from_index, due.batch.to_index, due.batch.backfilled, due.over) == (5, 8, 1, False)
    batcher.add(Arrived(run, block(run, 8), fetched=False), 0.0)
    (due,) = batcher.due(0.0, everything=True)
    assert (due.batch.from_index, due.batch.to_index) == (8, 9)
    assert batcher.is_empty()


def test_a_batch_is_due_by_age_although_nothing_more_arrives() -> None:
    run = reading_run()
    batcher = Batcher(POLICY, {})
    batcher.add(Arrived(run, reading(run, 0), fetched=False), 10.0)
    assert batcher.due(10.9) == []
    assert batcher.wait_s(10.75) == 0.25
    assert len(batcher.due(11.0)) == 1


def test_large_records_make_a_batch_due_by_bytes() -> None:
    run = block_run()
    batcher = Batcher(POLICY, {})
    batcher.add(Arrived(run, block(run, 0, samples=300_000), fetched=False), 0.0)
    assert len(batcher.due(0.0)) == 1


def test_the_end_of_a_run_is_due_at_once_also_without_records() -> None:
    run = block_run()
    batcher = Batcher(POLICY, {run.run_id: 4})
    batcher.add(Ended(run, 4), 0.0)
    (due,) = batcher.due(0.0)
    assert due.over
    assert due.batch.from_index == due.batch.to_index == 4


def test_gaps_and_records_fill_a_batch_together_and_runs_stay_apart() -> None:
    run, other = block_run("a"), block_run("b")
    batcher = Batcher(POLICY, {})
    batcher.add(Arrived(run, block(run, 0), fetched=False), 0.0)
    batcher.add(Missing(run, Gap(1, 4, "damaged")), 0.0)
    batcher.add(Arrived(other, block(other, 0), fetched=False), 0.0)
    first, second = (due.batch for due in batcher.due(5.0))
    assert (first.run, first.to_index, first.gaps) == (run, 4, (Gap(1, 4, "damaged"),))
    assert (second.run, second.to_index, second.gaps) == (other, 1, ())
