"""What a client receives, record for record."""

import time
from collections.abc import Iterator

import pytest
import zmq
from tests.producer.bus import TIMEOUT_S, eventually
from tests.protocol.specimens import block, block_run

from dtolbus import client as clients
from dtolbus.client import Client, Endpoints
from dtolbus.connecting import is_readable
from dtolbus.sequencer import Arrived
from dtolbus.wire import RunRecord, encode

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
BEHIND = 100
SILENCE_S = 0.05


@pytest.fixture
def gateway() -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        yield socket


@pytest.fixture
def client(gateway: "zmq.Socket[bytes]") -> Iterator[Client]:
    """One that is subscribed there."""
    made = Client(Endpoints(f"tcp://127.0.0.1:{gateway.bind_to_random_port('tcp://127.0.0.1')}"))
    eventually(lambda: made.receive(0.01) == [] and bool(gateway.poll(0)))
    yield made
    made.close()


def test_a_record_is_in_hand_before_what_came_behind_it_is_looked_at(
    gateway: "zmq.Socket[bytes]", client: Client
) -> None:
    whole = encode(RunRecord(RUN, block(RUN, 0)))
    gateway.send_multipart(whole)
    for _ in range(BEHIND):
        gateway.send_multipart([whole[0], b"nonsense"])
    found = client.arriving(TIMEOUT_S)
    assert next(item.record.index for item in found if isinstance(item, Arrived)) == 0
    assert not client.foreign
    eventually(lambda: client.receive(0.01) == [] and client.foreign.total() == BEHIND)


def test_what_waits_for_a_reader_who_takes_long_is_not_thrown_away(
    gateway: "zmq.Socket[bytes]", client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_SILENCE_S", SILENCE_S)
    for index in range(3):
        gateway.send_multipart(encode(RunRecord(RUN, block(RUN, index))))
        eventually(lambda: is_waiting(client) and time.monotonic() - client._heard_at > SILENCE_S)
        got = [item.record.index for item in client.receive(TIMEOUT_S) if isinstance(item, Arrived)]
        assert got == [index]


def is_waiting(client: Client) -> bool:
    return client._sub is not None and is_readable(client._sub)
