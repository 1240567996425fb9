"""Sockets towards a gateway, bounded in every direction."""

import zmq

from dtolbus.errors import UsageError
from dtolbus.keys import Keys
from dtolbus.wire import MAX_MESSAGE_BYTES, Frame

MARK = 1000
"""High-water mark of a socket, messages."""

CURVE_BYTES = 64
"""So much longer than its frame is at most what travels of it with keys."""

_COPIED_BYTES = 8 << 10
"""Of a frame: a larger one is kept where libzmq received it; smaller ones share a buffer of this size there."""

_READABLE = int(zmq.POLLIN)


def received(socket: "zmq.Socket[bytes]") -> list[Frame]:
    """Return the frames of the socket's next message. Raises zmq.Again where there is none now."""
    part = socket.recv(zmq.NOBLOCK, False)
    frames: list[Frame] = [part.bytes]
    while part.more:
        part = socket.recv(zmq.NOBLOCK, False)
        frames.append(part.bytes if len(part) <= _COPIED_BYTES else part.buffer.toreadonly())
    return frames


def is_readable(socket: "zmq.Socket[bytes]") -> bool:
    """Return whether a message is there: a question costs less than the exception where there is none."""
    events = socket.get(zmq.EVENTS)
    return isinstance(events, int) and events & _READABLE != 0


def connected(
    context: "zmq.Context[zmq.Socket[bytes]]", kind: int, url: str, mark: int = MARK, keys: Keys | None = None
) -> "zmq.Socket[bytes]":
    """Return a socket that connects to `url`; `mark` is how many received messages it queues.

    With keys it talks to nobody but the server that they name. Raises UsageError where `url` is no address.
    """
    socket = prepared(context, kind, mark, keys)
    try:
        connect(socket, url)
    except UsageError:
        socket.close()
        raise
    return socket


def prepared(
    context: "zmq.Context[zmq.Socket[bytes]]", kind: int, mark: int = MARK, keys: Keys | None = None
) -> "zmq.Socket[bytes]":
    """Return such a socket, not connected yet."""
    socket = context.socket(kind)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES + (0 if keys is None else CURVE_BYTES))
    if keys is not None:
        use_keys(socket, keys)
    socket.set(zmq.HANDSHAKE_IVL, 3000)
    socket.set(zmq.RCVHWM, mark)
    socket.set(zmq.SNDHWM, MARK)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RECONNECT_IVL_MAX, 1000)
    return socket


def connect(socket: "zmq.Socket[bytes]", url: str) -> None:
    """Connect the socket. Raises UsageError where `url` is no address."""
    try:
        socket.connect(url)
    except zmq.ZMQError as error:
        raise UsageError(f"{url!r} is not an address like tcp://daq-pc:5601 ({error})") from error


def use_keys(socket: "zmq.Socket[bytes]", keys: Keys) -> None:
    """Have the socket talk to nobody but the server that the keys name; to be called before it connects."""
    socket.set(zmq.CURVE_SERVERKEY, keys.server.encode())
    socket.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
    socket.set(zmq.CURVE_SECRETKEY, keys.secret.reveal().encode())
