"""The socket of the live records, bounded in what subscribers can make it remember."""

import logging
from collections import deque
from collections.abc import Callable

import zmq

from dtolbus.connecting import is_readable
from dtolbus.wire import Frame
from dtolbus_producer.binding import Binding, Bound

log = logging.getLogger(__name__)

TOPIC_BYTES = 600
"""Longest subscription: a kind and two names, each as long as a folder's can be."""
QUEUED = 1000
"""Messages, for each subscriber."""
SUBSCRIPTIONS_QUEUED = 10
"""For each subscriber; libzmq takes in as many as there are before it returns, and pauses where there are so few."""
_MOST_TOPICS = 1000
"""Different ones, over all subscribers. Each byte of a topic takes about 50 in libzmq's tree."""
_MOST_WORDS = 10_000
"""Taken from subscribers in one turn."""
_REST_S = 1.0


class Publisher:
    """An XPUB that `bind` makes, told to `tend` each turn.

    libzmq offers no bound on subscriptions, and no way to cut off one subscriber. Where there are too many the socket
    is closed, with all that it remembers, and after a rest made anew: subscribers connect again, and fetch what they
    missed.
    """

    def __init__(self, bind: Callable[[], Bound]) -> None:
        self._binding = Binding(bind)
        self._topics: set[bytes] = set()
        self._sizes: deque[int] = deque(maxlen=QUEUED)
        self._is_logged = False

    def queued(self) -> int:
        """Bytes of what was published last, as far as it may be queued for a subscriber that takes nothing."""
        return sum(self._sizes)

    def publish(self, frames: list[Frame], size: int, *, copy: bool) -> None:
        """Send frames of `size` bytes together to all who subscribed; those behind by more than the mark miss it."""
        socket = self._binding.socket
        if socket is not None:
            self._sizes.append(size)
            *before, last = frames
            for frame in before:
                socket.send(frame, zmq.SNDMORE, copy)
            socket.send(last, 0, copy)

    def tend(self, now: float) -> None:
        """Take what subscribers say; `now` is monotonic, s. Raises CannotStartError where the port is lost."""
        self._binding.tend(now)
        if self._binding.socket is not None and not self._took_all(self._binding.socket):
            level = logging.DEBUG if self._is_logged else logging.WARNING
            log.log(level, "too many subscriptions: all subscribers are cut off", extra={"topics": len(self._topics)})
            self._is_logged = True
            self.cut(now, _REST_S)

    def cut(self, now: float, rest_s: float = 0.0) -> None:
        """Cut off all subscribers; after `rest_s` the socket is made anew."""
        self._binding.cut(now, rest_s)
        self._topics.clear()

    def admit(self, *, newcomers: bool) -> None:
        """Let new subscribers in, or not; those who are in stay."""
        self._binding.admit(newcomers=newcomers)

    def close(self, linger_ms: int) -> None:
        """Close the socket; what was just published has `linger_ms` to leave."""
        self._binding.close(linger_ms)

    def _took_all(self, socket: "zmq.Socket[bytes]") -> bool:
        """Take what subscribers say; return whether it keeps within the bounds."""
        if not is_readable(socket):
            return True
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
