"""The socket of the live records, bounded in what subscribers can make it remember."""

import logging
from collections.abc import Callable

import zmq

from dtolbus.errors import CannotStartError
from dtolbus.wire import Frame

log = logging.getLogger(__name__)

TOPIC_BYTES = 600
"""Longest subscription: a kind and two names, each as long as a folder's can be."""
SUBSCRIPTIONS_QUEUED = 10
"""For each subscriber; libzmq takes in as many as there are before it returns, and pauses where there are so few."""
_MOST_TOPICS = 1000
"""Different ones, over all subscribers. Each byte of a topic takes about 50 in libzmq's tree."""
_MOST_WORDS = 10_000
"""Taken from subscribers in one turn."""
_REST_S = 1.0
_PORT_GONE_S = 10.0


class Publisher:
    """An XPUB that `bind` makes, told to `tend` each turn.

    libzmq offers no bound on subscriptions, and no way to cut off one subscriber. Where there are too many the socket
    is closed, with all that it remembers, and after a rest made anew: subscribers connect again, and fetch what they
    missed.
    """

    def __init__(self, bind: "Callable[[], zmq.Socket[bytes]]") -> None:
        self._bind = bind
        self._socket: zmq.Socket[bytes] | None = bind()
        self._topics: set[bytes] = set()
        self._rested_at = 0.0
        self._is_logged = False

    def publish(self, frames: list[Frame], *, copy: bool) -> None:
        """Send to all who subscribed; those who are behind by more than the mark miss it."""
        if self._socket is not None:
            *before, last = frames
            for frame in before:
                self._socket.send(frame, zmq.SNDMORE, copy)
            self._socket.send(last, 0, copy)

    def tend(self, now: float) -> None:
        """Take what subscribers say; `now` is monotonic, s. Raises CannotStartError where the port is lost."""
        if self._socket is None:
            if now - self._rested_at >= _REST_S:
                self._go_on(now)
        elif not self._took_all(self._socket):
            level = logging.DEBUG if self._is_logged else logging.WARNING
            log.log(level, "too many subscriptions: all subscribers are cut off", extra={"topics": len(self._topics)})
            self._is_logged = True
            self._socket.close(linger=0)
            self._socket = None
            self._topics.clear()
            self._rested_at = now

    def close(self, linger_ms: int) -> None:
        """Close the socket; what was just published has `linger_ms` to leave."""
        if self._socket is not None:
            self._socket.close(linger=linger_ms)

    def _took_all(self, socket: "zmq.Socket[bytes]") -> bool:
        """Take what subscribers say; return whether it keeps within the bounds."""
        for _ in range(_MOST_WORDS):
            try:
                word = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return True
            if word[:1] == b"\x01":
                self._topics.add(word[1:])
            elif word[:1] == b"\x00":
                self._topics.discard(word[1:])
            if len(self._topics) > _MOST_TOPICS:
                return False
        return False

    def _go_on(self, now: float) -> None:
        try:
            self._socket = self._bind()
        except (
            CannotStartError,
            zmq.ZMQError,
        ):  # libzmq may not have let go of the port yet, or there is no descriptor
            if now - self._rested_at > _PORT_GONE_S:
                raise
