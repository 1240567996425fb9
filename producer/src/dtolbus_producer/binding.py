"""A bound socket that can be cut off, with everybody who is connected, and is made anew."""

import contextlib
import errno
from collections.abc import Callable
from typing import NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from dtolbus.errors import CannotStartError
from dtolbus_producer.admission import admit

_PORT_GONE_S = 10.0


class Bound(NamedTuple):
    """A socket that is bound to a port."""

    socket: "zmq.Socket[bytes]"
    listener: int
    """The descriptor that newcomers connect to, which is libzmq's."""


def bind(socket: "zmq.Socket[bytes]", url: str) -> Bound:
    """Bind the socket. Raises zmq.ZMQError."""
    with socket.get_monitor_socket(zmq.EVENT_LISTENING) as monitor:
        try:
            socket.bind(url)
            return Bound(socket, parse_monitor_message(monitor.recv_multipart())["value"])
        finally:
            socket.disable_monitor()


class Binding:
    """What `bind` makes; it is called again after `cut`, until it succeeds."""

    def __init__(self, bind: "Callable[[], Bound]") -> None:
        self._bind = bind
        self.socket: zmq.Socket[bytes] | None
        """None while it is cut off."""
        self.socket, self._listener = bind()
        self._takes_newcomers = True
        self._cut_at = 0.0
        self._rest_s = 0.0

    def cut(self, now: float, rest_s: float = 0.0) -> None:
        """Close it with all that it remembers, for `rest_s` at least; `now` is monotonic, s."""
        if self.socket is not None:
            self.socket.close(linger=0)
            self.socket = None
        self._cut_at, self._rest_s = now, rest_s

    def tend(self, now: float) -> None:
        """Make it anew where that is due. Raises CannotStartError, or zmq's error, where the port is lost."""
        if self.socket is not None or now - self._cut_at < self._rest_s:
            return
        try:
            self.socket, self._listener = self._bind()
            self._takes_newcomers = True
        except (CannotStartError, zmq.ZMQError) as error:  # libzmq may not have let go of the port yet
            if now - self._cut_at > _PORT_GONE_S and not _lacks_descriptors(error):
                raise

    def admit(self, *, newcomers: bool) -> None:
        """Let newcomers in, or not; those who are in stay."""
        if self.socket is not None and newcomers != self._takes_newcomers:
            with contextlib.suppress(OSError):  # a kernel without it: the bound does not hold
                admit(self._listener, newcomers=newcomers)
            self._takes_newcomers = newcomers

    def close(self, linger_ms: int) -> None:
        """Close it; what was just sent has `linger_ms` to leave."""
        if self.socket is not None:
            self.socket.close(linger=linger_ms)


def _lacks_descriptors(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, zmq.ZMQError):
            return error.errno in (errno.EMFILE, errno.ENFILE)
        error = error.__cause__
    return False
