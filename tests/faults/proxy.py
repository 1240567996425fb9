"""A bad network: a ZeroMQ proxy that drops, doubles, delays and damages what a gateway publishes."""

import random
import threading
from collections import Counter
from types import TracebackType
from typing import Self

import zmq

_POLL_MS = 20


class LossyProxy:
    """Stands between a gateway's PUB and its subscribers, on a thread, until the `with` block is left.

    Of a hundred messages it drops twenty, sends ten twice, lets one to eight others overtake ten, and cuts off the end
    of five. A delayed message never reaches who the proxy ends on. `done` counts what it did.
    """

    def __init__(self, pub_port: int, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._late: list[tuple[int, list[bytes]]] = []
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._sub = self._context.socket(zmq.SUB)
        self._sub.subscribe(b"")
        self._sub.connect(f"tcp://127.0.0.1:{pub_port}")
        self._pub = self._context.socket(zmq.PUB)
        self.port = self._pub.bind_to_random_port("tcp://127.0.0.1")
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        for socket in (self._sub, self._pub):
            socket.close(linger=0)
        self._context.term()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._sub.poll(_POLL_MS):
                self._pass_on(self._sub.recv_multipart())

    def _pass_on(self, frames: list[bytes]) -> None:
        (fate,) = self._random.choices(
            ("dropped", "doubled", "delayed", "damaged", "passed"), weights=(20, 10, 10, 5, 55)
        )
        self.done[fate] += 1
        if fate == "delayed":
            self._late.append((self._random.randint(1, 8), frames))
            return
        if fate == "damaged":
            frames = [*frames[:-1], frames[-1][: self._random.randrange(len(frames[-1]))]] if frames[-1] else frames
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
