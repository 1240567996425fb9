"""A sink that stores nothing is told while the recording runs: when, how far behind, and why."""

import io
import logging
from pathlib import Path

import pytest

from dtolbus.logs import _Lines
from dtolbus_producer.plan import batch_age_s
from dtolbus_producer.progress import SinkProgress
from dtolbus_producer.sinkconfig import SinkConfig
from dtolbus_producer.stalls import LogTail, Stalls


def stalls_of(log: Path, age_s: float = 1.0) -> Stalls:
    return Stalls({"csv": age_s}, {"csv": LogTail(log)})


def logged(path: Path, level: int, message: str, *, as_json: bool = False, **facts: object) -> None:
    """Append a line to a log as a worker does."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines(as_json))
    record = logging.makeLogRecord({"name": "dtolbus_workers.worker", "levelno": level, "msg": message, **facts})
    record.levelname = logging.getLevelName(level)
    handler.emit(record)
    with path.open("a") as file:
        file.write(stream.getvalue())


@pytest.mark.parametrize("as_json", [False, True])
def test_it_is_told_once_with_its_last_error_and_once_more_when_it_is_well(tmp_path: Path, as_json: bool) -> None:
    log = tmp_path / "sink-csv.log"
    logged(log, logging.WARNING, "an old story")
    stalls = stalls_of(log)
    assert stalls.note(100.0, {"csv": SinkProgress(5, 5)}) == []
    logged(
        log, logging.WARNING, "commit failed, trying again", as_json=as_json, error="x.csv: No space left", wait_s=0.2
    )
    logged(log, logging.INFO, "catch-up connects anew", as_json=as_json, to="tcp://127.0.0.1:1")
    assert stalls.note(111.0, {"csv": SinkProgress(5, 15)}) == []
    told = stalls.note(111.1, {"csv": SinkProgress(5, 16)})
    assert told == ["csv has stored nothing for 11 s, 11 records behind: x.csv: No space left"]
    assert stalls.note(150.0, {"csv": SinkProgress(5, 50)}) == []
    assert stalls.note(151.0, {"csv": SinkProgress(6, 51)}) == ["csv stores again after 51 s; 45 records behind"]
    assert stalls.note(152.0, {"csv": SinkProgress(51, 51)}) == []
    assert stalls.note(170.0, {"csv": SinkProgress(51, 60)}) == [
        "csv has stored nothing for 18 s, 9 records behind: it does not say why"
    ]


def test_one_that_has_all_or_gets_on_is_not_told(tmp_path: Path) -> None:
    stalls = stalls_of(tmp_path / "none.log")
    for now in range(100):
        assert stalls.note(float(now), {"csv": SinkProgress(now // 5, 100)}) == []
    for now in range(100, 200):
        assert stalls.note(float(now), {"csv": SinkProgress(100, 100)}) == []


def test_its_batches_age_is_its_own(tmp_path: Path) -> None:
    sinks = [
        SinkConfig(kind="csv"),
        SinkConfig(kind="parquet"),
        SinkConfig(kind="parquet", options={"max_age": 60}),
        SinkConfig(kind="sqlite", options={"max-age": "0.5"}),
    ]
    assert [batch_age_s(sink) for sink in sinks] == [1.0, 10.0, 60.0, 0.5]
    stalls = stalls_of(tmp_path / "none.log", age_s=60.0)
    assert [stalls.note(now, {"csv": SinkProgress(0, 9)}) for now in (0.0, 69.0)] == [[], []]
    assert len(stalls.note(71.0, {"csv": SinkProgress(0, 9)})) == 1


def test_the_last_words_of_a_worker_that_cannot_start_are_a_complaint(tmp_path: Path) -> None:
    log = tmp_path / "sink-csv.log"
    log.write_text("dtolbus-postgres: no database at 127.0.0.1:5432: start the server\n")
    assert LogTail(log).complaint() == "no database at 127.0.0.1:5432: start the server"
