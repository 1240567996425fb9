"""What a client receives, record for record."""

import zmq
from tests.producer.bus import TIMEOUT_S, eventually
from tests.protocol.specimens import block, block_run

from dtolbus.client import Client, Endpoints
from dtolbus.sequencer import Arrived
from dtolbus.wire import RunRecord, encode

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
BEHIND = 100


def test_a_record_is_in_hand_before_what_came_behind_it_is_looked_at() -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as gateway:
        port = gateway.bind_to_random_port("tcp://127.0.0.1")
        client = Client(Endpoints(f"tcp://127.0.0.1:{port}"))
        eventually(lambda: client.receive(0.01) == [] and bool(gateway.poll(0)))
        whole = encode(RunRecord(RUN, block(RUN, 0)))
        gateway.send_multipart(whole)
        for _ in range(BEHIND):
            gateway.send_multipart([whole[0], b"nonsense"])
        found = client.arriving(TIMEOUT_S)
        first = next(item for item in found if isinstance(item, Arrived))
        assert first.record.index == 0
        assert not client.foreign
        eventually(lambda: client.receive(0.01) == [] and client.foreign.total() == BEHIND)
        client.close()
