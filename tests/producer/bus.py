"""A gateway to test with: on a thread, and plain sockets to talk to it."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from dtolbus.client import Endpoints
from dtolbus.connecting import use_keys
from dtolbus.keys import Keys
from dtolbus.wire import Credit, Fetch, Hello, Message, RunGap, RunRecord, Welcome, decode, encode
from dtolbus_producer.gateway import serve

TIMEOUT_S = 20.0


def free_ports(count: int = 2) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class RunningGateway:
    """Serves a data folder on a thread until the `with` block is left."""

    def __init__(self, data: Path, ports: Sequence[int] = (), **settings: Any) -> None:
        self.data = data
        self._settings = settings
        self.pub_port, self.catchup_port = ports or free_ports()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def endpoints(self) -> Endpoints:
        """What to tell a worker."""
        return self.endpoints_for(None)

    def endpoints_for(self, keys: Keys | None) -> Endpoints:
        """What to tell a worker that has these keys."""
        return Endpoints(f"tcp://127.0.0.1:{self.pub_port}", f"tcp://127.0.0.1:{self.catchup_port}", keys=keys)

    def _serve(self) -> None:
        try:
            at = {"host": "127.0.0.1", "pub_port": self.pub_port, "catchup_port": self.catchup_port}
            serve(self.data, stop=self._stop, **{**at, **self._settings})
        except BaseException as error:
            self._failure = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        if self._failure is not None and error is None:
            raise self._failure

    @contextlib.contextmanager
    def client(self, keys: Keys | None = None, routing_id: bytes = b"") -> Iterator["Peer"]:
        with peer(zmq.DEALER, self.catchup_port, keys, routing_id) as dealer:
            yield dealer

    @contextlib.contextmanager
    def subscriber(self, *topics: str, keys: Keys | None = None) -> Iterator["Peer"]:
        with peer(zmq.SUB, self.pub_port, keys) as sub:
            for topic in topics or ("",):
                sub.socket.subscribe(topic)
            yield sub


class Peer:
    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self.socket = socket

    def send(self, message: Message) -> None:
        self.socket.send_multipart(encode(message))

    def next(self) -> Message:
        assert self.socket.poll(TIMEOUT_S * 1000), "nothing came"
        return decode(self.socket.recv_multipart())

    def until(self, is_it: Callable[[Message], bool]) -> list[Message]:
        """Return everything up to and with the first message that is it."""
        found = [self.next()]
        while not is_it(found[-1]):
            found.append(self.next())
        return found

    def hello(self, **fields: object) -> Welcome:
        self.send(Hello(**{"worker": "", **fields}))  # type: ignore[arg-type]
        answer = self.next()
        assert isinstance(answer, Welcome)
        return answer

    def fetch(self, request: Fetch) -> list[Message]:
        self.ask(request)
        return self.until(lambda m: not isinstance(m, RunRecord | RunGap))

    def ask(self, request: Fetch, credit: int = 1 << 20) -> None:
        self.send(request)
        self.send(Credit(credit, request.number))


@contextlib.contextmanager
def peer(kind: int, port: int, keys: Keys | None = None, routing_id: bytes = b"") -> Iterator[Peer]:
    context = zmq.Context()
    socket = context.socket(kind)
    if keys is not None:
        use_keys(socket, keys)
    if routing_id:
        socket.set(zmq.ROUTING_ID, routing_id)
    socket.connect(f"tcp://127.0.0.1:{port}")
    try:
        yield Peer(socket)
    finally:
        socket.close(linger=0)
        context.term()


def eventually(is_so: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.01)
