"""The catch-up through a bad network, and across a gateway's restart: everything arrives, and nobody waits for long."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest
import zmq
from tests.faults.proxy import LossyCatchUp
from tests.producer.bus import TIMEOUT_S, RunningGateway, eventually, free_ports
from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus import catchup, wire
from dtolbus import client as clients
from dtolbus.client import Client, Endpoints
from dtolbus.errors import WireError
from dtolbus.records import DaqBlock, Gap, Record, RunStatus
from dtolbus.registrations import read_registrations
from dtolbus.remote import RemoteJournal
from dtolbus.sequencer import Arrived, Ended, Item
from dtolbus.wire import Ack, Hello, Message, Welcome
from dtolbus_producer.journal import RunWriter

BLOCKS, READINGS = block_run("run-1"), reading_run("run-2")
COUNT = 500
END_S = 60.0


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two runs that are over."""
    for run, make in ((BLOCKS, block), (READINGS, reading)):
        writer = RunWriter(tmp_path / "journal", run)
        for index in range(COUNT):
            writer.append(make(run, index))
        writer.close()
    return tmp_path


def received(client: Client, told: str, first: Sequence[Item] = ()) -> dict[str, list[Record | Gap]]:
    """Receive until both runs are over, after what came first; acknowledge what comes."""
    found: dict[str, list[Record | Gap]] = {}
    items, ended = list(first), 0
    end = time.monotonic() + END_S
    while ended < 2:
        assert time.monotonic() < end, f"{told}: { ({run: len(records) for run, records in found.items()}) }"
        for item in items:
            assert isinstance(item, Arrived | Ended), item
            ended += isinstance(item, Ended)
            if isinstance(item, Arrived):
                found.setdefault(item.run.run_id, []).append(item.record)
                info = item.run
                client.acknowledge(Ack("w", info.device, info.task, info.run_id, item.record.index + 1))
        items = client.receive(0.1)
    return found


def assert_whole(found: dict[str, list[Record | Gap]], told: str) -> None:
    assert {run: [getattr(record, "index", record) for record in records] for run, records in found.items()} == {
        run.run_id: list(range(COUNT)) for run in (BLOCKS, READINGS)
    }, told
    for record in found[BLOCKS.run_id]:
        assert isinstance(record, DaqBlock)
        assert bytes(record.raw_codes) == bytes(block(BLOCKS, record.index).raw_codes), told  # type: ignore[arg-type]


@contextlib.contextmanager
def connected(catchup_port: int, pub_port: int, hello: Hello | None = None) -> Iterator[Client]:
    client = Client(Endpoints(f"tcp://127.0.0.1:{pub_port}", f"tcp://127.0.0.1:{catchup_port}"), hello)
    try:
        yield client
    finally:
        client.close()


def acknowledged(data: Path) -> int:
    return sum(where.position for sink in read_registrations(data) for where in sink.positions.values())


@pytest.mark.parametrize(
    ("seed", "damaged", "dropped"),
    [
        (1, 4.0, 0.0),
        *(pytest.param(seed, 3.0, 0.2, marks=pytest.mark.soak) for seed in range(2, 8)),
    ],
)
def test_a_client_gets_every_record_unchanged_and_the_gateway_every_acknowledgement(
    journal: Path, monkeypatch: pytest.MonkeyPatch, seed: int, damaged: float, dropped: float
) -> None:
    if not dropped:  # what is damaged is noticed, and not waited for
        monkeypatch.setattr(catchup, "_ANSWER_S", 3600.0)
    with (
        RunningGateway(journal) as gateway,
        LossyCatchUp(gateway.catchup_port, seed, damaged=damaged, dropped=dropped) as proxy,
        connected(proxy.port, gateway.pub_port, Hello("w", "memory", "nowhere", "id")) as client,
    ):
        found = received(client, f"seed {seed}")
        end = time.monotonic() + END_S
        while acknowledged(journal) < 2 * COUNT:
            assert time.monotonic() < end, f"seed {seed}: {read_registrations(journal)}"
            assert client.receive(0.05) == []
        told = f"seed {seed}: {proxy.done}, {proxy.clients} connections"
    assert min(proxy.done[fate] for fate in ("asked damaged", "answered damaged", "flipped", "cut")) > 0, told
    assert_whole(found, told)


def test_a_remote_journal_is_read_whole(journal: Path) -> None:
    with (
        RunningGateway(journal) as gateway,
        LossyCatchUp(gateway.catchup_port, 9, damaged=4.0) as proxy,
        RemoteJournal(f"tcp://127.0.0.1:{proxy.port}") as remote,
    ):
        found = {run.info.run_id: list(run.records(0, COUNT)) for run in remote.runs}
    assert proxy.done["answered damaged"] > 0
    assert_whole(found, f"seed 9: {proxy.done}")


def test_a_remote_journal_of_which_everything_is_damaged_is_an_error(journal: Path) -> None:
    with RunningGateway(journal) as gateway, LossyCatchUp(gateway.catchup_port, 10, damaged=100.0) as proxy:
        with pytest.raises(WireError):
            RemoteJournal(f"tcp://127.0.0.1:{proxy.port}")


def test_a_fetch_that_was_on_its_way_when_the_gateway_restarts_is_asked_again_at_once(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "_ANSWER_S", 3600.0)
    first: list[Item] = []
    with contextlib.ExitStack() as held:
        with RunningGateway(journal) as gateway:
            client = held.enter_context(connected(gateway.catchup_port, gateway.pub_port))
            while not first:
                first = client.receive(TIMEOUT_S)
        assert client.sequencer.fetching is not None
        again = RunningGateway(journal)
        again.pub_port, again.catchup_port = gateway.pub_port, gateway.catchup_port
        held.enter_context(again)
        assert_whole(received(client, "restarted", first), "restarted")


class FakeGateway:
    """A ROUTER that answers as it is told."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self.port = self._router.bind_to_random_port("tcp://127.0.0.1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def asked(self, kind: type[Message], client: Client) -> tuple[bytes, Message]:
        """Wait for a message of this kind, the client receiving meanwhile."""
        end = time.monotonic() + END_S
        while time.monotonic() < end:
            client.receive(0.01)
            while self._router.poll(0):
                key, *frames = self._router.recv_multipart()
                message = wire.decode(frames)
                if isinstance(message, kind):
                    return key, message
        raise AssertionError(f"no {kind.__name__} came")

    def answer(self, key: bytes, message: Message, *, damaged: bool = False) -> None:
        topic, header, *arrays = map(bytes, wire.encode(message))
        self._router.send_multipart([key, topic, header[: -1 if damaged else None], *arrays])


def test_a_damaged_part_of_the_welcome_is_asked_for_again_before_all_runs_are_known() -> None:
    """Else a worker that ends when all is stored would end without that part's runs."""
    statuses = [RunStatus(block_run(f"run-{number}"), "ended", 0, 0) for number in range(3)]
    parts = [Welcome((status,), 256, 0.1, more=status is not statuses[-1]) for status in statuses]
    with FakeGateway() as gateway, connected(gateway.port, free_ports(1)[0]) as client:
        key, _ = gateway.asked(Hello, client)
        for number, part in enumerate(parts):
            gateway.answer(key, part, damaged=number == 1)
        again, _ = gateway.asked(Hello, client)
        assert again != key
        assert not client.welcomed
        for part in parts:
            gateway.answer(again, part)
        eventually(lambda: client.receive(0.01) == [] and client.welcomed)
        assert "run-1" in client.sequencer._ends


def test_a_catch_up_that_died_unseen_is_found_out_by_the_hello_that_nobody_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else acknowledgements would go nowhere for ever, where there is nothing to fetch."""
    monkeypatch.setattr(clients, "_HELLO_EVERY_S", 0.1)
    monkeypatch.setattr(catchup, "_ANSWER_S", 0.2)
    with FakeGateway() as gateway, connected(gateway.port, free_ports(1)[0]) as client:
        key, _ = gateway.asked(Hello, client)
        gateway.answer(key, Welcome((), 256, 0.1))
        eventually(lambda: client.receive(0.01) == [] and client.welcomed)
        eventually(lambda: gateway.asked(Hello, client)[0] != key)  # a new connection
