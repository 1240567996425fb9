"""The catch-up connection of a client: a DEALER, made anew where its answers do not come. For one thread only."""

import logging
import time

import zmq

from dtolbus.connecting import is_readable
from dtolbus.handshakes import Handshakes, followed
from dtolbus.keys import Keys
from dtolbus.wire import Message, Refused, encode

log = logging.getLogger(__name__)

_ANSWER_S = 5.0
"""What was asked is asked on a new connection after so long a silence."""
_DAMAGED_S = (0.25, 30.0)
"""The same after a damaged message, which may have been the answer; from the first to the last twice as long each time,
until what was asked gets on."""


class CatchUp:
    """A connection to the catch-up socket at `url`, there once `keep` was called."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", poller: zmq.Poller, url: str, keys: Keys | None = None
    ) -> None:
        self.is_damaged = False
        """Whether a message of this connection was damaged, in either direction: something may not have arrived."""
        self._context = context
        self._poller = poller
        self._url = url
        self._keys = keys
        self._socket: zmq.Socket[bytes] | None = None
        self.handshakes: Handshakes | None = None
        self._answered_at = 0.0
        self._is_unanswered = False
        """Whether nothing came since the last question."""
        self._was_answered = False
        """Whether anything came since `keep` was last called."""
        self._damaged_s = _DAMAGED_S[0]

    def keep(self, *, is_waiting: bool) -> bool:
        """Connect where that is due, `is_waiting` telling whether more is to come; return whether it was done.

        After a reconnection too: the gateway may be another one, which knows nothing of what was asked.
        """
        now = time.monotonic()
        if self._was_answered:  # whoever took long for what came has not waited for more meanwhile
            self._was_answered, self._answered_at = False, now
        silent_s = now - self._answered_at
        is_lost = self.is_damaged and silent_s > self._damaged_s
        is_silent = (is_waiting or self._is_unanswered) and silent_s > _ANSWER_S and not self._has_answer()
        is_given_up = self.handshakes is not None and self.handshakes.is_due(now)
        is_due = is_lost or is_silent or is_given_up or self.is_reconnected()
        if self._socket is not None and not is_due:
            return False
        if self._socket is not None and not is_given_up:
            facts = {"to": self._url, "silent": is_silent, "damaged": is_lost, "after_s": self._damaged_s}
            log.info("catch-up connects anew", extra=facts)
        if is_lost:
            self._damaged_s = min(2 * self._damaged_s, _DAMAGED_S[1])
        self._renew()
        self._answered_at = time.monotonic()
        self._is_unanswered = self.is_damaged = False
        return True

    def is_reconnected(self) -> bool:
        """Return whether what came may be another gateway's than what was asked."""
        return self.handshakes is not None and self.handshakes.count() > 1

    def asked(self) -> None:
        """Wait for an answer, from the first question on."""
        if not self._is_unanswered:
            self._is_unanswered = True
            self._answered_at = time.monotonic()

    def not_looked_at(self) -> None:
        """Wait on: answers may have come."""
        self._answered_at = time.monotonic()

    def answered(self, message: Message) -> None:
        """Note an answer. One that tells of a damaged request may mean any that is on its way."""
        self._answered_at = time.monotonic()
        self._was_answered = True
        self._is_unanswered = False
        if isinstance(message, Refused):
            self.is_damaged = self.is_damaged or message.was_damaged

    def got_on(self) -> None:
        """Note that an answer brought what was missing: the damage before it was the network's."""
        if not self.is_damaged:
            self._damaged_s = _DAMAGED_S[0]

    def damaged(self) -> None:
        """Note a message that cannot be read: it may have been any answer."""
        self._answered_at = time.monotonic()
        self._is_unanswered = False
        self.is_damaged = True

    def send(self, message: Message) -> None:
        """Send the message, if the socket takes it."""
        if self._socket is None:
            return
        try:
            self._socket.send_multipart(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("catch-up socket is full", extra={"to": self._url})

    def close(self, linger_ms: int = 0) -> None:
        """Close the connection; what was sent has `linger_ms` to leave."""
        if self._socket is None:
            return
        self._poller.unregister(self._socket)
        if self.handshakes is not None:
            self.handshakes.close()
            self.handshakes = None
        self._socket.close(linger=linger_ms)
        self._socket = None

    def _has_answer(self) -> bool:
        return self._socket is not None and is_readable(self._socket)

    def _renew(self) -> None:
        self.close()
        self._socket, self.handshakes = followed(self._context, zmq.DEALER, self._url, keys=self._keys)
        self._poller.register(self._socket, zmq.POLLIN)
