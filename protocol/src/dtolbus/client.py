"""One end of the bus: SUB and DEALER sockets feeding a sequencer. Plain and sync; use it on one thread."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import zmq

from dtolbus.errors import UsageError, WireError
from dtolbus.records import RunInfo
from dtolbus.sequencer import Item, Sequencer, Step
from dtolbus.wire import MAX_MESSAGE_BYTES, Ack, Hello, Message, Welcome, decode, encode, topic_of_run

log = logging.getLogger(__name__)

_SILENCE_S = 10.0
"""A SUB that hears nothing for this long is closed and made anew: some failures leave it silent for ever."""
_ANSWER_S = 5.0
_HELLO_EVERY_S = 60.0
_BATCH = 256


@dataclass(frozen=True)
class Endpoints:
    """Where a gateway is."""

    connect: str
    """Its PUB socket: `tcp://daq-pc:5601`."""
    catchup: str | None = None
    """Its catch-up socket: `tcp://daq-pc:5602`; None: live only, a hole is a gap."""
    topics: tuple[str, ...] = ()
    """Topic prefixes to take (`block/`, `reading/sim1/`); none: all records."""

    def takes(self, run: RunInfo) -> bool:
        """Return whether the topics cover the run."""
        return not self.topics or any(topic_of_run(run).startswith(topic.encode()) for topic in self.topics)


class Client:
    """Receives the records of a gateway in order. Everything but `acknowledge` is for one thread only.

    `hello` presents it; `positions` and `wanted` are the Sequencer's.
    """

    def __init__(
        self,
        at: Endpoints,
        hello: Hello | None = None,
        positions: Mapping[str, int] | None = None,
        wanted: Callable[[RunInfo], bool] = lambda run: True,
    ) -> None:
        self._at = at
        self._hello = hello or Hello(worker="")
        self.sequencer = Sequencer(
            positions, wanted=lambda run: at.takes(run) and wanted(run), can_fetch=at.catchup is not None
        )
        self.welcomed = False
        """Whether the gateway has told its runs."""
        self.heard = False
        """Whether any message has come."""
        self.foreign: Counter[str] = Counter()
        """Messages that could not be read, by cause."""
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._sub: zmq.Socket[bytes] | None = None
        self._dealer: zmq.Socket[bytes] | None = None
        self._heard_at = self._answered_at = self._hello_at = 0.0
        self._acks: deque[Ack] = deque()

    def acknowledge(self, ack: Ack) -> None:
        """Tell the gateway, with the next `receive`, what is committed. May be called from any thread."""
        self._acks.append(ack)

    def receive(self, timeout_s: float) -> list[Item]:
        """Return what became ready: waits up to `timeout_s` for the first message, then takes what is there.

        Raises UsageError where an address is not one.
        """
        self._keep_sockets()
        self._send_acks()
        events = dict(self._poller.poll(round(timeout_s * 1000)))
        ready: list[Item] = []
        for socket in events:
            fetched = socket is self._dealer
            for _ in range(_BATCH):
                message = self._next(socket)
                if message is None:
                    break
                self._note(message, fetched)
                ready += self._take(self.sequencer.heard(message, fetched=fetched))
        return ready

    def close(self) -> None:
        """Send what is left to acknowledge, and close the sockets."""
        self._send_acks()
        for socket in (self._sub, self._dealer):
            if socket is not None:
                socket.close(linger=500)
        self._sub = self._dealer = None
        self._context.term()

    def _note(self, message: Message, fetched: bool) -> None:
        now = time.monotonic()
        self.heard = True
        if not fetched:
            if now - self._heard_at > 2.0 and self._hello_at < now - 2.0:
                self._hello_at = 0.0  # after a silence: runs may have come and gone
            self._heard_at = now
            return
        self._answered_at = now
        if isinstance(message, Welcome) and not message.more:
            self.welcomed = True

    def _take(self, step: Step) -> list[Item]:
        if step.fetch is not None:
            self._send(step.fetch)
            self._answered_at = time.monotonic()
        return step.ready

    def _next(self, socket: "zmq.Socket[bytes]") -> Message | None:
        """Return the socket's next message that can be read; None where there is none now."""
        while True:
            try:
                return decode(socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return None
            except WireError as error:
                cause = str(error)
                self.foreign[cause] += 1
                if self.foreign[cause] == 1:
                    log.warning("message dropped", extra={"cause": cause, "from": self._at.connect})

    def _keep_sockets(self) -> None:
        """Make the sockets, make them anew when they fell silent, and say Hello."""
        now = time.monotonic()
        if self._sub is None or now - self._heard_at > _SILENCE_S:
            self._sub = self._renewed(self._sub, zmq.SUB, self._at.connect)
            for prefix in self._prefixes():
                self._sub.subscribe(prefix)
            self._heard_at = now
        if self._at.catchup is None:
            return
        waiting = self.sequencer.fetching is not None or not self.welcomed
        if self._dealer is None or (waiting and now - self._answered_at > _ANSWER_S):
            self._dealer = self._renewed(self._dealer, zmq.DEALER, self._at.catchup)
            self._answered_at = now
            self._hello_at = 0.0
            self._take(self.sequencer.fetch_lost())
        if now - self._hello_at > _HELLO_EVERY_S:
            self._send(self._hello)
            self._hello_at = now

    def _prefixes(self) -> Sequence[str]:
        """Return what to subscribe to: the topics, and the heartbeats of all streams, which tell of lost tails."""
        return [*(self._at.topics or ("block/", "reading/", "note/")), "heartbeat/"]

    def _renewed(self, old: "zmq.Socket[bytes] | None", kind: int, url: str) -> "zmq.Socket[bytes]":
        if old is not None:
            self._poller.unregister(old)
            old.close(linger=0)
        socket = self._context.socket(kind)
        socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.set(zmq.HANDSHAKE_IVL, 3000)
        socket.set(zmq.RCVHWM, 1000)
        socket.set(zmq.SNDHWM, 1000)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RECONNECT_IVL_MAX, 1000)
        try:
            socket.connect(url)
        except zmq.ZMQError as error:
            socket.close()
            raise UsageError(f"{url!r} is not an address like tcp://daq-pc:5601 ({error})") from error
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _send(self, message: Message) -> None:
        if self._dealer is None:
            return
        try:
            self._dealer.send_multipart(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("catch-up socket is full", extra={"to": self._at.catchup})

    def _send_acks(self) -> None:
        """Send the newest acknowledgement of each run."""
        newest: dict[str, Ack] = {}
        while self._acks:
            ack = self._acks.popleft()
            newest[ack.run_id] = ack
        for ack in newest.values():
            self._send(ack)
