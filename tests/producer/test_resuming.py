"""What is left of a recording, and what is said of what it lacks."""

import msgspec
import pytest
from tests.producer.acquired import acquire_all, config_of

from dtolbus.records import DaqEvent, Gap
from dtolbus_producer.resuming import (
    Before,
    before_of,
    earlier_runs,
    newest_of,
    newest_runs,
    rest_of,
    run_names,
    samples_over,
)
from dtolbus_producer.shortfall import shortfalls
from dtolbus_producer.tasks import DeviceConfig, TaskConfig

TASK = TaskConfig("t", rate_hz=1000.0, samples=1000, channels=("a",))


def before(samples: int, rate_hz: float = 1000.0) -> Before:
    return Before("r", samples, rate_hz)


@pytest.mark.parametrize(("had", "left"), [(0, 1000), (1, 999), (999, 1), (1000, None), (1001, None)])
def test_the_rest_is_what_was_asked_without_what_there_is(had, left):
    rest = rest_of(TASK, before(had))
    assert (None if rest is None else rest.samples) == left


def test_without_a_run_before_or_an_end_the_task_is_the_same():
    endless = TaskConfig("t", rate_hz=1000.0)
    assert rest_of(TASK, None) is TASK
    assert rest_of(endless, before(12345)) is endless


def test_a_duration_is_counted_in_samples_of_the_true_rate():
    rest = rest_of(TaskConfig("t", duration_s=2.0), before(500, rate_hz=999.5))
    assert rest is not None
    assert (rest.samples, rest.duration_s) == (1499, None)


def test_what_is_over_is_read_from_the_last_records_lost_samples_included(tmp_path):
    options = {"speed": "max", "overrun_at_s": 0.4}
    task = {"name": "t", "rate_hz": 1000, "block_samples": 100, "channels": ["a"], "samples": 450}
    (run,) = acquire_all(config_of(task, options=options), tmp_path)
    assert before_of(run) == Before(run.info.run_id, 450, 1000.0)
    lost = DaqEvent(device="d", task="t", run_id="r", record_index=4, kind="overrun", message="", sample_index=400,
                    lost_samples=30)  # fmt: skip
    assert samples_over(run.info, [lost]) == 430
    assert samples_over(run.info, [Gap(0, 3, "gone", 0, 300)]) == 300
    assert earlier_runs(tmp_path / "journal", "dev", [run.info.run_id]) == {"t": before_of(run)}


def test_only_the_newest_run_of_this_session_is_gone_on_from(tmp_path):
    journal = tmp_path / "journal"
    config = config_of({"name": "t", "rate_hz": 1000, "channels": ["a"], "samples": 10}, options={"speed": "max"})
    acquire_all(config, tmp_path)
    earlier = run_names(journal, "dev")
    assert newest_runs(journal, "dev", earlier) == []
    *_, last = [acquire_all(config, tmp_path) for _ in range(2)][-1]
    assert newest_runs(journal, "dev", earlier) == [last.info.run_id]


def test_the_newest_run_is_the_one_that_none_goes_on_from_though_the_clock_was_set_back(tmp_path):
    config = config_of({"name": "t", "rate_hz": 1000, "channels": ["a"], "samples": 10}, options={"speed": "max"})
    (run,) = acquire_all(config, tmp_path)
    older = msgspec.structs.replace(run.info, run_id="z", goes_on_from=None)
    newer = msgspec.structs.replace(run.info, run_id="b", goes_on_from="z", samples_before=4)
    copy = msgspec.structs.replace(run.info, run_id="c", goes_on_from="z", meta={"recalibrated_from": "b"})
    assert newest_of([newer, older, copy]) == {("dev", "t"): newer}


def test_less_than_was_asked_is_told_and_nothing_else():
    polled = TaskConfig("p", "readings", rate_hz=5.0, duration_s=10.0)
    devices = [
        DeviceConfig("dt1", tasks=(TaskConfig("vibration", rate_hz=1000.0, duration_s=10.0), polled)),
        DeviceConfig("dt2", tasks=(TASK, TaskConfig("endless", rate_hz=10.0))),
        DeviceConfig("dt3", tasks=(TaskConfig("own rate", duration_s=3.0), TaskConfig("endless"))),
    ]
    had = {("dt1", "vibration"): before(3200), ("dt1", "p"): before(50, 5.0), ("dt2", "t"): before(1000)}
    assert shortfalls(devices, had) == [
        "dt1/vibration has 3200 of 10000 samples (3.2 s of 10 s)",
        "dt3/own rate has nothing of 3 s",
    ]
