"""Peers that mean no good, on plain sockets, against the ports of a gateway on this machine."""

import contextlib
import random
import select
import socket
import time
from collections.abc import Iterable, Iterator

from dtolbus import wire
from dtolbus.wire import Credit, Fetch, Hello, Message

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
SUB, DEALER = b"SUB", b"DEALER"


def _frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | 2,)) + len(body).to_bytes(8, "big") + body


def _ready(kind: bytes) -> bytes:
    return _frame(b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind, flags=4)


def _message(frames: Iterable[bytes]) -> bytes:
    parts = [bytes(frame) for frame in frames]
    return b"".join(_frame(part, flags=int(part is not parts[-1])) for part in parts)


def _message_of(message: Message) -> bytes:
    return _message(bytes(frame) for frame in wire.encode(message))


def foreign(rng: random.Random) -> list[bytes]:
    """What other programs, old ones and broken ones say first; after some the peer waits for ever."""
    hello = _GREETING + _ready(b"DEALER")
    huge = b"\x02" + (4 << 30).to_bytes(8, "big") + bytes(1000)
    return [
        b"GET / HTTP/1.1\r\nHost: daq-pc\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),
        rng.randbytes(3000),
        b"\x01\x00",
        b"\xff" + bytes(8) + b"\x7f\x01\x05",
        b"\xff" + bytes(8) + b"\x7f\x01\x02\x00\x00",
        _GREETING[:11],
        _GREETING,
        _GREETING + huge,
        hello + huge,
        _GREETING + _ready(b"SUB") + huge,
        _GREETING + _ready(b"PAIR"),
        _GREETING + _ready(b"X" * 250),
    ]


@contextlib.contextmanager
def crowd(port: int, count: int, says: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that say this and stay: text, or a kind of socket, whose handshake they make.

    Fewer where no more can be had.
    """
    if says in (SUB, DEALER):
        says = _GREETING + _ready(says)
    with contextlib.ExitStack() as held:
        made = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                one = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1.0))
                one.setblocking(False)
                made.append(one)
                one.send(says)
        yield made


def flood(port: int, kind: bytes, messages: Iterator[bytes], seconds: float, peers: int, *, reads: bool = True) -> int:
    """Send the messages as fast as they are taken, by turns on so many connections; return the number of bytes.

    A connection that the gateway closes or refuses is made anew.
    """
    sent = 0
    links: dict[socket.socket, bytes] = {}
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if len(links) < peers:
                with contextlib.suppress(OSError):
                    link = socket.create_connection(("127.0.0.1", port), timeout=1.0)
                    link.setblocking(False)
                    links[link] = _GREETING + _ready(kind)
            readable, writable, _ = select.select(links, links, [], 0.01)
            for link in {*readable, *writable}:
                try:
                    if reads and link in readable and not link.recv(1 << 20):
                        raise ConnectionResetError
                    if link in writable:
                        links[link] = links[link] or b"".join(next(messages) for _ in range(500))
                        count = link.send(links[link])
                        links[link] = links[link][count:]
                        sent += count
                except BlockingIOError:
                    pass
                except OSError:
                    link.close()
                    del links[link]
    finally:
        for link in links:
            link.close()
    return sent


def subscriptions(rng: random.Random, size: int) -> Iterator[bytes]:
    """Topics without end, no two alike."""
    while True:
        yield _frame(b"\x01" + rng.randbytes(rng.randrange(size)))


def fetches(device: str, task: str, run_id: str) -> Iterator[bytes]:
    """Fetches, each for everything, with more credit than there are records."""
    number = 0
    while True:
        number += 1
        yield _message_of(Fetch(device, task, run_id, 0, 1 << 40, number)) + _message_of(Credit(1 << 30, number))


def hellos() -> Iterator[bytes]:
    """Nameless ones."""
    while True:
        yield _message_of(Hello(worker=""))


def damaged(rng: random.Random) -> Iterator[bytes]:
    """Requests with a flipped bit, and frames of nothing that is known."""
    topic, header = (bytes(frame) for frame in wire.encode(Hello(worker="somebody")))
    while True:
        flipped = bytearray(header)
        flipped[rng.randrange(len(header))] ^= 1 << rng.randrange(8)
        yield _message([topic, bytes(flipped)])
        yield _message(rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 9)))
