"""A bad network: ZeroMQ proxies that drop, double, delay and damage what passes between a gateway and its clients."""

import random
import threading
from collections import Counter
from types import TracebackType
from typing import Self

import zmq

_POLL_MS = 20


class _Proxy:
    """Passes messages on, on a thread, until the `with` block is left; `done` counts what it did to them."""

    def __init__(self, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.random = random.Random(seed)
        self.context = zmq.Context()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.context.destroy(linger=0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.pass_some()

    def pass_some(self) -> None:
        raise NotImplementedError

    def damaged(self, frames: list[bytes]) -> list[bytes]:
        """Return the frames with one bit flipped, or with the end of one cut off."""
        number = self.random.choice([number for number, frame in enumerate(frames) if frame])
        frame = bytearray(frames[number])
        at = self.random.randrange(len(frame))
        if self.random.random() < 0.7:
            self.done["flipped"] += 1
            frame[at] ^= 1 << self.random.randrange(8)
        else:
            self.done["cut"] += 1
            del frame[at:]
        return [*frames[:number], bytes(frame), *frames[number + 1 :]]


class LossyProxy(_Proxy):
    """Stands between a gateway's PUB and its subscribers.

    Of a hundred messages it drops twenty, sends ten twice, lets one to eight others overtake ten, and damages five. A
    delayed message never reaches who the proxy ends on.
    """

    def __init__(self, pub_port: int, seed: int) -> None:
        super().__init__(seed)
        self._late: list[tuple[int, list[bytes]]] = []
        self._sub = self.context.socket(zmq.SUB)
        self._sub.subscribe(b"")
        self._sub.connect(f"tcp://127.0.0.1:{pub_port}")
        self._pub = self.context.socket(zmq.PUB)
        self.port = self._pub.bind_to_random_port("tcp://127.0.0.1")

    def pass_some(self) -> None:
        if self._sub.poll(_POLL_MS):
            self._pass_on(self._sub.recv_multipart())

    def _pass_on(self, frames: list[bytes]) -> None:
        (fate,) = self.random.choices(
            ("dropped", "doubled", "delayed", "damaged", "passed"), weights=(20, 10, 10, 5, 55)
        )
        self.done[fate] += 1
        if fate == "delayed":
            self._late.append((self.random.randint(1, 8), frames))
            return
        if fate == "damaged":
            frames = self.damaged(frames)
        for _ in range({"dropped": 0, "doubled": 2}.get(fate, 1)):
            self._pub.send_multipart(frames)
        self._let_late_ones_go()

    def _let_late_ones_go(self) -> None:
        """Send the delayed messages that enough others have overtaken."""
        waiting = [(left - 1, frames) for left, frames in self._late]
        self._late = [(left, frames) for left, frames in waiting if left > 0]
        for left, frames in waiting:
            if left <= 0:
                self._pub.send_multipart(frames)


class LossyCatchUp(_Proxy):
    """Stands between a gateway's ROUTER and its clients, each of which gets a connection of its own to the gateway.

    Of a hundred answers it damages `damaged` and drops `dropped`; of the requests `requests` times as many.
    """

    def __init__(
        self, catchup_port: int, seed: int, *, damaged: float, dropped: float = 0.0, requests: float = 3.0
    ) -> None:
        super().__init__(seed)
        self._shares = {"answered": (dropped, damaged), "asked": (requests * dropped, requests * damaged)}
        self._catchup_port = catchup_port
        self._front = self.context.socket(zmq.ROUTER)
        self.port = self._front.bind_to_random_port("tcp://127.0.0.1")
        self._backs: dict[bytes, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._poller.register(self._front, zmq.POLLIN)

    @property
    def clients(self) -> int:
        """How many connections clients have made."""
        return len(self._backs)

    def pass_some(self) -> None:
        events = dict(self._poller.poll(_POLL_MS))
        if self._front in events:
            client, *frames = self._front.recv_multipart()
            for passed in self._fated(frames, "asked"):
                self._back(client).send_multipart(passed)
        for client, back in self._backs.items():
            if back in events:
                for passed in self._fated(back.recv_multipart(), "answered"):
                    self._front.send_multipart([client, *passed])

    def _back(self, client: bytes) -> "zmq.Socket[bytes]":
        if client not in self._backs:
            self._backs[client] = self.context.socket(zmq.DEALER)
            self._backs[client].connect(f"tcp://127.0.0.1:{self._catchup_port}")
            self._poller.register(self._backs[client], zmq.POLLIN)
        return self._backs[client]

    def _fated(self, frames: list[bytes], way: str) -> list[list[bytes]]:
        dropped, damaged = self._shares[way]
        weights = (dropped, damaged, max(0.0, 100 - dropped - damaged))
        (fate,) = self.random.choices(("dropped", "damaged", "passed"), weights)
        self.done[f"{way} {fate}"] += 1
        return [] if fate == "dropped" else [self.damaged(frames) if fate == "damaged" else frames]
