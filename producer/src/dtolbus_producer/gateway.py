"""The gateway: publishes the journal of one data folder and serves what was before. One thread, one loop."""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from dtolbus import files
from dtolbus.errors import CannotStartError, WireError
from dtolbus.identity import ANY, Identity
from dtolbus.keyring import KeyRing
from dtolbus.metrics import Told
from dtolbus.records import RunStatus
from dtolbus.wire import (
    MAX_HEADER_BYTES,
    Ack,
    Credit,
    Fetch,
    Frame,
    Heartbeat,
    Hello,
    Message,
    Refused,
    Welcome,
    decode,
    encode,
)
from dtolbus_producer.access import fault
from dtolbus_producer.addresses import insecure, protection
from dtolbus_producer.bucket import TokenBucket
from dtolbus_producer.gatewayfacts import GatewayFacts
from dtolbus_producer.identity import journal_id
from dtolbus_producer.locking import locked
from dtolbus_producer.memory import MemoryWatch
from dtolbus_producer.recovery import recover_run
from dtolbus_producer.registry import Registry
from dtolbus_producer.serving import CATCHUP_MB_S, FETCH_RECORDS, ClientGoneError, FetchService
from dtolbus_producer.sockets import GatewaySockets, Request
from dtolbus_producer.tailing import HEARTBEAT_S, JournalTail

log = logging.getLogger(__name__)

LOCK_FILE = ".gateway.lock"
_RUNNING_WAIT_S = 0.001
"""Until the heads are looked at again, where there is no word when they move."""
_WATCHED_WAIT_S = 0.005
_IDLE_WAIT_S = 0.02
_REQUESTS = 64
"""Requests answered before publishing goes on."""
REQUESTS_S = 5000.0
"""Requests answered in a second, of all clients, who take turns: many times what a lab's workers ask."""
_WELCOME_RUNS = 200
_WELCOMES = 256
"""Clients that are told the runs at the same time."""
_CAUSES = 256
_REFUSALS = ("malformed", "forbidden", "fetch", "unregistered", "senseless", "foreign", "name", "crowd")


def serve(
    data: Path,
    *,
    host: str,
    pub_port: int,
    catchup_port: int,
    stop: threading.Event,
    catchup_mb_s: float = CATCHUP_MB_S,
    stack: str = "",
    require_keys: bool = False,
    insecure_lan: bool = False,
    memory: MemoryWatch | None = None,
    tell: Callable[[Told], None] = lambda _: None,
) -> None:
    """Serve the journal in `data` until `stop` is set; what was before at up to `catchup_mb_s` over all clients.

    `stack` tells those that expect a certain stack which it is. An address that others can reach needs keys, unless
    `insecure_lan`; the loopback does with `require_keys`. `memory` is for a process that does nothing else.
    What there is to tell of it is given to `tell`.

    Raises CannotStartError: a port in use, an address that needs keys, a folder that has a gateway already.
    """
    guarded = protection(host, require_keys=require_keys, insecure_lan=insecure_lan)
    if not data.is_dir():
        raise CannotStartError(f"there is no data folder {data}: start a producer first, or name another")
    with locked(data / LOCK_FILE, f"{data} has a gateway already: stop it, or use that one"):
        ring = KeyRing(data) if guarded == "keys" else None
        gateway = Gateway(data, GatewaySockets(host, pub_port, catchup_port, ring, memory), catchup_mb_s, stack)
        if guarded == "none":
            log.warning(insecure(host))
        tell(gateway.facts((pub_port, catchup_port)))
        log.info("serving", extra={"data": str(data), "pub_port": pub_port, "catchup_port": catchup_port})
        try:
            while not stop.is_set():
                gateway.turn()
        finally:
            gateway.close()


class Gateway:
    """Journal tail, catch-up service and registry around two sockets."""

    def __init__(
        self, data: Path, sockets: GatewaySockets, catchup_mb_s: float = CATCHUP_MB_S, stack: str = ""
    ) -> None:
        self._sockets = sockets
        self._journal = data / "journal"
        files.make_folder(self._journal)
        self._identity = Identity(journal_id(self._journal), stack)
        self._tail = JournalTail(data / "journal", recover_run)
        self._fetches = FetchService(self._tail.held, catchup_mb_s)
        self._welcomes: OrderedDict[bytes, Iterator[list[Frame]]] = OrderedDict()
        """What is left to tell of the runs, by client."""
        self._registry = Registry(data, self._tail.has_had)
        self._workers: dict[str, bytes] = {}
        """Who said Hello last under each name."""
        self._requests = TokenBucket(REQUESTS_S)
        self.malformed: Counter[tuple[str, str]] = Counter()
        """Messages that could not be read, by peer and cause."""
        self.published: Counter[tuple[str, str]] = Counter()
        """Records published, by device and task."""
        self.refused: Counter[str] = Counter(dict.fromkeys(_REFUSALS, 0))
        """Requests that were refused, by cause: one of a few."""
        self.turned_at = time.monotonic()

    @property
    def welcoming(self) -> int:
        """Clients that are being told the runs."""
        return len(self._welcomes)

    def facts(self, ports: tuple[int, int]) -> GatewayFacts:
        """Return what it tells of itself, to be asked from any thread; `ports` as they are served."""
        return GatewayFacts(self._journal.parent, self, self._tail, self._fetches, self._registry, ports)

    def turn(self) -> None:
        """Publish what is new, answer requests, serve a slice; waits briefly where there is nothing to do."""
        self.turned_at = time.monotonic()
        for message in self._tail.step(self.turned_at):
            if isinstance(message, Heartbeat):
                self._sockets.publish(encode(message))
            else:
                self._sockets.publish(message.frames)
                self.published[message.run.device, message.run.task] += 1
        self._sockets.tend(time.monotonic())
        rest_s = self._requests.wait_s(time.monotonic())
        has_request = self._sockets.wait(self._wait_s(), for_requests=rest_s == 0.0, also=self._tail.watch.fd)
        self._tail.watch.heard()
        for _ in range(_REQUESTS if has_request else 0):
            request = self._sockets.receive()
            if request is None:
                break
            self._requests.take(1)
            self._take(request)
        self._welcome()
        self._fetches.serve(self._sockets.send, time.monotonic())
        for worker in self._registry.write_changed():
            if worker in self._workers:
                self._send(self._workers[worker], self._unwritten(worker))

    def close(self) -> None:
        """Say how far each run is a last time, write the registrations, close everything."""
        for heartbeat in self._tail.last_words():
            self._sockets.publish(encode(heartbeat))
        self._fetches.close()
        self._tail.close()
        self._registry.close()
        self._sockets.close()

    def _wait_s(self) -> float:
        if self._tail.has_more or self._welcomes:
            return 0.0
        wait_s = _IDLE_WAIT_S
        if self._tail.is_running:
            wait_s = _WATCHED_WAIT_S if self._tail.is_watched else _RUNNING_WAIT_S
        fetches_s = self._fetches.wait_s(time.monotonic())
        return wait_s if fetches_s is None else min(wait_s, fetches_s)

    def _welcome(self) -> None:
        """Send the next part of a Welcome: ten thousand runs at once would hold up publishing."""
        if not self._welcomes:
            return
        client, parts = self._welcomes.popitem(last=False)
        frames = next(parts, None)
        # a client that takes no more asks again: without the last part it knows that some are missing
        if frames is not None and self._send(client, frames):
            self._welcomes[client] = parts

    def _take(self, request: Request) -> None:
        try:
            message = decode(request.frames)
        except WireError as error:
            self.refused["malformed"] += 1
            self._count(request.address, str(error))
            self._send(request.client, encode(Refused(str(error), was_damaged=True)))
            return
        forbidden = fault(request.caller, message)
        if forbidden:
            self.refused["forbidden"] += 1
            self._count(request.address, forbidden)
            if isinstance(message, Hello):
                is_final = request.caller is not None and request.caller.role is not None
                self._send(request.client, encode(Refused(forbidden, is_final=is_final)))
            return
        for frames in self._answers(request.client, message):
            self._send(request.client, frames)

    def _answers(self, client: bytes, message: Message) -> Iterator[list[Frame]]:
        """Take a message and yield what to answer at once."""
        match message:
            case Hello():
                yield from self._hello(client, message)
            case Credit():
                self._fetches.grant(client, message)
            case Fetch():
                refusal = self._fetches.ask(client, message)
                if refusal is not None:
                    self.refused["fetch"] += 1
                    yield encode(refusal)
            case Ack():
                unknown = self._ack(client, message)
                if unknown is not None:
                    self.refused["unregistered"] += 1
                    yield encode(unknown)
            case _:
                self.refused["senseless"] += 1
                yield encode(Refused(f"a {type(message).__name__} is nothing that a gateway is asked"))

    def _hello(self, client: bytes, hello: Hello) -> Iterator[list[Frame]]:
        """Register a worker, or say why not; the last part of its Hello is answered by a Welcome.

        One that is meant for another gateway leaves no trace: its sink is that one's.
        """
        if not self._identity.meets(hello.expects):
            self.refused["foreign"] += 1
            what = f"{self._journal}, {self._identity.journal}"
            yield encode(Refused(what, is_final=True, is_foreign=True))
            return
        taken = self._registry.hello(hello)
        if taken is not None:
            self.refused["name"] += 1
            yield encode(Refused(taken, is_final=True))
            return
        self._workers[hello.worker] = client
        if self._registry.unwritten(hello.worker):
            yield self._unwritten(hello.worker)
        if hello.more:
            return
        if client not in self._welcomes and len(self._welcomes) >= _WELCOMES:
            self.refused["crowd"] += 1
            yield encode(Refused(f"{_WELCOMES} clients are being told the runs: ask again later"))
            return
        self._welcomes[client] = welcomes(self._tail.statuses(), self._identity, hello.number)

    def _ack(self, client: bytes, ack: Ack) -> Refused | None:
        """Take an acknowledgement of who said Hello on this connection: any other may be meant for another gateway."""
        if self._workers.get(ack.worker) != client:
            return Refused(f"no sink {ack.worker!r} is registered: say Hello", is_unregistered=True)
        refused = self._registry.ack(ack, self._tail.stream_of(ack.device, ack.task, ack.run_id))
        if refused is not None and not refused.is_unregistered:
            self._count(f"the sink {ack.worker}", refused.why)
        return refused

    def _unwritten(self, worker: str) -> list[Frame]:
        why = self._registry.unwritten(worker)
        return encode(Refused(f"the sink {worker!r}, and how far it is, cannot be registered now: {why}; tried again"))

    def _send(self, client: bytes, frames: list[Frame]) -> bool:
        try:
            if self._sockets.send(client, frames):
                return True
            log.debug("answer dropped: the client takes nothing")
        except ClientGoneError:
            log.debug("answer dropped: the client is gone")
        return False

    def _count(self, address: str, cause: str) -> None:
        key = (address, cause[:60])
        if key not in self.malformed and len(self.malformed) >= _CAUSES:
            key = ("others", "others")
        self.malformed[key] += 1
        if self.malformed[key] == 1:
            log.warning("message dropped", extra={"from": key[0], "cause": cause})


def welcomes(runs: list[RunStatus], serves: Identity = ANY, number: int = 0) -> Iterator[list[Frame]]:
    """Yield the Welcome for the runs; as several where one message would be too large for its header."""
    whole = Welcome(tuple(runs), FETCH_RECORDS, HEARTBEAT_S, serves=serves, number=number)
    for start in range(0, max(1, len(runs)), _WELCOME_RUNS):
        part = whole.runs[start : start + _WELCOME_RUNS]
        yield from _fitting(msgspec.structs.replace(whole, runs=part, more=start + _WELCOME_RUNS < len(runs)))


def _fitting(welcome: Welcome) -> Iterator[list[Frame]]:
    frames, runs = encode(welcome), welcome.runs
    if len(frames[1]) <= MAX_HEADER_BYTES or len(runs) < 2:
        yield frames
        return
    middle = len(runs) // 2
    yield from _fitting(msgspec.structs.replace(welcome, runs=runs[:middle], more=True))
    yield from _fitting(msgspec.structs.replace(welcome, runs=runs[middle:]))
