"""Sockets towards a gateway, bounded in every direction."""

import zmq

from dtolbus.errors import UsageError
from dtolbus.wire import MAX_MESSAGE_BYTES, Frame

MARK = 1000
"""High-water mark of a socket, messages."""

_COPIED_BYTES = 64 << 10
"""Of a frame: a larger one is kept where libzmq received it."""


def received(socket: "zmq.Socket[bytes]") -> list[Frame]:
    """Return the frames of the socket's next message. Raises zmq.Again where there is none now."""
    part = socket.recv(zmq.NOBLOCK, False)
    frames: list[Frame] = [part.bytes]
    while part.more:
        part = socket.recv(zmq.NOBLOCK, False)
        frames.append(part.bytes if len(part) < _COPIED_BYTES else part.buffer.toreadonly())
    return frames


def connected(context: "zmq.Context[zmq.Socket[bytes]]", kind: int, url: str, mark: int = MARK) -> "zmq.Socket[bytes]":
    """Return a socket that connects to `url`; `mark` is how many received messages it queues.

    Raises UsageError where `url` is no address.
    """
    socket = context.socket(kind)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.set(zmq.HANDSHAKE_IVL, 3000)
    socket.set(zmq.RCVHWM, mark)
    socket.set(zmq.SNDHWM, MARK)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RECONNECT_IVL_MAX, 1000)
    try:
        socket.connect(url)
    except zmq.ZMQError as error:
        socket.close()
        raise UsageError(f"{url!r} is not an address like tcp://daq-pc:5601 ({error})") from error
    return socket


class Handshakes:
    """Counts how often a socket has connected."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self._socket = socket
        self._monitor = socket.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED)
        self._count = 0

    def count(self) -> int:
        """Return how often until now: what was received before this was asked came over no later connection."""
        while self._monitor.poll(0):
            self._monitor.recv_multipart()
            self._count += 1
        return self._count

    def close(self) -> None:
        """Count no longer; to be called before the socket is closed."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
