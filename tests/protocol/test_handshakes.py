"""How a client learns what came of its connections."""

from typing import Any

import pytest
import zmq
from tests.producer.bus import eventually

from dtolbus.catchup import CatchUp

A_WHILE_MS = 300


def test_a_connection_that_is_made_at_once_is_seen_by_a_client_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would never say that it is let in, and take the next gateway at this address for this one."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as gateway:
        url = f"tcp://127.0.0.1:{gateway.bind_to_random_port('tcp://127.0.0.1')}"
        watched: zmq.Socket[bytes] = gateway.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED)
        monitor = zmq.Socket.monitor

        def slow_monitor(socket: "zmq.Socket[bytes]", *arguments: Any) -> None:
            watched.poll(A_WHILE_MS)  # the machine does something else, and a connection that is made has that time
            monitor(socket, *arguments)

        monkeypatch.setattr(zmq.Socket, "monitor", slow_monitor)
        catchup = CatchUp(context, zmq.Poller(), url)
        catchup.keep(is_waiting=True)
        handshakes = catchup.handshakes
        assert handshakes is not None
        try:
            eventually(lambda: handshakes.count() == 1)
        finally:
            catchup.close()
            gateway.disable_monitor()
            watched.close(linger=0)
