"""The receiving end of `wire`, in a process of its own: `python -m bench.receiving HOW URL BYTES [KEY]`.

Writes `r` to stdout once it hears the publisher, and then `c` for every EVERY blocks that it has in its hands. Ends
when stdin does.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable

import zmq

from bench.least import unpack
from dtolbus.records import DaqBlock
from dtolbus.subscriber import Subscriber

EVERY = 16
READY, CREDIT = b"r", b"c"
COPY_BELOW = 64 * 1024

Counter = Callable[[], None]


def main() -> None:
    how, url, size, *keys = sys.argv[1:]
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    if how == "tcp":
        _receive_tcp(url, int(size), _counter())
    elif how == "bare":
        _receive_bare(url, int(size), _counter(), *keys)
    elif how == "least":
        _receive_least(url, int(size), _counter())
    else:
        _receive_ours(url, _counter(), *keys)


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def _counter() -> Counter:
    """Return what is called for each block that arrived."""
    left = EVERY

    def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.write(1, CREDIT)
            left = EVERY

    return count


def _receive_ours(url: str, count: Counter, key: str | None = None) -> None:
    subscriber = Subscriber(url, key=key)
    while subscriber.heard_at is None:
        subscriber.receive(0.1)
    os.write(1, READY)
    for record in subscriber:
        if isinstance(record, DaqBlock):
            count()


def _receive_bare(url: str, size: int, count: Counter, server: str | None = None) -> None:
    found = _subscribed(url, server)
    while size < COPY_BELOW:
        if len(found.recv_multipart()) == 3:  # a block; a greeting has two
            count()
    while True:
        if len(found.recv_multipart(copy=False)) == 3:
            count()


def _receive_least(url: str, size: int, count: Counter) -> None:
    found = _subscribed(url)
    while size < COPY_BELOW:
        frames = found.recv_multipart()
        if len(frames) == 3:
            unpack(frames)
            count()
    while True:
        kept = found.recv_multipart(copy=False)
        if len(kept) == 3:
            unpack([frame.buffer for frame in kept])
            count()


def _subscribed(url: str, server: str | None = None) -> "zmq.Socket[bytes]":
    """Return a bare socket that hears the publisher; it has said so."""
    found: zmq.Socket[bytes] = zmq.Context().socket(zmq.SUB)
    if server is not None:
        public, secret = zmq.curve_keypair()
        found.set(zmq.CURVE_SERVERKEY, server.encode())
        found.set(zmq.CURVE_PUBLICKEY, public)
        found.set(zmq.CURVE_SECRETKEY, secret)
    found.connect(url)
    found.subscribe(b"")
    found.recv_multipart()
    os.write(1, READY)
    return found


def _receive_tcp(url: str, size: int, count: Counter) -> None:
    host, _, port = url.removeprefix("tcp://").partition(":")
    with socket.create_connection((host, int(port))) as stream:
        os.write(1, READY)
        view = memoryview(bytearray(size))
        while True:
            got = 0
            while got < size:
                read = stream.recv_into(view[got:])
                if not read:
                    return
                got += read
            count()


if __name__ == "__main__":
    main()
