"""What producer and gateway tell of themselves where something is wrong."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.producer.bus import eventually
from tests.protocol.specimens import block, block_run

from dtolbus import files
from dtolbus.errors import CannotStartError, UsageError
from dtolbus.metricsoptions import MetricsPlace
from dtolbus.metricsserver import MetricsServer
from dtolbus.records import Record
from dtolbus.registrations import Registration, SinkPosition
from dtolbus.wire import Hello
from dtolbus_producer import acquisitionfacts, priority
from dtolbus_producer.acquisitionfacts import AcquisitionFacts, TaskFacts
from dtolbus_producer.attending import Attendance
from dtolbus_producer.children import Child, ChildSpec
from dtolbus_producer.childrenfacts import ChildrenFacts, give_places
from dtolbus_producer.gatewayfacts import Lags, connections
from dtolbus_producer.intake import Intake
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_producer.registry import Registry, encode_registration
from dtolbus_producer.segment import Segment
from dtolbus_producer.tailing import RunHead

RUN = block_run("0190a5f4-0000-7000-8000-000000000001", device="d", task="t")
NEXT = block_run("0190a5f4-0000-7000-8000-000000000002", device="d", task="t")
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:15E1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:15E1 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0100007F:9C40 0100007F:15E1 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:15E2 0100007F:9C42 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0
"""


def test_runs_of_a_task_are_added_up(tmp_path: Path) -> None:
    facts = TaskFacts("d", "t")
    assert facts.problem(time.monotonic()) == "d/t has no run yet"
    for run, count in ((RUN, 3), (NEXT, 2)):
        writer = RunWriter(tmp_path, run)
        facts.opened(writer)
        for index in range(count):
            writer.append(block(run, index))
        assert facts.is_recording
        assert facts.problem(time.monotonic()) == ""
        writer.close("interrupted" if run is RUN else "ended")
        assert not facts.is_recording
        told = facts.problem(time.monotonic())
        assert told == ("d/t does not record: its run was interrupted after 3 records" if run is RUN else "")
    written = facts.written()
    assert (written.runs, written.records, written.samples) == (2, 5, 50)
    assert written.size == sum(path.stat().st_size for path in tmp_path.rglob("*.dt-raw"))
    assert sum(facts.syncs.counts) > 0


def test_a_disk_that_stands_still_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = TaskFacts("d", "t")
    writer = RunWriter(tmp_path, RUN, sync_ms=3_600_000)
    facts.opened(writer)
    writer.append(block(RUN, 0))
    assert facts.problem(time.monotonic()) == "", "they are let wait for so long"
    monkeypatch.setattr(acquisitionfacts, "STALLED_S", -3_600.0)
    assert facts.problem(time.monotonic()).startswith("d/t: 1 records have waited for the disk for ")
    writer.close()


@pytest.mark.parametrize("sync_ms", [0.0, 20.0])
def test_a_write_that_hangs_is_told_and_keeps_nobody_from_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync_ms: float
) -> None:
    facts, attendance, hangs, goes_on = TaskFacts("d", "t"), Attendance("d/t"), threading.Event(), threading.Event()
    facts.attended(attendance)
    append = Segment.append

    def append_later(segment: Segment, record: Record) -> int:
        hangs.set()
        assert goes_on.wait(60)
        return append(segment, record)

    monkeypatch.setattr(Segment, "append", append_later)

    def open_writer(_: object) -> RunWriter:
        writer = RunWriter(tmp_path, RUN, sync_ms=sync_ms)
        facts.opened(writer)
        return writer

    intake = Intake(RUN, 0, open_writer, 4)
    attendance._begun = intake
    try:
        for _ in range(2):
            intake.put(lambda index: block(RUN, index))
            assert hangs.wait(60)
        with ThreadPoolExecutor(1) as asking:
            assert asking.submit(facts.written).result(60).size > 0
        assert facts.problem(time.monotonic()) == ""
        assert facts.problem(time.monotonic() + 60).startswith("d/t: what the board gives has waited for the disk for ")
    finally:
        goes_on.set()
    intake.finish("ended", None)  # type: ignore[arg-type]  # no clock
    assert facts.problem(time.monotonic() + 60) == ""


def test_what_the_queue_had_no_room_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, attendance = TaskFacts("d", "t"), Attendance("d/t")
    facts.attended(attendance)

    def open_writer(_: object) -> RunWriter:
        writer = RunWriter(tmp_path, RUN)
        facts.opened(writer)
        return writer

    intake = Intake(RUN, 0, open_writer, 4)
    attendance._intake = attendance._begun = intake
    monkeypatch.setattr(intake._queue, "full", lambda: True)
    for n in range(3):
        intake.offer(lambda index: block(RUN, index), 10 * n, 10)
    assert (facts.written().overruns, facts.written().lost_samples) == (1, 30), "also before there is room again"
    attendance.abandon("it hangs")
    assert (facts.written().overruns, facts.written().lost_samples) == (1, 30)
    facts.attended(Attendance("d/t"))
    assert facts.written().lost_samples == intake.lost_samples == 30


def test_a_journal_that_is_full_is_told(tmp_path: Path) -> None:
    facts = AcquisitionFacts("d", ["t"], tmp_path, JournalConfig(), lambda: "the journal is full")
    facts.tasks["t"].is_done = True
    assert facts.problems() == ["the journal is full"]


def test_lag_is_of_what_a_sink_takes_also_where_it_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "sinks").mkdir()
    away = Registration(
        name="away", sink="csv", place="p", destination_id="1", positions={RUN.run_id: SinkPosition("d/t", 4)}
    )
    files.replace(tmp_path / "sinks" / "away.json", encode_registration(away))
    (tmp_path / "sinks" / "odd.json").write_text("{")
    readings = Registration(name="readings", sink="csv", place="q", destination_id="2", topics=("reading/",))
    lags, runs = Lags(tmp_path), [RunHead(RUN, 10, True), RunHead(NEXT, 5, False)]
    assert lags.of({"readings": readings}, runs) == {"away": 11, "readings": 0}
    has_all = {RUN.run_id: SinkPosition("d/t", 10), NEXT.run_id: SinkPosition("d/t", 5)}
    here = Registration(name="away", sink="csv", place="p", destination_id="1", positions=has_all)
    assert lags.of({"away": here}, runs) == {"away": 0}
    assert lags.of({"away": here}, [runs[0], RunHead(NEXT, 8, False)]) == {"away": 3}
    anew = Registration(name="away", sink="csv", place="p", destination_id="3")
    assert lags.of({"away": anew}, runs) == {"away": 15}
    assert lags.of({"away": away}, runs) == {"away": 11}, "it was restored from a backup"
    less = Registration(name="away", sink="csv", place="p", destination_id="4", topics=("reading/",))
    assert lags.of({"away": less}, runs) == {"away": 0}
    more = Registration(name="away", sink="csv", place="p", destination_id="4")
    assert lags.of({"away": more}, runs) == {"away": 15}


def test_a_sink_that_was_forgotten_is_told_no_more(tmp_path: Path) -> None:
    with closing(Registry(tmp_path, lambda _: True)) as registry:
        for name in "ab":
            assert registry.hello(Hello(worker=name, sink="csv", place=name, destination_id=name)) is None
        assert registry.known().keys() == {"a", "b"}, "before they are written, too"
        registry.write_changed()
        eventually(lambda: not registry._new)
        (tmp_path / "sinks" / "a.json").unlink()
        assert registry.known().keys() == {"b"}


def test_connections_are_counted_at_the_end_that_serves() -> None:
    assert connections(TCP, (0x15E1, 0x15E2)) == {0x15E1: 1, 0x15E2: 0}


def test_a_part_that_does_not_run_is_told(tmp_path: Path) -> None:
    child = Child(ChildSpec("sink-csv", lambda: ["x"]), tmp_path)
    facts = ChildrenFacts([child])
    assert facts.problems() == ["sink-csv does not run"]
    child.failure = "no room"
    assert facts.problems() == ["sink-csv has ended: no room"]


def test_a_part_that_is_not_healthy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "pid", 1)
    ill, well, gone, silent = (Child(ChildSpec(name, lambda: ["x"]), tmp_path) for name in ("a", "b", "c", "d"))
    told = AcquisitionFacts("d", ["t"], tmp_path, JournalConfig(), lambda: "the journal is full")
    told.tasks["t"].is_done = True
    with ExitStack() as held:
        for child in (ill, well, gone):
            server = MetricsServer("127.0.0.1", 0, f"part {child.spec.name}")
            server.tell(told if child is ill else ChildrenFacts([]))
            place = MetricsPlace(server.port)
            child.spec = replace(child.spec, environment=place.environment())
            if child is gone:
                server.close()
            else:
                held.callback(server.close)
        ill_told, gone_told = ChildrenFacts([ill, well, gone, silent]).problems()
    assert ill_told == "a: part a: the journal is full"
    assert gone_told.startswith(f"c: http://127.0.0.1:{place.port}/health does not answer: ")


def test_ports_that_are_the_gateways(tmp_path: Path) -> None:
    children = [Child(ChildSpec(name, lambda: ["x"]), tmp_path) for name in "ab"]
    with pytest.raises(UsageError, match="--metrics-port 5600: ports 5600 to 5602 are needed; 5602 is --catchup-port"):
        give_places(children, MetricsPlace(5600), {5602: "--catchup-port"})


def test_ports_that_there_are_not(tmp_path: Path) -> None:
    children = [Child(ChildSpec(name, lambda: ["x"]), tmp_path) for name in "ab"]
    with pytest.raises(UsageError, match="--metrics-port 65534: this one and the 2 behind it are needed"):
        give_places(children, MetricsPlace(65534))
    assert give_places(children, None) == []
    assert all(child.spec.environment == {} for child in children)


def test_a_port_of_a_part_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtolbus_producer.childrenfacts.port_problem", lambda _, port: "in use" if port == 7 else None)
    children = [Child(ChildSpec(name, lambda: ["x"]), tmp_path) for name in "ab"]
    with pytest.raises(CannotStartError, match="port 7 is in use, or choose another --metrics-port: b tells"):
        give_places(children, MetricsPlace(5))


def test_a_run_whose_last_sync_hangs_is_not_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, told = TaskFacts("d", "t"), []
    writer = RunWriter(tmp_path, RUN, sync_ms=3_600_000)
    facts.opened(writer)
    writer.append(block(RUN, 0))
    sync = Segment.sync

    def sync_later(segment: Segment) -> None:
        told.append(facts.problem(time.monotonic() + 7_200))
        sync(segment)

    monkeypatch.setattr(Segment, "sync", sync_later)
    writer.close()
    assert told[0].startswith("d/t: 1 records have waited for the disk for ")
    assert facts.problem(time.monotonic() + 7_200) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="turns are Linux's")
def test_a_thread_that_has_ended_ends_nobody() -> None:
    priority._take_turns_of(priority.SLICE_NS, 2**22 + 1)  # beyond all that Linux gives
