"""The worker loop against a real gateway: failures of the outside, records at fault, stops, ends."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus.client import Client, Endpoints
from dtolbus.errors import DtolSinkWriteError
from dtolbus.records import RunInfo
from dtolbus.registrations import read_registrations
from dtolbus.sequencer import Item
from dtolbus_producer.journal import RunWriter
from dtolbus_workers import worker
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.destination import Destination, Position, Positions, RecordRefusedError, RunBatch
from dtolbus_workers.inbox import Inbox
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.worker import WorkerConfig, run_worker

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
READINGS = reading_run("0190a5f4-0000-7000-8000-000000000002")
LATER = block_run("0190a5f4-0000-7000-8000-000000000003")


class Memory(Destination):
    """Keeps what is committed; fails as it is told."""

    kind = "memory"
    destination_id = "1b0e7e42-0000-4000-8000-000000000000"

    def __init__(self, fault: Callable[[RunBatch], None] = lambda batch: None) -> None:
        self.batches: list[RunBatch] = []
        self.finalized: list[str] = []
        self.fault = fault

    async def open(self) -> Positions:
        runs = {batch.run.run_id: batch.run for batch in self.batches}
        return {run_id: Position(self.position(run), 0) for run_id, run in runs.items()}

    async def commit(self, batch: RunBatch) -> None:
        self.fault(batch)
        assert batch.from_index == self.position(batch.run)
        self.batches.append(batch)

    async def finalize(self, run: RunInfo) -> None:
        self.finalized.append(run.run_id)

    async def close(self) -> None:
        pass

    def position(self, run: RunInfo) -> int:
        return max((batch.to_index for batch in self.batches if batch.run == run), default=0)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two runs that are over: 300 blocks, 20 readings."""
    for run, make, count in ((RUN, block, 300), (READINGS, reading, 20)):
        writer = RunWriter(tmp_path / "journal", run)
        for index in range(count):
            writer.append(make(run, index))  # type: ignore[operator]
        writer.close()
    return tmp_path


def config(gateway: RunningGateway, **changes: object) -> WorkerConfig:
    ports = (f"tcp://127.0.0.1:{port}" for port in (gateway.pub_port, gateway.catchup_port))
    settings = WorkerConfig("memory", Endpoints(*ports), "nowhere", until_end=True, policy=BatchPolicy(records=100))
    return replace(settings, **changes)  # type: ignore[arg-type]


def work(destination: Destination, settings: WorkerConfig, stop: threading.Event | None = None) -> None:
    asyncio.run(asyncio.wait_for(run_worker(destination, settings, stop or threading.Event()), 60))


@pytest.mark.parametrize("drain_s", [0.0, 60.0])
def test_a_worker_told_to_stop_stores_first_what_it_lacks_of_ended_runs_if_it_has_time_for_that(
    journal: Path, drain_s: float
) -> None:
    memory, stop = Memory(), threading.Event()
    stop.set()
    with RunningGateway(journal) as gateway:
        work(memory, config(gateway, until_end=False, drain_s=drain_s), stop)
    assert (memory.position(RUN), memory.position(READINGS)) == ((300, 20) if drain_s else (0, 0))


def test_a_worker_with_time_to_drain_ends_at_once_where_the_destination_fails(journal: Path) -> None:
    stop = threading.Event()

    def fail(_: RunBatch) -> None:
        stop.set()
        raise DtolSinkWriteError("the disk is away")

    memory = Memory(fail)
    with RunningGateway(journal) as gateway:
        work(memory, config(gateway, until_end=False, drain_s=3600.0), stop)
    assert memory.batches == []


def test_until_end_everything_is_stored_acknowledged_and_finalized(journal: Path) -> None:
    destination = Memory()
    with RunningGateway(journal) as gateway:
        work(destination, config(gateway))
        eventually(lambda: len(read_registrations(journal)[0].positions) == 2)
    assert (destination.position(RUN), destination.position(READINGS)) == (300, 20)
    assert sorted(destination.finalized) == [RUN.run_id, READINGS.run_id]
    assert [record.index for b in destination.batches if b.run == RUN for record in b.records] == list(range(300))
    assert max(len(batch.records) for batch in destination.batches) >= 100
    (known,) = read_registrations(journal)
    assert {run_id: where.position for run_id, where in known.positions.items()} == {
        RUN.run_id: 300,
        READINGS.run_id: 20,
    }


def test_runs_that_a_sink_has_already_are_not_finalized_at_each_start(journal: Path) -> None:
    destination = Memory()
    with RunningGateway(journal) as gateway:
        work(destination, config(gateway))
    destination.finalized.clear()
    writer = RunWriter(journal / "journal", LATER)
    writer.append(block(LATER, 0))
    writer.close()
    with RunningGateway(journal) as gateway:
        work(destination, config(gateway))
    assert (destination.position(LATER), destination.finalized) == (1, [LATER.run_id])


class Watched(Inbox):
    """Tells how often nothing was there to take, and that it is closed."""

    def __init__(self, client: Client) -> None:
        self.turns = threading.Semaphore(0)
        self.is_closed = False
        assert isinstance(client, HeldUp)
        client.inbox = self
        super().__init__(client)

    async def take(self, timeout_s: float, max_bytes: int = 16 << 20) -> list[Item]:
        items = await super().take(timeout_s, max_bytes)
        if not items:
            self.turns.release()
        return items

    def close(self) -> None:
        self.is_closed = True
        for _ in range(3):
            self.turns.release()
        super().close()


class HeldUp(Client):
    """Has received the last records, and is held up before it hands them over, until the loop had three turns."""

    inbox: Watched
    ended_before: bool | None = None

    def receive(self, timeout_s: float) -> list[Item]:
        items = super().receive(timeout_s)
        if items and self.welcomed and self.sequencer.complete():
            while self.inbox.turns.acquire(blocking=False):
                pass
            for _ in range(3):
                assert self.inbox.turns.acquire(timeout=30)
            HeldUp.ended_before = self.inbox.is_closed
        return items


def test_the_end_of_the_runs_comes_behind_their_last_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Inbox", Watched)
    monkeypatch.setattr(worker, "Client", HeldUp)
    monkeypatch.setattr(HeldUp, "ended_before", None)
    writer = RunWriter(tmp_path / "journal", RUN)
    writer.append(block(RUN, 0))
    writer.close()
    destination = Memory()
    with RunningGateway(tmp_path) as gateway:
        work(destination, config(gateway))
    assert HeldUp.ended_before is False, "the worker ended while the last records were on their way to it"
    assert (destination.position(RUN), destination.finalized) == (1, [RUN.run_id])


def test_a_failure_of_the_outside_is_tried_again_and_nothing_is_stored_twice(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RETRY_S", (0.01, 0.05))
    failures = iter(range(5))

    def away(_: RunBatch) -> None:
        if next(failures, None) is not None:
            raise DtolSinkWriteError("the database is away")

    destination = Memory(away)
    with RunningGateway(journal) as gateway:
        work(destination, config(gateway))
    assert (destination.position(RUN), destination.position(READINGS)) == (300, 20)


def test_a_record_at_fault_is_put_aside_and_the_rest_of_its_batch_is_stored(journal: Path) -> None:
    def refuses(batch: RunBatch) -> None:
        for index in (3, 250):
            if batch.run == RUN and batch.from_index <= index < batch.to_index and index not in batch.put_aside:
                raise RecordRefusedError(index, "it is odd")

    destination = Memory(refuses)
    with RunningGateway(journal) as gateway:
        work(destination, config(gateway))
    aside = {index: why for batch in destination.batches for index, why in batch.put_aside.items()}
    assert aside == {3: "it is odd", 250: "it is odd"}
    assert destination.position(RUN) == 300


def test_a_gateway_that_is_another_learns_how_far_the_worker_is(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "journal", READINGS)
    writer.append(reading(READINGS, 0))
    destination, stop = Memory(), threading.Event()
    with RunningGateway(tmp_path) as gateway:
        settings = config(gateway, until_end=False, policy=BatchPolicy(age_s=0.05))
        thread = threading.Thread(target=work, args=(destination, settings, stop))
        thread.start()
        eventually(lambda: destination.position(READINGS) == 1)
    (tmp_path / "sinks" / "memory.json").unlink(missing_ok=True)  # as if it had died before writing anything
    again = RunningGateway(tmp_path)
    again.pub_port, again.catchup_port = gateway.pub_port, gateway.catchup_port
    with again:
        eventually(lambda: [r.positions[READINGS.run_id].position for r in read_registrations(tmp_path)] == [1])
        writer.append(reading(READINGS, 1))
        writer.close()
        eventually(lambda: read_registrations(tmp_path)[0].positions[READINGS.run_id].position == 2)
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_topics_and_since_narrow_what_is_taken(journal: Path) -> None:
    with RunningGateway(journal) as gateway:
        settings = config(gateway)
        only_readings = Memory()
        work(only_readings, replace(settings, at=replace(settings.at, topics=("reading/",))))
        nothing = Memory()
        work(nothing, replace(settings, since_utc_ns=RUN.started_utc_ns + 1))
    assert (only_readings.position(RUN), only_readings.position(READINGS)) == (0, 20)
    assert nothing.batches == []


def test_a_run_that_was_begun_is_gone_on_with_when_since_has_passed_it_by(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "journal", RUN, sync_ms=0)
    place = str(tmp_path / "lab.sqlite")
    with RunningGateway(tmp_path) as gateway:
        settings = config(gateway, name="sqlite", place=place, policy=BatchPolicy(age_s=0.05))
        stop = threading.Event()
        worker = threading.Thread(target=work, args=(SqliteDestination(place), settings, stop))
        worker.start()
        writer.append(block(RUN, 0))
        eventually(lambda: [len(sink.positions) for sink in read_registrations(tmp_path)] == [1])
        stop.set()
        worker.join()
        writer.append(block(RUN, 1))
        writer.close()
        later = replace(settings, since_utc_ns=RUN.started_utc_ns + 1, options={"since_utc_ns": str(2**62)})
        work(SqliteDestination(place), later)
        eventually(lambda: [sink.positions[RUN.run_id].position for sink in read_registrations(tmp_path)] == [2])
    certificate = verify(tmp_path)
    assert certificate.complete
    assert [line.stored for line in certificate.lines] == [2]


def test_the_end_of_a_run_is_committed_at_once_and_a_new_start_goes_on_there(tmp_path: Path) -> None:
    place, data = tmp_path / "bus.sqlite", tmp_path / "data"
    writer = RunWriter(data / "journal", READINGS)
    for index in range(10):
        writer.append(reading(READINGS, index))
    eventually(lambda: writer.head == 10)
    with RunningGateway(data) as gateway:
        settings = config(gateway, name="sqlite", policy=BatchPolicy(age_s=3600.0))
        stop = threading.Event()
        thread = threading.Thread(target=work, args=(SqliteDestination(place), settings, stop))
        thread.start()
        writer.append(reading(READINGS, 10))
        writer.close()  # the end of the run makes the batch due
        eventually(lambda: stored(place) == list(range(11)))
        stop.set()
        thread.join(30)
        work(SqliteDestination(place), settings)
    assert stored(place) == list(range(11))


def stored(place: Path) -> list[int]:
    found = SqliteDestination.stored(str(place), {}, READINGS) if place.exists() else None
    return [] if found is None else [reading[0] for reading in found.readings]
