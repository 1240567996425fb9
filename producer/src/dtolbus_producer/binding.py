"""A bound socket that can be cut off, with everybody who is connected, and is made anew."""

from collections.abc import Callable

import zmq

from dtolbus.errors import CannotStartError

_PORT_GONE_S = 10.0


class Binding:
    """What `bind` makes; it is called again after `cut`, until it succeeds."""

    def __init__(self, bind: "Callable[[], zmq.Socket[bytes]]") -> None:
        self._bind = bind
        self.socket: zmq.Socket[bytes] | None = bind()
        """None while it is cut off."""
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
            self.socket = self._bind()
        except (
            CannotStartError,
            zmq.ZMQError,
        ):  # libzmq may not have let go of the port yet, or there is no descriptor
            if now - self._cut_at > _PORT_GONE_S:
                raise

    def close(self, linger_ms: int) -> None:
        """Close it; what was just sent has `linger_ms` to leave."""
        if self.socket is not None:
            self.socket.close(linger=linger_ms)
