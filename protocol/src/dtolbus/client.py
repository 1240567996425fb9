"""One end of the bus: SUB and DEALER sockets feeding a sequencer. Plain and sync; use it on one thread."""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
import zmq

from dtolbus.catchup import CatchUp
from dtolbus.connecting import MARK, is_readable, received
from dtolbus.errors import CannotStartError, WireError
from dtolbus.handshakes import Entrance, Handshakes, followed
from dtolbus.identity import Admission, foreign
from dtolbus.keys import Keys
from dtolbus.records import RunInfo
from dtolbus.rollcall import RollCall
from dtolbus.sequencer import Gone, Item, Sequencer, Step, size_of
from dtolbus.topics import stream_name
from dtolbus.wire import (
    Ack,
    Credit,
    Heartbeat,
    Hello,
    Message,
    Refused,
    RunGap,
    RunPosition,
    RunRecord,
    Welcome,
    decode,
    topic_of_run,
)

log = logging.getLogger(__name__)

_SILENCE_S = 10.0
"""A SUB that hears nothing for this long is closed and made anew: some failures leave it silent for ever."""
_HELLO_EVERY_S = 60.0
_STUCK_HELLO_S = 1.0
"""How soon to ask anew how far the runs are where a fetch was refused; twice as long after each time."""
_HELLO_POSITIONS = 5000
_BATCH = 256
_CAUSES = 100
"""Why messages cannot be read, as far as each is told by itself."""
_BATCH_BYTES = 4 << 20
"""Taken from a socket at once."""
_MARK_BYTES = 32 << 20
"""Live records queue up to about as many bytes where what is dropped can be fetched."""
_LEAST_MARK = 16
_LINGER_MS = 500
_CREDIT = 128
"""Records granted in advance of being taken, well below the mark."""


@dataclass(frozen=True)
class Endpoints:
    """Where a gateway is."""

    connect: str
    """Its PUB socket: `tcp://daq-pc:5601`."""
    catchup: str | None = None
    """Its catch-up socket: `tcp://daq-pc:5602`; None: live only, a hole is a gap."""
    topics: tuple[str, ...] = ()
    """Topic prefixes to take (`block/`, `reading/sim1/`); none: all records."""
    keys: Keys | None = None
    """Those of this client, where the gateway asks for some."""

    def takes(self, run: RunInfo) -> bool:
        """Return whether the topics cover the run."""
        return not self.topics or any(topic_of_run(run).startswith(topic.encode()) for topic in self.topics)


class Client:
    """Receives the records of a gateway in order. Everything but `acknowledge` is for one thread only.

    `hello` presents it; `positions` and `wanted` are the Sequencer's. One that `enters_or_ends` does not wait for a
    gateway that never let it in: its key may be allowed later, when nobody waits any more.
    """

    def __init__(
        self,
        at: Endpoints,
        hello: Hello | None = None,
        positions: Mapping[str, int] | None = None,
        wanted: Callable[[RunInfo], bool] = lambda run: True,
        *,
        enters_or_ends: bool = False,
    ) -> None:
        self.at = at
        """Where its gateway is."""
        self._enters_or_ends = enters_or_ends
        self._hello = hello or Hello(worker="")
        self._admission = Admission(self._hello.expects)
        self.sequencer = Sequencer(
            positions, wanted=lambda run: at.takes(run) and wanted(run), can_fetch=at.catchup is not None
        )
        self.welcomed = False
        """Whether the gateway has told its runs."""
        self.heard_at: float | None = None
        """When the last message came, monotonic s; None: none has."""
        self.answered_at: float | None = None
        """When the last answer came from the catch-up, or it was not looked at, monotonic s; None: none has."""
        self.foreign: Counter[str] = Counter()
        """Messages that could not be read, by cause."""
        self.reconnects = -1
        """How often the catch-up connection was made anew; −1: never made."""
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._sub: zmq.Socket[bytes] | None = None
        self._handshakes: Handshakes | None = None
        """Those of the SUB."""
        self._entrance = Entrance()
        self._connections = 0
        self._catchup = None if at.catchup is None else CatchUp(self._context, self._poller, at.catchup, at.keys)
        self._heard_at = 0.0
        """When the SUB last heard anything, or was made."""
        self._is_silent = False
        self._hello_at = -math.inf
        self._stuck_hello_s = _STUCK_HELLO_S
        self._roll = RollCall()
        self._gone: dict[str, Gone] = {}
        self._refusal = ""
        """Why a request that is no Fetch was last refused."""
        self._mark = MARK
        self._is_mark_lower = False
        self._largest = 0
        """Bytes of the largest live record."""
        self._credit = 0
        """Records that the gateway may still send of the Fetch on its way."""
        self._positions = {position.run_id: position for position in self._hello.positions}
        self._acks: deque[Ack] = deque()

    @property
    def trouble(self) -> str:
        """Why the gateway does not let this client in; empty where it does. May be asked from any thread."""
        return self._entrance.trouble

    @property
    def gone(self) -> list[Gone]:
        """The runs that went from the journal before all of them was had. May be asked from any thread."""
        return [gone for run_id, gone in list(self._gone.items()) if not self.sequencer.knows(run_id)]

    def acknowledge(self, ack: Ack) -> None:
        """Tell the gateway, with the next `receive`, what is committed. May be called from any thread."""
        self._acks.append(ack)

    def receive(self, timeout_s: float) -> list[Item]:
        """Return all that `arriving` gives."""
        return list(self.arriving(timeout_s))

    def arriving(self, timeout_s: float) -> Iterator[Item]:
        """Yield what became ready, each at once: waits up to `timeout_s` for a first message, then takes what is there.

        To be taken to its end, or the client closed: of what one message set free the rest is lost otherwise.
        Raises UsageError where an address is not one, CannotStartError where the gateway refuses this worker for good,
        is another than the one expected, or does not let in who enters or ends.
        """
        self._keep_sockets()
        self._send_acks()
        self._grant()
        for socket, _ in self._poller.poll(round(timeout_s * 1000)):
            yield from self._taken(socket)

    def _taken(self, socket: "zmq.Socket[bytes]") -> Iterator[Item]:
        """Yield what became ready of the messages that are there at the socket."""
        fetched = self._is_catchup(socket)
        yield from self._admitted(self._messages(socket, fetched), fetched)

    def _admitted(self, messages: Iterable[Message], fetched: bool) -> Iterator[Item]:
        """Take the messages, each at once; not where another gateway than the one expected may have sent any of them.

        Those are fetched.
        """
        if self._admission.expects:
            messages = list(messages)
            if not self._is_admitted(fetched):
                self._heard_at = self._heard_at if fetched else time.monotonic()
                return
        is_noted = False
        for message in messages:
            if message.__class__ is RunRecord and not fetched:
                if not is_noted:  # of a batch the first is enough
                    self._note(message, fetched)
                    is_noted = True
                arrived = self.sequencer.in_order(message)
                if arrived is not None:  # it is simply the next one, and needs nothing more
                    yield arrived
                    continue
            yield from self._take(message, fetched)

    def _messages(self, socket: "zmq.Socket[bytes]", fetched: bool) -> Iterator[Message]:
        """Yield the messages that are there at the socket, up to a bound."""
        size = 0
        for place in range(_BATCH):
            if size >= _BATCH_BYTES or socket.closed or (place == 1 and not is_readable(socket)):
                break  # the second is asked for: where there is none, an exception would cost more than the question
            message = self._next(socket)
            if message is None:
                break
            if message.__class__ is RunRecord:
                record_size = size_of(message.record)
                size += record_size
                if record_size > self._largest and not fetched:
                    self._lower_mark(record_size)
            yield message

    def _is_admitted(self, fetched: bool) -> bool:
        """Return whether what was received up to now comes from the gateway that is expected."""
        if fetched:
            return self._catchup is not None and not self._catchup.is_reconnected()
        connections = 0 if self._handshakes is None else self._handshakes.count()
        if connections != self._connections:
            self._connections = connections
            self._admission.connected()
            self._hello_at = -math.inf
        return self._admission.is_open

    def _lower_mark(self, record_size: int) -> None:
        """Have fewer live records queue where they are large, by a new socket; what that drops is fetched."""
        self._largest = record_size
        mark = max(_LEAST_MARK, _MARK_BYTES // record_size)
        if mark < self._mark // 2 and self.at.catchup is not None:
            self._mark = mark
            self._is_mark_lower = True

    def pass_over(self, timeout_s: float) -> list[Item]:
        """Take no records, only word of how far the runs are: for a reader that has no room now.

        Live records are dropped, to be fetched later; of the Fetch on its way no more comes than was granted.
        """
        self._keep_sockets()
        self._send_acks()
        beats: list[Message] = []
        assert self._sub is not None  # noqa: S101  # narrows the type, nothing rests on it
        if self._sub.poll(round(timeout_s * 1000)):
            for _ in range(_BATCH):
                message = self._next(self._sub, beginning=b"heartbeat/")
                if message is None:
                    break
                if isinstance(message, Heartbeat):
                    beats.append(message)
        if self._catchup is not None:
            self._catchup.not_looked_at()
            self.answered_at = None if self.answered_at is None else time.monotonic()
        return list(self._admitted(beats, fetched=False))

    def close(self) -> None:
        """Send what is left to acknowledge, and close the sockets."""
        self._send_acks()
        if self._catchup is not None:
            self._catchup.close(linger_ms=_LINGER_MS)
        if self._sub is not None:
            self._close_sub(self._sub)
            self._sub = None
        self._context.term()

    def _take(self, message: Message, fetched: bool) -> list[Item]:
        if isinstance(message, Refused):
            self._refused(message)
        if isinstance(message, Welcome) and not self._admission.is_met(
            message.serves, message.number, more=message.more
        ):
            raise CannotStartError(foreign(self.at.catchup or "", message.serves.journal or "of an older version"))
        self._note(message, fetched)
        step = self.sequencer.heard(message, fetched=fetched)
        self._ask(step)
        if isinstance(message, Welcome):
            self._roll.named(status.info.run_id for status in message.runs)
        is_told_all = isinstance(message, Welcome) and not message.more and not self._misses_something()
        if is_told_all:
            self._welcome()
        nothing_is_missing = is_told_all and self.sequencer.fetching is None
        if fetched and (step.ready or nothing_is_missing) and self._catchup is not None:
            self._catchup.got_on()
        return step.ready

    def _refused(self, refused: Refused) -> None:
        """Tell what is refused but a Fetch, which the sequencer knows: each cause once until there is another."""
        if refused.is_foreign:
            raise CannotStartError(foreign(self.at.catchup or "", refused.why))
        if refused.is_final:
            raise CannotStartError(refused.why)
        if refused.is_unregistered:
            self._hello_at = -math.inf
        elif not refused.number and not refused.was_damaged and refused.why != self._refusal:
            self._refusal = refused.why
            log.warning("the gateway refuses, trying on", extra={"why": refused.why, "at": self.at.catchup})

    def _note(self, message: Message, fetched: bool) -> None:
        now = time.monotonic()
        self.heard_at = now
        if not fetched:
            self._is_silent = False
            if now - self._heard_at > 2.0 and self._hello_at < now - 2.0:
                self._hello_at = -math.inf  # after a silence: runs may have come and gone
            self._heard_at = now
            return
        self.answered_at = now
        if self._catchup is not None:
            self._catchup.answered(message)
        if isinstance(message, RunRecord | RunGap):
            self._credit -= 1
            self._stuck_hello_s = _STUCK_HELLO_S

    def _welcome(self) -> None:
        """Note that all runs are told; say so where this is another stack's journal."""
        if not self.welcomed and (unheard := self.sequencer.unheard()):
            is_other = unheard == len(self._hello.positions)
            what = "none of the stored runs is in this journal" if is_other else "stored runs are not in this journal"
            log.log(logging.WARNING if is_other else logging.INFO, what, extra={"runs": unheard, "at": self.at.catchup})
        self.welcomed = True
        for run_id in self._roll.gone():
            gone = self.sequencer.lose(run_id)
            if gone is not None:
                self._gone[run_id] = gone
                facts = {"run": run_id, "stream": stream_name(gone.run.device, gone.run.task), "has": gone.position}
                log.warning("run is gone from the journal", extra={**facts, "lacks": gone.head - gone.position})
        if self._roll.is_in_doubt:
            self._hello_at = -math.inf

    def _ask(self, step: Step) -> None:
        if step.fetch is not None:
            self._send(step.fetch)
            self._credit = 0
            self._grant()  # now: a reader may take long for what else there is
            if self._catchup is not None:
                self._catchup.asked()

    def _grant(self) -> None:
        """Let more of the Fetch come where half of what was granted is taken."""
        fetch = self.sequencer.fetching
        if fetch is not None and self._credit <= _CREDIT // 2:
            self._send(Credit(_CREDIT - self._credit, fetch.number))
            self._credit = _CREDIT

    def _next(self, socket: "zmq.Socket[bytes]", beginning: bytes = b"") -> Message | None:
        """Return the socket's next message that can be read, its topic so beginning; None where there is none now."""
        for _ in range(_BATCH):  # whoever sends nothing but nonsense keeps nobody from the rest
            try:
                frames = received(socket)
                if not beginning or bytes(frames[0]).startswith(beginning):
                    return decode(frames)
            except zmq.Again:
                return None
            except WireError as error:
                cause = str(error) if len(self.foreign) < _CAUSES else "and others"
                self.foreign[cause] += 1
                if self.foreign[cause] == 1:
                    log.warning("message dropped", extra={"cause": cause, "from": self.at.connect})
                if self._catchup is not None and self._is_catchup(socket):
                    self._catchup.damaged()
        return None

    def _keep_sockets(self) -> None:
        """Make the sockets, make them anew when they fell silent, and say Hello."""
        now = time.monotonic()
        catchup_handshakes = None if self._catchup is None else self._catchup.handshakes
        is_at_the_door = self._enters_or_ends and self.heard_at is None
        followed = (self._handshakes, catchup_handshakes)
        self._entrance.look(followed, self._heard_at, now, is_told=not is_at_the_door)
        if is_at_the_door and self.trouble:
            raise CannotStartError(self.trouble)
        is_silent = now - self._heard_at > _SILENCE_S and not (self._sub and is_readable(self._sub))
        is_given_up = self._handshakes is not None and self._handshakes.is_due(now)
        if self._sub is None or self._is_mark_lower or self._connections > 1 or is_silent or is_given_up:
            if self._sub is not None and is_silent and not is_given_up:
                self._tell_silence()
            if self._sub is not None and not self._is_mark_lower:
                self._hello_at = -math.inf  # the runs that it was heard of may be gone
            self._is_mark_lower = False
            self._subscribe()
            self._heard_at = now
        if self._catchup is None:
            return
        is_new = self._catchup.keep(is_waiting=self.sequencer.fetching is not None or not self.welcomed)
        if is_new:
            self.reconnects += 1
            self._hello_at = -math.inf
        is_stuck = self.sequencer.is_stuck  # an ended run has no heartbeats that would set it going again
        if now - self._hello_at > (min(self._stuck_hello_s, _HELLO_EVERY_S) if is_stuck else _HELLO_EVERY_S):
            self._say_hello()
            self._catchup.asked()
            self._hello_at = now
            self._stuck_hello_s *= 2 if is_stuck else 1
        if is_new:
            self._ask(self.sequencer.fetch_lost())  # behind the Hello, which another gateway refuses

    def _tell_silence(self) -> None:
        """Say once that a gateway is not heard; one without a run that goes on has nothing to say."""
        is_expected = self.sequencer.complete() and (self.welcomed or self._catchup is None)
        level = logging.DEBUG if is_expected or self._is_silent else logging.WARNING
        log.log(level, "nothing heard, trying on", extra={"from": self.at.connect, "silent_s": _SILENCE_S})
        self._is_silent = True

    def _is_catchup(self, socket: "zmq.Socket[bytes]") -> bool:
        return socket is not self._sub

    def _misses_something(self) -> bool:
        """Return whether a part of the Welcome may be among the damaged messages; it is then asked for again."""
        return self._catchup is not None and self._catchup.is_damaged

    def _say_hello(self) -> None:
        """Send Hello with the positions as they are now; as several where they are too many for one."""
        self._roll.asked(self.sequencer.unfinished())
        positions = tuple(self._positions.values())
        hello = msgspec.structs.replace(self._hello, number=self._admission.numbered())
        for start in range(0, max(1, len(positions)), _HELLO_POSITIONS):
            part, is_last = positions[start : start + _HELLO_POSITIONS], start + _HELLO_POSITIONS >= len(positions)
            self._send(msgspec.structs.replace(hello, positions=part, more=not is_last))

    def _subscribe(self) -> None:
        """Subscribe anew: to the topics, and to the heartbeats of all streams, which tell of lost tails."""
        if self._sub is not None:
            self._poller.unregister(self._sub)
            self._close_sub(self._sub)
        self._sub, self._handshakes = followed(self._context, zmq.SUB, self.at.connect, self._mark, self.at.keys)
        if self._admission.expects:
            self._connections = 0
            self._admission.connected()
        for prefix in (*(self.at.topics or ("block/", "reading/", "note/")), "heartbeat/"):
            self._sub.subscribe(prefix)
        self._poller.register(self._sub, zmq.POLLIN)

    def _close_sub(self, sub: "zmq.Socket[bytes]") -> None:
        if self._handshakes is not None:
            self._handshakes.close()
            self._handshakes = None
        sub.close(linger=0)

    def _send(self, message: Message) -> None:
        if self._catchup is not None:
            self._catchup.send(message)

    def _send_acks(self) -> None:
        """Send the newest acknowledgement of each run."""
        newest: dict[str, Ack] = {}
        while self._acks:
            ack = self._acks.popleft()
            newest[ack.run_id] = ack
            self._positions[ack.run_id] = RunPosition(ack.device, ack.task, ack.run_id, ack.position)
        for ack in newest.values():
            self._send(ack)
