"""Whether a socket's connections come to be, and why not, as libzmq tells it.

What a client's socket sees (tried with libzmq 4.3.5, SUB and DEALER alike):

==================================================  ==========================================  =================
this end, and the other                             events                                      tried again
==================================================  ==========================================  =================
a key that is allowed                               HANDSHAKE_SUCCEEDED
a key that is unknown or was taken back             HANDSHAKE_FAILED_AUTH 400                   never
an allow-list that cannot be asked (answers 500)    HANDSHAKE_FAILED_AUTH 500                   never
an allow-list that is gone (no handler)             HANDSHAKE_FAILED_NO_DETAIL at once          every 0.1 s
an allow-list that does not answer                  HANDSHAKE_FAILED_NO_DETAIL after 3 s        every 3 s
another server key than the gateway's               HANDSHAKE_FAILED_NO_DETAIL at once          every 0.1 s
an allowed key, at the gateway's other port         HANDSHAKE_FAILED_NO_DETAIL at once          every 0.1 s
a key, where the gateway has none                   HANDSHAKE_FAILED_PROTOCOL, mechanism        never
no key, where the gateway has some                  mismatch; often NO_DETAIL some times before never
==================================================  ==========================================  =================

Where libzmq never tries again, only a new socket does.
"""

import logging
import time
from collections.abc import Iterable
from itertools import count
from typing import Literal, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from dtolbus.connecting import MARK, connect, prepared
from dtolbus.errors import UsageError
from dtolbus.keys import Keys

log = logging.getLogger(__name__)

Failure = Literal["refused", "mechanism", "failed"]

_EVENTS = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
)
_MISMATCH = 0x11000002
"""ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH."""
_FAILED = 3
_FAILED_S = 2.0
"""So many handshakes that fail in a row, for so long, are told: one may, when a gateway is started again."""
_AT_ONCE_S = 1.0
"""Those that fail for a wrong key do so every 0.1 s; those that nobody answers, every 3 s."""
_RETRY_S = 2.0
"""A socket that libzmq gave up is made anew after this long."""
_QUIET_S = 0.5
"""Where anything was heard so recently, nobody needs to ask whether connections come to be."""
_numbers = count()


class Seen(NamedTuple):
    """What came of a socket's handshakes until now."""

    succeeded: int = 0
    in_a_row: int = 0
    """How many failed since one succeeded."""
    failure: Failure | None = None
    """What the last one failed of; None: it did not."""

    def after(self, event: int, value: int) -> "Seen":
        """Return what is seen with a further event."""
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            return Seen(self.succeeded + 1)
        failure: Failure = "failed"
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            failure = "refused"
        elif event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL and value == _MISMATCH:
            failure = "mechanism"
        return Seen(self.succeeded, self.in_a_row + 1, failure)

    @property
    def is_given_up(self) -> bool:
        """Whether libzmq does not try again."""
        return self.failure in ("refused", "mechanism")

    def words(self, url: str, keys: Keys | None, failing_s: float) -> str:
        """Return what to say of it after so long without success; empty where nothing is wrong, or not known yet."""
        if self.failure == "mechanism" and keys is None:
            return (
                f"{url} asks for a key: give --key FILE, which `dtolbus keys new NAME` makes on the gateway's machine"
            )
        if self.failure is None or (self.failure == "failed" and (self.in_a_row < _FAILED or failing_s < _FAILED_S)):
            return ""
        if keys is None:
            return (
                f"the handshake with {url} fails: it may ask for a key (give --key FILE, which `dtolbus keys new NAME` "
                f"makes on the gateway's machine), or that port is no gateway's"
            )
        if self.failure == "refused":
            return (
                f"not allowed by {url} (key {keys.name}): it is unknown there or was taken back; on the gateway's "
                f"machine `dtolbus keys list` shows which are allowed, and `dtolbus keys new {keys.name}` makes one, "
                f"with --role sink for a sink; a new key file is read when this is started again"
            )
        if self.failure == "mechanism":
            return f"{url} uses no keys: leave --key (DTOLBUS_KEY) out, or start that gateway with --require-keys"
        if failing_s / self.in_a_row > _AT_ONCE_S:
            return f"{url} takes connections and answers no handshake (key {keys.name}): its gateway hangs"
        return (
            f"the handshake with {url} fails (key {keys.name}): check the server key (of --server-key, or in the key "
            f"file), which another gateway's is not, and the port"
        )


class Handshakes:
    """Follows the handshakes of a socket that connects to `url`. To be closed before the socket is."""

    def __init__(self, socket: "zmq.Socket[bytes]", url: str = "", keys: Keys | None = None) -> None:
        self._socket = socket
        self._url, self._keys = url, keys
        address = f"inproc://handshakes-{next(_numbers)}"
        socket.monitor(address, _EVENTS)
        self._monitor: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR)
        self._monitor.set(zmq.RCVHWM, 0)  # where nobody looks for long, libzmq's own thread would wait for room
        self._monitor.connect(address)
        self._failing_since = self._failed_at = 0.0
        self.seen = Seen()

    def count(self) -> int:
        """Return how often it connected until now: what was received before this was asked came over no later one."""
        self.look()
        return self.seen.succeeded

    def look(self) -> None:
        """Take what happened since."""
        while self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())
            self.seen = self.seen.after(event["event"], event["value"])
            self._failed_at = time.monotonic()
            if self.seen.in_a_row == 1:
                self._failing_since = self._failed_at

    def is_due(self, now: float) -> bool:
        """Return whether the socket is to be made anew, since libzmq gave it up a while ago; `now` is monotonic, s."""
        return self.seen.is_given_up and now - self._failed_at >= _RETRY_S

    def words(self) -> str:
        """Return what to say of them; empty where nothing is wrong."""
        return self.seen.words(self._url, self._keys, time.monotonic() - self._failing_since)

    def close(self) -> None:
        """Follow no longer."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)


def followed(
    context: "zmq.Context[zmq.Socket[bytes]]", kind: int, url: str, mark: int = MARK, keys: Keys | None = None
) -> tuple["zmq.Socket[bytes]", Handshakes]:
    """Return a socket as `connected` does, and its handshakes from the first on. Raises UsageError as that does."""
    socket = prepared(context, kind, mark, keys)
    handshakes = Handshakes(socket, url, keys)  # before it connects: the first may succeed at once
    try:
        connect(socket, url)
    except UsageError:
        handshakes.close()
        socket.close()
        raise
    return socket, handshakes


class Entrance:
    """Whether a gateway lets a client in: told once when it does not, and once when it does again."""

    def __init__(self) -> None:
        self.trouble = ""
        """Why it does not; empty where it does, or nothing is known."""
        self._told: set[Failure | None] = set()

    def look(self, followed: Iterable[Handshakes | None], heard_at: float, now: float, *, is_told: bool = True) -> None:
        """Look whether the sockets' connections came to be; instants are monotonic, s. Not told: the caller does."""
        known = [handshakes for handshakes in followed if handshakes is not None]
        if now - heard_at >= _QUIET_S or self.trouble:
            for handshakes in known:
                handshakes.look()
        troubled = next((handshakes for handshakes in known if handshakes.seen.failure and handshakes.words()), None)
        if troubled is not None:
            self.trouble = troubled.words()
            if is_told and troubled.seen.failure not in self._told:
                self._told.add(troubled.seen.failure)
                log.warning(self.trouble)
        elif self.trouble and known and all(handshakes.seen.succeeded for handshakes in known):
            self.trouble = ""
            self._told.clear()
            log.warning("let in now: connected")
