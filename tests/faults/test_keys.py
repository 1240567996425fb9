"""Who is let in: unknown, revoked and wrong keys, what each role may do, and what a revocation does to the others."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from tests.e2e.commands import run, running
from tests.faults.feed import Feed, assert_complete
from tests.producer.bus import TIMEOUT_S, Peer, RunningGateway, eventually, free_ports, peer
from tests.protocol.specimens import block, block_run

from dtolbus import Subscriber
from dtolbus.client import Client
from dtolbus.connecting import connected
from dtolbus.errors import CannotStartError
from dtolbus.handshakes import Handshakes
from dtolbus.keyring import KeyRing
from dtolbus.keys import Keys, Role, encode_keys, load_keys, new_keys
from dtolbus.registrations import read_registrations
from dtolbus.remote import RemoteJournal
from dtolbus.wire import MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, Ack, Fetch, Hello, Refused, Welcome
from dtolbus_producer import strangers
from dtolbus_producer.door import Door
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.sockets import GatewaySockets
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify_remote import sinks_at, verify_remote

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
BLOCKS = 50
QUIET_MS = 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a run that goes on, which is told by heartbeats."""
    data = tmp_path / "data"
    writer = RunWriter(data / "journal", RUN)
    for index in range(BLOCKS):
        writer.append(block(RUN, index))
    writer.close()
    return data


def made(data: Path, name: str, role: Role = "read") -> Keys:
    return load_keys(KeyRing(data).new(name, role))


def server(data: Path) -> str:
    keys = KeyRing(data).made_server()
    assert keys is not None
    return keys.public


def refused(gateway: RunningGateway, keys: Keys | None) -> str:
    """What a subscriber, a client and a reader of the journal say, none of which hears anything."""
    at = gateway.endpoints_for(keys)
    with contextlib.closing(Client(at)) as client:
        eventually(lambda: client.receive(0.05) == [] and bool(client.trouble))
        assert client.heard_at is None
        said = client.trouble
    with pytest.raises(CannotStartError) as error:
        RemoteJournal(at.catchup or "", keys=keys)
    assert str(error.value) == said.replace(at.connect, at.catchup or "")  # either port is named
    return said


# ---- who is let in ----


def test_an_allowed_key_hears_and_fetches_everything(data: Path) -> None:
    keys = made(data, "Prüfstand 1")
    with RunningGateway(data, require_keys=True) as gateway, gateway.client(keys) as client:
        assert [status.info.run_id for status in client.hello().runs] == [RUN.run_id]
        *records, _ = client.fetch(Fetch(RUN.device, RUN.task, RUN.run_id, 0, BLOCKS, 1))
        assert len(records) == BLOCKS
        at = gateway.endpoints_for(keys)
        with RemoteJournal(at.catchup or "", keys=keys) as journal:
            assert len(list(journal.runs[0].records(0, BLOCKS))) == BLOCKS
        with contextlib.closing(Client(at)) as subscriber:
            got: list[Any] = []
            eventually(lambda: got.extend(subscriber.receive(0.05)) is None and len(got) >= BLOCKS)


def test_an_unknown_key_is_refused_and_told(data: Path) -> None:
    made(data, "known")
    stranger = new_keys("stranger", server(data))
    with RunningGateway(data, require_keys=True) as gateway:
        assert re.match(r"not allowed by tcp://127\.0\.0\.1:\d+ \(key stranger\): ", refused(gateway, stranger))


def test_a_key_that_was_taken_back_before_the_start_is_refused(data: Path) -> None:
    keys = made(data, "lost")
    KeyRing(data).revoke("lost")
    with RunningGateway(data, require_keys=True) as gateway:
        assert refused(gateway, keys).startswith("not allowed by tcp://")


def test_another_server_key_is_told_as_such(data: Path) -> None:
    keys = msgspec.structs.replace(made(data, "known"), server=new_keys("other").public)
    with RunningGateway(data, require_keys=True) as gateway:
        assert "check the server key" in refused(gateway, keys)


def test_without_a_key_nobody_hears_anything_and_is_told_how_to_get_one(data: Path) -> None:
    made(data, "known")
    with RunningGateway(data, require_keys=True) as gateway:
        assert "give --key FILE" in refused(gateway, None)


def test_a_key_where_none_is_asked_for_is_told(data: Path) -> None:
    keys = made(data, "known")
    with RunningGateway(data) as gateway:
        assert "uses no keys: leave --key (DTOLBUS_KEY) out" in refused(gateway, keys)


def test_a_password_is_no_key(data: Path) -> None:
    made(data, "known")
    with RunningGateway(data, require_keys=True) as gateway, peer_with_password(gateway.catchup_port) as client:
        with followed(client) as (handshakes,):
            client.send(Hello(""))
            eventually(lambda: handshakes.count() == 0 and handshakes.seen.failure is not None)
        assert not client.socket.poll(QUIET_MS)


@contextlib.contextmanager
def followed(*peers: Peer) -> Iterator[list[Handshakes]]:
    knocks = [Handshakes(one.socket) for one in peers]
    try:
        yield knocks
    finally:
        for knock in knocks:
            knock.close()


@contextlib.contextmanager
def peer_with_password(port: int) -> Iterator[Peer]:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.PLAIN_USERNAME, b"known")
    socket.set(zmq.PLAIN_PASSWORD, b"known")
    socket.connect(f"tcp://127.0.0.1:{port}")
    try:
        yield Peer(socket)
    finally:
        socket.close(linger=0)
        context.term()


@pytest.mark.parametrize("is_known", [True, False])
def test_nobody_is_let_in_while_nobody_answers_who_is_allowed(data: Path, is_known: bool) -> None:
    keys = made(data, "known") if is_known else new_keys("stranger", server(data))
    pub_port, catchup_port = free_ports()
    sockets = GatewaySockets("127.0.0.1", pub_port, catchup_port, KeyRing(data))
    try:
        assert sockets._door is not None
        sockets._door.close()
        with peer(zmq.SUB, pub_port, keys) as sub, peer(zmq.DEALER, catchup_port, keys) as dealer:
            sub.socket.subscribe("")
            dealer.send(Hello(""))
            with followed(sub, dealer) as knocks:
                eventually(lambda: all(knock.count() == 0 and knock.seen.in_a_row >= 3 for knock in knocks))
            for _ in range(20):
                sockets.publish([b"block/d/t/", b"header"])
            assert sockets.receive() is None
            assert not sub.socket.poll(QUIET_MS)
    finally:
        sockets.close()


def test_a_damaged_file_or_one_key_under_two_names_lets_nobody_in(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    fine, damaged, doubled = (made(data, name) for name in ("fine", "damaged", "doubled"))
    allowed = KeyRing(data).allowed_folder
    (allowed / "damaged").write_bytes(b'{"public": "x", "role": "sink"}')
    (allowed / "second").write_bytes((allowed / "doubled").read_bytes())
    with RunningGateway(data, require_keys=True) as gateway:
        for keys in (damaged, doubled):
            assert "not allowed by" in refused(gateway, keys)
        with gateway.client(fine) as client:
            client.hello()
    told = [Path(record.__dict__["file"]).name for record in caplog.records if "not an allowed key" in record.message]
    assert sorted(told) == ["damaged", "doubled", "second"]


# ---- the self-test ----


def test_a_gateway_that_lets_strangers_in_does_not_start(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(data, "known")
    monkeypatch.setattr(Door, "_name_of", lambda self, request: "known")
    with pytest.raises(CannotStartError, match="a stranger is let in"), RunningGateway(data, require_keys=True) as gate:
        gate._thread.join(TIMEOUT_S)


def test_a_gateway_that_would_let_nobody_in_does_not_start(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(data, "known")
    monkeypatch.setattr(Door, "answer", lambda self: None)
    monkeypatch.setattr(strangers, "_PATIENCE_S", 0.5)
    with pytest.raises(CannotStartError, match="did not end"), RunningGateway(data, require_keys=True) as gateway:
        gateway._thread.join(TIMEOUT_S)


# ---- what a key may do ----


def final(client: Peer) -> str:
    (*_, answer) = client.until(lambda m: isinstance(m, Refused))
    assert isinstance(answer, Refused)
    assert answer.is_final
    return answer.why


def is_answered(client: Peer) -> None:
    """Wait until all that was said before is taken."""
    client.send(Hello("", number=77))
    client.until(lambda m: isinstance(m, Welcome) and m.number == 77)


def test_a_key_to_read_is_no_sink(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader, sink = made(data, "reader"), made(data, "sqlite", "sink")
    with RunningGateway(data, require_keys=True) as gateway, gateway.client(sink) as worker:
        worker.hello(worker="sqlite", destination_id="d")
        with gateway.client(reader) as client:
            for name in ("reader", "sqlite"):
                client.send(Hello(name, destination_id="e"))
                assert "the key 'reader' may only read" in final(client)
            for name in ("reader", "sqlite", ""):
                client.send(Ack(name, RUN.device, RUN.task, RUN.run_id, BLOCKS))
            is_answered(client)
        worker.send(Ack("sqlite", RUN.device, RUN.task, RUN.run_id, 3))
        is_answered(worker)
    (known,) = read_registrations(data)
    assert (known.name, known.destination_id) == ("sqlite", "d")
    assert {run_id: at.position for run_id, at in known.positions.items()} == {RUN.run_id: 3}
    assert [record.__dict__["cause"] for record in caplog.records if record.message == "message dropped"] != []


def test_a_sink_has_the_name_of_its_key(data: Path) -> None:
    ours, theirs = made(data, "ours", "sink"), made(data, "theirs", "sink")
    with (
        RunningGateway(data, require_keys=True) as gateway,
        gateway.client(ours, b"ours") as worker,
    ):
        worker.hello(worker="ours", destination_id="d")
        worker.send(Ack("ours", RUN.device, RUN.task, RUN.run_id, 3))
        is_answered(worker)
        with gateway.client(theirs) as thief:
            thief.send(Hello("ours", destination_id="d"))
            assert "the key 'theirs' is not that of the sink 'ours'" in final(thief)
            thief.send(Ack("ours", RUN.device, RUN.task, RUN.run_id, BLOCKS))
            thief.hello(worker="theirs", destination_id="t")
            thief.send(Ack("ours", RUN.device, RUN.task, RUN.run_id, BLOCKS))
            is_answered(thief)
    positions = {known.name: known.positions for known in read_registrations(data)}
    assert positions["ours"][RUN.run_id].position == 3
    assert positions["theirs"] == {}


def test_a_name_for_the_connection_that_was_another_sinks_is_of_no_use(data: Path) -> None:
    """Who says Hello where is known by a connection's id, which a client chooses."""
    ours, theirs = made(data, "ours", "sink"), made(data, "theirs", "sink")
    with RunningGateway(data, require_keys=True) as gateway:
        with gateway.client(ours, b"chosen") as worker:
            worker.hello(worker="ours", destination_id="d")
        with gateway.client(theirs, b"chosen") as thief:
            is_answered(thief)
            thief.send(Ack("ours", RUN.device, RUN.task, RUN.run_id, BLOCKS))
            is_answered(thief)
    (known,) = read_registrations(data)
    assert known.positions == {}


def test_a_worker_under_another_name_ends_with_3(data: Path, tmp_path: Path) -> None:
    made(data, "ours", "sink")
    with RunningGateway(data, require_keys=True) as gateway:
        at = gateway.endpoints
        words = ["--connect", at.connect, "--catchup", at.catchup or "", "--key", str(KeyRing(data).key_file("ours"))]
        told = run("dtolbus-sqlite", "--out", str(tmp_path / "x.sqlite"), "--name", "sqlite", *words)
        assert (told.returncode, told.stderr.count("\n")) == (3, 1), told.stderr
        assert "the key 'ours' is not that of the sink 'sqlite'" in told.stderr
        # without a name it has its key's
        assert run("dtolbus-sqlite", "--out", str(tmp_path / "x.sqlite"), "--until-end", *words).returncode == 0
    assert [known.name for known in read_registrations(data)] == ["ours"]


# ---- taken back while it is used ----


def revoked(data: Path) -> None:
    KeyRing(data).revoke("out")


def removed_by_hand(data: Path) -> None:
    (KeyRing(data).allowed_folder / "out").unlink()


def made_a_reader(data: Path) -> None:
    KeyRing(data).allow("out", None, "read")


@pytest.mark.parametrize("take_back", [revoked, removed_by_hand])
def test_a_key_is_taken_back_while_workers_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, take_back: Callable[[Path], None]
) -> None:
    data = tmp_path / "data"
    stays, out = made(data, "stays", "sink"), made(data, "out", "sink")
    places = {name: tmp_path / f"{name}.sqlite" for name in ("stays", "out")}
    with Feed(data, require_keys=True) as feed:
        at = {name: SqliteDestination(place, blocks="samples") for name, place in places.items()}
        with (
            feed.thread("stays", at["stays"], str(places["stays"]), stays, blocks="samples"),
            feed.thread("out", at["out"], str(places["out"]), out, blocks="samples"),
            feed.gateway.subscriber(keys=out) as live,
            feed.gateway.client(out) as before,
        ):
            feed.advances("stays")
            feed.advances("out")
            live.next()
            before.hello()
            with followed(live, before) as knocks:
                take_back(data)
                eventually(lambda: all(knock.count() == 0 and knock.seen.failure == "refused" for knock in knocks))
            while live.socket.poll(0):  # what was on its way
                live.socket.recv_multipart()
            feed.advances("stays", 200)
            assert not live.socket.poll(0)
            cut_off_at = feed.stored("out")
            eventually(lambda: sum("not allowed by" in said for said in caplog.messages) == 1)
            feed.catches_up("stays")
            assert feed.stored("out") == cut_off_at
        (said,) = [said for said in caplog.messages if "not allowed by" in said]
        assert "(key out)" in said
        at_end = sinks_at([f"sqlite={places['stays']}"], blocks="samples")
        assert verify_remote(feed.gateway.endpoints.catchup or "", at_end, keys=stays).complete


def test_a_sink_that_may_only_read_from_now_on_ends(data: Path, tmp_path: Path) -> None:
    keys = made(data, "out", "sink")
    with RunningGateway(data, require_keys=True) as gateway:
        words = ["--key", str(KeyRing(data).key_file("out")), "--out", str(tmp_path / "x.sqlite")]
        at = gateway.endpoints
        with running("dtolbus-sqlite", "--connect", at.connect, "--catchup", at.catchup or "", *words) as worker:
            eventually(lambda: bool(read_registrations(data)))
            made_a_reader(data)
            _, said = worker.communicate(timeout=60)
            assert worker.returncode == 3
            assert "the key 'out' may only read" in said
        with gateway.client(keys) as client:
            client.hello()


def test_a_key_that_is_allowed_later_is_let_in_and_nobody_else_notices(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, place = tmp_path / "data", tmp_path / "x.sqlite"
    known = made(data, "known")
    late = new_keys("late", server(data))
    with Feed(data, require_keys=True) as feed, feed.gateway.client(known) as client:
        client.hello()
        worker = feed.thread("late", SqliteDestination(place, blocks="samples"), str(place), late, blocks="samples")
        with followed(client) as (knock,), worker:
            eventually(lambda: any("not allowed by" in said for said in caplog.messages))
            KeyRing(data).allow("late", late.public, "sink")
            feed.advances("late")
            eventually(lambda: "let in now: connected" in caplog.messages)
            feed.catches_up("late")
            assert caplog.messages.count("let in now: connected") == 1
            assert sum("not allowed by" in said for said in caplog.messages) == 1
            assert knock.count() == 0  # no further time
        client.hello()
    assert_complete(data, {"late"})


def test_a_worker_that_is_to_end_by_itself_ends_where_its_key_is_unknown(data: Path, tmp_path: Path) -> None:
    key = tmp_path / "stranger.key"
    key.write_bytes(encode_keys(new_keys("stranger", server(data))))
    key.chmod(0o600)
    with RunningGateway(data, require_keys=True) as gateway:
        at = gateway.endpoints
        words = ["--connect", at.connect, "--catchup", at.catchup or "", "--until-end"]
        told = run("dtolbus-sqlite", "--out", str(tmp_path / "x.sqlite"), *words, env={"DTOLBUS_KEY": str(key)})
        assert (told.returncode, told.stderr.count("not allowed by tcp://")) == (3, 1), told.stderr
        told = run("dtolbus", "listen", at.connect, "--key", str(key))
        assert (told.returncode, told.stderr.count("\n")) == (3, 1), told.stderr
        assert "not allowed by tcp://" in told.stderr


def test_a_subscriber_is_told_by_an_error(data: Path, tmp_path: Path) -> None:
    key = tmp_path / "stranger.key"
    key.write_bytes(encode_keys(new_keys("stranger")))
    key.chmod(0o600)
    public = server(data)
    with RunningGateway(data, require_keys=True) as gateway:
        with pytest.raises(CannotStartError, match="says no server's key"):
            Subscriber(gateway.endpoints.connect, key=key)
        with pytest.raises(CannotStartError, match="not allowed by"):
            next(iter(Subscriber(gateway.endpoints.connect, key=key, server_key=public)))


# ---- nothing is too large for it ----


def test_the_largest_message_passes_with_keys_too(data: Path) -> None:
    keys = made(data, "known")
    pub_port, catchup_port = free_ports()
    sockets = GatewaySockets("127.0.0.1", pub_port, catchup_port, KeyRing(data))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sub = connected(context, zmq.SUB, f"tcp://127.0.0.1:{pub_port}", keys=keys)
    dealer = connected(context, zmq.DEALER, f"tcp://127.0.0.1:{catchup_port}", keys=keys)
    try:
        sub.subscribe("block/")
        dealer.send_multipart([b"", bytes(MAX_HEADER_BYTES)])
        eventually(lambda: _turned(sockets, sub))
        sockets.publish([b"block/d/t/", bytes(MAX_HEADER_BYTES), bytes(MAX_MESSAGE_BYTES)])
        got: list[int] = []
        eventually(lambda: bool(sub.poll(10)) and got.append(len(sub.recv_multipart()[-1])) is None and max(got) > 0)
        assert max(got) == MAX_MESSAGE_BYTES
        found: list[Any] = []
        eventually(lambda: found.append(sockets.receive()) is None and found[-1] is not None)
        assert len(found[-1].frames[1]) == MAX_HEADER_BYTES
        assert found[-1].caller == ("known", "read")
    finally:
        for one in (sub, dealer):
            one.close(linger=0)
        context.term()
        sockets.close()


def _turned(sockets: GatewaySockets, sub: "zmq.Socket[bytes]") -> bool:
    sockets.tend(0.0)
    sockets.wait(0.0)
    sockets.publish([b"block/d/t/", b""])
    return bool(sub.poll(5))
