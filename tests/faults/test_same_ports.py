"""Two stacks on the same ports: one records, the others say why not, and nothing of one is stored by another."""

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import zmq
from tests.e2e.commands import run
from tests.e2e.stacks import Up, assert_complete, runs
from tests.faults.feed import Feed, WorkerThread
from tests.producer.bus import TIMEOUT_S, Peer, RunningGateway, eventually, free_ports
from tests.protocol.specimens import block, block_run, reading_run

from dtolbus import wire
from dtolbus.client import Client, Endpoints
from dtolbus.errors import CannotStartError
from dtolbus.identity import ANY, Identity
from dtolbus.records import RunStatus
from dtolbus.registrations import Registration, encode_registration, read_registrations, registration_path
from dtolbus.runs import list_runs
from dtolbus.wire import Ack, Credit, Done, Fetch, Heartbeat, Hello, Message, Refused, RunRecord, Welcome
from dtolbus_producer.catalog import Catalog
from dtolbus_producer.checking import as_text, look
from dtolbus_producer.config import GatewayConfig
from dtolbus_producer.identity import IDENTITY_FILE, journal_id
from dtolbus_producer.outside import registered_outside
from dtolbus_producer.parts import gateway_answers
from dtolbus_producer.plan import UpOptions, resolve
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.worker import WorkerConfig

OURS, THEIRS = Identity(stack="ours"), Identity(stack="theirs")
RUN = block_run()


# ---- whole stacks ----


def assert_untouched(data: Path, runs_before: int = 0) -> None:
    """Assert that nothing was recorded, stored or registered in the folder."""
    assert len(list_runs(data / "journal")) == runs_before
    if not runs_before:
        assert read_registrations(data) == []
        assert not [path for path in data.rglob("*") if path.suffix in (".parquet", ".csv", ".jsonl", ".dt-raw")]
    if (data / "dtolbus.sqlite").exists() and not runs_before:
        with contextlib.closing(sqlite3.connect(data / "dtolbus.sqlite")) as database:
            assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def assert_one_records(ups: list[Up], ports: list[int], runs_before: int = 0) -> Up:
    """Assert that one is complete with what is its own, and that the others name the port and have nothing."""
    codes = [up.end() for up in ups]
    assert sorted(codes) == [0, *[3] * (len(ups) - 1)], [(up.output[-2000:], up.errors) for up in ups]
    winner = ups[codes.index(0)]
    assert_complete(winner, 0)
    assert {name: len(found) for name, found in runs(winner.data).items()} == dict.fromkeys(
        ("sim0", "sim1"), 1 + runs_before // 2
    )
    assert all(Path(sink.place).is_relative_to(winner.data) for sink in read_registrations(winner.data))
    for up in ups:
        if up is not winner:
            *told, last = up.errors.splitlines()
            in_use = (
                rf"dtolbus: port ({ports[0]}|{ports[1]}) is in use: stop what uses it, or choose another with --\S+"
            )
            assert re.fullmatch(in_use, last), up.errors
            assert all("is registered at" in line for line in told), up.errors  # of a copy, whose sinks are elsewhere
            assert_untouched(up.data, runs_before)
    assert verify(winner.data).complete
    return winner


@pytest.mark.parametrize("count", [2, 3])
def test_stacks_started_at_the_same_time_on_the_same_ports(tmp_path: Path, count: int) -> None:
    ports = free_ports()
    with contextlib.ExitStack() as held:
        ups = [
            held.enter_context(Up(tmp_path / f"data{number}", "--duration", "2", ports=ports))
            for number in range(count)
        ]
        assert_one_records(ups, ports)


def test_a_folder_and_its_copy_at_the_same_time_on_the_same_ports(tmp_path: Path) -> None:
    first, copy, ports = tmp_path / "data", tmp_path / "copy", free_ports()
    with Up(first, "--duration", "0.5", ports=ports) as up:
        assert_complete(up, up.end())
    shutil.copytree(first, copy)
    assert journal_id(first / "journal") == journal_id(copy / "journal") != ""
    with Up(first, "--duration", "2", ports=ports) as one, Up(copy, "--duration", "2", ports=ports) as other:
        assert_one_records([one, other], ports, runs_before=2)


# ---- the gateway ----


def test_a_hello_for_another_gateway_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with RunningGateway(tmp_path, stack="theirs") as gateway, gateway.client() as worker:
        known = worker.hello().serves.journal
        assert known == journal_id(tmp_path / "journal")
        for expected in (OURS, Identity("0190a5f4"), Identity(known, "ours")):
            for more in (True, False):
                worker.send(Hello("sqlite", destination_id="d", expects=expected, more=more))
                refused = worker.next()
                assert isinstance(refused, Refused)
                assert (refused.is_final, refused.is_foreign) == (True, True)
                assert str(tmp_path / "journal") in refused.why
        for expected in (ANY, THEIRS, Identity(known), Identity(known, "theirs")):
            assert worker.hello(expects=expected, number=7).serves == Identity(known, "theirs")
        assert worker.hello(number=7).number == 7
    assert read_registrations(tmp_path) == []


def test_an_acknowledgement_counts_where_its_worker_said_hello(tmp_path: Path) -> None:
    """What a worker had to tell a gateway that was replaced is not for a sink of that name here."""
    for run_id in ("r", "q"):
        (tmp_path / "journal" / "d" / "t" / run_id).mkdir(parents=True)
    with RunningGateway(tmp_path) as gateway, gateway.client() as ours, gateway.client() as stranger:
        ours.hello(worker="sqlite", destination_id="d")
        stranger.send(Ack("sqlite", "d", "t", "r", 7))
        refused = stranger.next()
        assert isinstance(refused, Refused)
        assert refused.is_unregistered
        ours.send(Ack("sqlite", "d", "t", "q", 3))
    assert {run_id: at.position for run_id, at in read_registrations(tmp_path)[0].positions.items()} == {"q": 3}


def test_only_its_own_gateway_is_the_one_that_a_stack_waits_for(tmp_path: Path) -> None:
    with RunningGateway(tmp_path, stack="theirs") as gateway:
        served = GatewayConfig(pub_port=gateway.pub_port, catchup_port=gateway.catchup_port)
        eventually(lambda: gateway_answers(served, THEIRS))
        assert not gateway_answers(served, OURS)


# ---- sinks of another folder ----


def test_a_sink_outside_is_told_only_where_its_place_is_in_the_folder(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    (data / "sinks").mkdir(parents=True)
    other.mkdir()
    config = resolve(UpOptions(data=data, sinks="sqlite,csv,jsonl,parquet"))
    own = msgspec.structs.replace(config.sinks[0], name="lab", path=str(other / "lab.sqlite"))
    config = msgspec.structs.replace(config, sinks=(*config.sinks, own))
    for name, kind, place in (
        ("sqlite", "sqlite", other / "dtolbus.sqlite"),
        ("lab", "sqlite", other / "lab.sqlite"),
        ("csv", "csv", data / "csv"),
        ("jsonl", "jsonl", tmp_path / "gone" / "jsonl"),
    ):
        if other in place.parents:
            place.touch()
        registered = Registration(name=name, sink=kind, place=str(place), destination_id="d")
        registration_path(data, name).write_bytes(encode_registration(registered))
    assert [name for name, _ in registered_outside(config, data)] == ["sqlite"]
    assert [name for name, _ in registered_outside(config, other / ".." / "data")] == ["sqlite"]
    (warning,) = look(config).warnings
    assert warning.startswith(f"the sink 'sqlite' is registered at {other / 'dtolbus.sqlite'}, and not at {data}")
    assert f"  {warning}" in as_text(look(config))


# ---- the journal's id ----


def test_the_id_of_a_journal_is_made_once_and_is_no_device(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    made = journal_id(journal)
    assert made
    assert journal_id(journal) == made
    assert [path.name for path in journal.iterdir()] == [IDENTITY_FILE]
    assert Catalog(journal).discover() == []
    (journal / IDENTITY_FILE).write_bytes(b"torn")
    again = journal_id(journal)
    assert again not in ("", made)
    assert journal_id(journal) == again
    assert [record.getMessage() for record in caplog.records] == ["not the id of a journal, made anew"]


def test_a_journal_that_cannot_be_written_has_no_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert journal_id(tmp_path / "nothing") == ""
    assert "the journal has no id" in caplog.text


# ---- the worker ----


class Fake:
    """A gateway that says what it is told, on ports that another can have after it."""

    def __init__(self, ports: list[int]) -> None:
        self._context = zmq.Context()
        self.pub, router = self._context.socket(zmq.XPUB), self._context.socket(zmq.ROUTER)
        self.pub.bind(f"tcp://127.0.0.1:{ports[0]}")
        router.bind(f"tcp://127.0.0.1:{ports[1]}")
        self.router = Peer(router)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def subscribed(self, client: Client) -> None:
        """Wait until the client hears what is published."""
        seen: set[bytes] = set()

        def is_all() -> bool:
            assert client.receive(0.01) == []
            while self.pub.poll(0):
                seen.add(self.pub.recv())
            return {b"\1block/", b"\1heartbeat/"} <= seen

        eventually(is_all)

    def publish(self, *messages: Message) -> None:
        for message in messages:
            self.pub.send_multipart(wire.encode(message))

    def hello(self, client: Client) -> tuple[bytes, Hello]:
        """Wait for the client's Hello, what else it sends being passed over; nothing it hears meanwhile may count."""
        found: list[tuple[bytes, Hello]] = []

        def is_there() -> bool:
            assert client.receive(0.01) == []
            while self.router.socket.poll(0):
                key, *frames = self.router.socket.recv_multipart()
                message = wire.decode(frames)
                if isinstance(message, Hello):
                    found.append((key, message))
            return bool(found)

        eventually(is_there)
        return found[-1]

    def answer(self, key: bytes, message: Message) -> None:
        self.router.socket.send_multipart([key, *wire.encode(message)])


@contextlib.contextmanager
def client_of(ports: list[int], expected: Identity) -> Iterator[Client]:
    at = Endpoints(f"tcp://127.0.0.1:{ports[0]}", f"tcp://127.0.0.1:{ports[1]}")
    client = Client(at, Hello("sqlite", expects=expected))
    try:
        yield client
    finally:
        client.close()


def welcome(hello: Hello, serves: Identity, *runs: RunStatus) -> Welcome:
    return Welcome(runs, 256, 0.1, serves=serves, number=hello.number)


def admitted(gateway: Fake, client: Client, serves: Identity, *runs: RunStatus) -> None:
    """Answer each Hello of the client until what is published counts."""

    def is_open() -> bool:
        gateway.publish(Heartbeat(RunStatus(RUN, "running", 0, 0)))
        assert client.receive(0.01) == []
        while gateway.router.socket.poll(0):
            key, *frames = gateway.router.socket.recv_multipart()
            message = wire.decode(frames)
            if isinstance(message, Hello):
                gateway.answer(key, welcome(message, serves, *runs))
        return client._admission.is_open and client._connections == 1

    eventually(is_open)


def indexes(client: Client, count: int) -> list[Any]:
    found: list[Any] = []
    eventually(lambda: len(found.__iadd__(client.receive(0.01))) >= count)
    return [item.record.index for item in found]


def test_nothing_live_counts_before_the_welcome_is_accepted() -> None:
    ports = free_ports()
    with Fake(ports) as gateway, client_of(ports, OURS) as client:
        gateway.subscribed(client)
        gateway.publish(RunRecord(RUN, block(RUN, 0)), Heartbeat(RunStatus(RUN, "ended", 0, 0)))
        for _ in range(20):
            assert client.receive(0.01) == []
        assert client.pass_over(0.01) == []
        assert not client.sequencer.knows(RUN.run_id)
        admitted(gateway, client, OURS)
        gateway.publish(RunRecord(RUN, block(RUN, 0)))
        assert indexes(client, 1) == [0]


def test_after_a_reconnection_nothing_live_counts_before_a_welcome_to_a_new_hello() -> None:
    ports = free_ports()
    other = block_run("0190a5f4-0000-7000-8000-0000000000ff")
    with client_of(ports, OURS) as client:
        with Fake(ports) as gateway:
            gateway.subscribed(client)
            admitted(gateway, client, OURS)
            gateway.publish(RunRecord(RUN, block(RUN, 0)))
            assert indexes(client, 1) == [0]
        with Fake(ports) as another:
            another.subscribed(client)
            another.publish(RunRecord(other, block(other, 0)))
            key, hello = another.hello(client)
            for _ in range(20):
                another.answer(key, welcome(msgspec.structs.replace(hello, number=1), OURS))  # to an earlier one
                another.publish(RunRecord(other, block(other, 0)))
                assert client.receive(0.01) == []
            assert not client.sequencer.knows(other.run_id)
            another.answer(key, Refused("/theirs/journal, 1234", is_final=True, is_foreign=True))
            with pytest.raises(
                CannotStartError, match=rf"^tcp://127.0.0.1:{ports[1]} serves another journal \(/theirs"
            ):
                eventually(lambda: client.receive(0.01) is None)


def test_what_is_asked_for_is_granted_at_once() -> None:
    """The reader may take long for what else came: the answer is not to be taken for one that never comes."""
    ports = free_ports()
    with Fake(ports) as gateway, client_of(ports, OURS) as client:
        key, hello = gateway.hello(client)
        gateway.answer(key, welcome(hello, OURS, RunStatus(RUN, "ended", 0, 2)))
        eventually(lambda: client.receive(0.01) == [] and client.sequencer.fetching is not None)
        asked = []
        for _ in range(2):
            assert gateway.router.socket.poll(TIMEOUT_S * 1000)
            asked.append(type(wire.decode(gateway.router.socket.recv_multipart()[1:])))
        assert asked == [Fetch, Credit]


def test_what_is_fetched_from_another_gateway_does_not_count() -> None:
    """It came before anybody knew that the connection was made anew, of a copy of the journal, say."""
    ports = free_ports()
    with client_of(ports, OURS) as client:
        with Fake(ports) as gateway:
            gateway.subscribed(client)
            key, hello = gateway.hello(client)
            gateway.answer(key, welcome(hello, OURS, RunStatus(RUN, "ended", 0, 2)))
            eventually(lambda: client.receive(0.01) == [] and client.sequencer.fetching is not None)
            fetch = client.sequencer.fetching
            assert isinstance(fetch, Fetch)
        with Fake(ports) as another:
            client._send(fetch)  # as what it had queued would come there
            assert another.router.socket.poll(TIMEOUT_S * 1000)
            key, *_ = another.router.socket.recv_multipart()
            another.answer(key, RunRecord(RUN, block(RUN, 0)))
            another.answer(key, Done(RUN.run_id, 1, fetch.number))
            assert client._catchup is not None
            client._poller.poll(TIMEOUT_S * 1000)
            assert list(client._taken(client._catchup._socket)) == []  # type: ignore[arg-type]


def test_a_gateway_that_says_nothing_of_its_journal_is_another() -> None:
    ports = free_ports()
    with Fake(ports) as gateway, client_of(ports, OURS) as client:
        key, _ = gateway.hello(client)
        gateway.answer(key, Welcome((RunStatus(RUN, "running", 0, 5),), 256, 0.1))
        with pytest.raises(CannotStartError, match="serves another journal"):
            eventually(lambda: client.receive(0.01) is None)
        assert not client.sequencer.knows(RUN.run_id)


def test_a_worker_whose_gateway_is_replaced_by_another_stacks_stores_and_registers_nothing_there(
    tmp_path: Path,
) -> None:
    ours, theirs, place, ports = tmp_path / "ours", tmp_path / "theirs", tmp_path / "bus.sqlite", free_ports()
    at = Endpoints(f"tcp://127.0.0.1:{ports[0]}", f"tcp://127.0.0.1:{ports[1]}")
    config = WorkerConfig("sqlite", at, str(place), policy=BatchPolicy(records=5, age_s=0.05), expects=OURS)
    other = (block_run("0190a5f4-0000-7000-8000-0000000000fe"), reading_run("0190a5f4-0000-7000-8000-0000000000ff"))
    with WorkerThread(SqliteDestination(place), config) as worker:
        with Feed(ours, ports=ports, stack="ours") as mine:
            mine.advances("sqlite")
        with Feed(theirs, other, ports=ports, stack="theirs") as feed:
            why = worker.ended()
            feed.grows()
    assert isinstance(why, CannotStartError)
    assert str(theirs / "journal") in str(why)
    assert read_registrations(theirs) == []
    assert [sink.name for sink in read_registrations(ours)] == ["sqlite"]
    with contextlib.closing(sqlite3.connect(place)) as database:
        stored = {run_id for (run_id,) in database.execute("SELECT run_id FROM runs")}
    assert stored == {folder.info.run_id for folder in list_runs(ours / "journal")}


def test_a_worker_that_is_told_a_journal_ends_where_there_is_another(tmp_path: Path) -> None:
    words = ("dtolbus-sqlite", "--out", str(tmp_path / "bus.sqlite"), "--until-end")
    with Feed(tmp_path / "data") as feed:
        feed.grows()
        known = journal_id(feed.data / "journal")
        failed = run(*words, *feed.connect, "--journal", "0190a5f4")
        assert (failed.returncode, failed.stderr.count("\n")) == (3, 1), failed.stderr
        assert f"serves another journal ({feed.data / 'journal'}, {known})" in failed.stderr
        assert read_registrations(feed.data) == []
        feed.end()
        for more in (("--journal", known), ()):
            assert run(*words, *feed.connect, *more).returncode == 0
    assert [sink.name for sink in read_registrations(feed.data)] == ["sqlite"]
    assert verify(feed.data).complete
