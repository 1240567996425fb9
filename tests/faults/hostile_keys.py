"""Peers that mean no good at a gateway that asks for keys."""

import contextlib
import random
import socket
import time
from collections import deque

import zmq
from tests.faults.hostile import DEALER, Attack, Target, Wait, crowd, damaged, flood

from dtolbus.connecting import connected
from dtolbus.keys import new_keys

_KNOCKING = 30
_CURVE_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
_SERVER_GREETING = _CURVE_GREETING[:32] + b"\x01" + bytes(31)
_HELLO_BYTES = 202
"""A command's flags and length, and the command."""
_HELD = 100
"""Connections to each port, of each kind."""


def unknown_keys(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Knock with keys that nobody knows, each with another one, without end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 10 * _KNOCKING)
    knocking: deque[zmq.Socket[bytes]] = deque()
    end = time.monotonic() + seconds
    kinds = ((zmq.SUB, target.live), (zmq.DEALER, target.catchup))
    try:
        while time.monotonic() < end:
            for kind, port in kinds:
                keys = new_keys("stranger", target.server)
                knocking.append(connected(context, kind, f"tcp://127.0.0.1:{port}", keys=keys))
            while len(knocking) > _KNOCKING:
                knocking.popleft().close(linger=0)
            time.sleep(0.001)
    finally:
        context.destroy(linger=0)


def without_keys(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Speak as one does where no keys are asked for, without end."""
    for port in target.ports:
        flood(port, DEALER, damaged(random.Random(1)), seconds / 2, _KNOCKING)


def curve_that_stops(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Begin handshakes with keys, and stop after the greeting, within the first command, and after that, without end.

    The gateway has reckoned with the command by then, and answered.
    """
    hello = _hello(target.server)
    said = (_CURVE_GREETING, _CURVE_GREETING + hello[:100], _CURVE_GREETING + hello)
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as held:
        for what in said:
            for port in target.ports:
                held.enter_context(crowd(port, _HELD, what))
        while time.monotonic() < end:
            for port in target.ports:
                with crowd(port, 10, said[-1]) as made:
                    _heard(made)


def _heard(links: list[socket.socket]) -> None:
    """Wait a little for an answer on the last one."""
    for link in links[-1:]:
        link.settimeout(0.05)
        with contextlib.suppress(OSError):
            link.recv(1000)


def _hello(server: str) -> bytes:
    """Return the first command of a client that knows the server's public key; it holds for any connection."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            connected(context, zmq.DEALER, url, keys=new_keys("stranger", server))
            link, _ = listener.accept()
            with link:
                link.sendall(_SERVER_GREETING)
                said = b""
                while len(said) < len(_CURVE_GREETING) + _HELLO_BYTES:
                    said += link.recv(1000)
                return said[len(_CURVE_GREETING) :]
    finally:
        context.destroy(linger=0)


ATTACKS: dict[str, Attack] = {attack.__name__: attack for attack in (unknown_keys, without_keys, curve_that_stops)}
