"""The sending end of `wire`: three ways to bring blocks to receivers, with a bounded number on their way."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path as Place
from typing import Protocol

import msgspec
import zmq

from bench.least import Packer
from bench.receiving import COPY_BELOW, EVERY, READY
from dtolbus.keyring import KeyRing
from dtolbus.records import DaqBlock, RunInfo, RunStatus
from dtolbus.wire import Heartbeat, RunRecord, encode
from dtolbus_producer.sockets import GatewaySockets

IN_FLIGHT = 16 << 20
MOST_IN_FLIGHT = 256
"""So many bytes, and blocks, are on their way at most: a socket queues 1000, but learns of what left by 500."""
_PATIENCE_S = 20.0
_START_S = 4.0
"""So much longer for each receiver: a machine that does something else starts them slowly."""


def free_port() -> int:
    """Return a port of the loopback that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Receiver:
    """A process that receives."""

    def __init__(self, how: str, url: str, size: int, keys: Sequence[str] = ()) -> None:
        self._child = subprocess.Popen(  # noqa: S603  # a list of arguments, no shell
            [sys.executable, "-m", "bench.receiving", how, url, str(size), *keys],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._child.stdout is not None  # noqa: S101  # narrows the type, nothing rests on it
        self._fd = self._child.stdout.fileno()
        self.received = 0
        """Blocks, in steps of EVERY."""

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def close(self) -> None:
        assert self._child.stdin is not None  # noqa: S101  # narrows the type, nothing rests on it
        assert self._child.stdout is not None  # noqa: S101  # narrows the type, nothing rests on it
        self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()

    def is_ready(self, timeout_s: float) -> bool:
        """Return whether it said within the time that it hears the publisher."""
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return False
        if os.read(self._fd, 1) != READY:
            raise RuntimeError("the receiver ended at its start")
        return True

    def wait_for(self, blocks: int) -> None:
        """Return once it has received so many blocks. Raises RuntimeError where they do not come."""
        while self.received < blocks:
            if not select.select([self._fd], [], [], _PATIENCE_S)[0]:
                raise RuntimeError(f"{self.received} of {blocks} blocks arrived, then none for {_PATIENCE_S:g} s")
            got = os.read(self._fd, 4096)
            if not got:
                raise RuntimeError(f"the receiver ended after {self.received} of {blocks} blocks")
            self.received += EVERY * len(got)


class Path(Protocol):
    """A way from here to receivers."""

    def send(self, run: RunInfo, block: DaqBlock) -> None: ...

    def greet(self) -> None:
        """Say something, so that receivers hear that they are connected."""


class Ours:
    """The gateway's sockets, each block encoded; with a key ring they ask for keys."""

    def __init__(self, run: RunInfo, port: int, ring: KeyRing | None = None) -> None:
        self._sockets = GatewaySockets("127.0.0.1", port, free_port(), ring)
        self._greeting = encode(Heartbeat(RunStatus(msgspec.structs.replace(run, run_id="greeting"), "running", 0, 0)))

    def send(self, run: RunInfo, block: DaqBlock) -> None:
        self._sockets.publish(encode(RunRecord(run, block)))

    def greet(self) -> None:
        self._sockets.tend(time.monotonic())
        self._sockets.wait(0.0)
        self._sockets.publish(self._greeting)

    def close(self) -> None:
        self._sockets.close()


class Bare:
    """pyzmq alone: the frames of one block, encoded beforehand; with a secret key, by CURVE to whoever comes."""

    def __init__(self, run: RunInfo, port: int, block: DaqBlock, secret: bytes | None = None) -> None:
        self._context = zmq.Context()
        self._pub: zmq.Socket[bytes] = self._context.socket(zmq.PUB)
        if secret is not None:
            self._pub.set(zmq.CURVE_SERVER, 1)
            self._pub.set(zmq.CURVE_SECRETKEY, secret)
        self._pub.bind(f"tcp://127.0.0.1:{port}")
        self._frames = encode(RunRecord(run, block))
        self._copy = sum(map(len, self._frames)) < COPY_BELOW

    def send(self, run: RunInfo, block: DaqBlock) -> None:
        self._pub.send_multipart(self._frames, copy=self._copy)

    def greet(self) -> None:
        self._pub.send_multipart(self._frames[:2])

    def close(self) -> None:
        self._pub.close(0)
        self._context.term()


class Least(Bare):
    """pyzmq, and of each block the least that makes it one."""

    def __init__(self, run: RunInfo, port: int, block: DaqBlock) -> None:
        super().__init__(run, port, block)
        self._packer = Packer(run)

    def send(self, run: RunInfo, block: DaqBlock) -> None:
        self._pub.send_multipart([self._frames[0], *self._packer.frames(block)], copy=self._copy)


class Tcp:
    """A stream socket and the codes alone; the kernel bounds what is on its way."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._stream: socket.socket | None = None

    def send(self, run: RunInfo, block: DaqBlock) -> None:
        assert self._stream is not None  # noqa: S101  # narrows the type, nothing rests on it
        assert block.raw_codes is not None  # noqa: S101  # narrows the type, nothing rests on it
        self._stream.sendall(block.raw_codes.data.cast("B"))

    def greet(self) -> None:
        if self._stream is None:
            self._stream, _ = self._listener.accept()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._listener.close()


class Line:
    """A path with its receivers, connected; called, it is a trial that sends `made`."""

    def __init__(self, path: Path, receivers: Sequence[Receiver], run: RunInfo, made: Sequence[DaqBlock]) -> None:
        self._path, self._receivers, self._run, self._made = path, receivers, run, made
        self._size = size_of(made[0])
        self._window = max(2 * EVERY, min(MOST_IN_FLIGHT, IN_FLIGHT // self._size // EVERY * EVERY))
        self._numbers = count()
        self.rates: list[float] = []
        """Of all trials, MB/s."""
        began = time.monotonic()
        for receiver in receivers:
            while not receiver.is_ready(0.01):
                path.greet()
                if time.monotonic() - began > _PATIENCE_S + len(receivers) * _START_S:
                    raise RuntimeError("a receiver heard nothing")

    @property
    def pids(self) -> list[int]:
        """The receivers' processes."""
        return [receiver.pid for receiver in self._receivers]

    def __call__(self) -> float:
        """Send the blocks, and return how fast that was, MB/s, added up over the receivers."""
        run = msgspec.structs.replace(self._run, run_id=f"{self._run.run_id}-{next(self._numbers)}")
        start = [receiver.received for receiver in self._receivers]
        send, window = self._path.send, self._window
        began = time.perf_counter()
        for place, block in enumerate(self._made):
            if place % EVERY == 0 and place >= window:
                self._wait(start, place - window + EVERY)
            send(run, block)
        self._wait(start, len(self._made))
        took_s = time.perf_counter() - began
        self.rates.append(len(self._receivers) * len(self._made) * self._size / took_s / 1e6)
        return self.rates[-1]

    def _wait(self, start: Sequence[int], blocks: int) -> None:
        for receiver, before in zip(self._receivers, start, strict=True):
            receiver.wait_for(before + blocks)


def size_of(block: DaqBlock) -> int:
    """Return the bytes of its codes."""
    assert block.raw_codes is not None  # noqa: S101  # narrows the type, nothing rests on it
    return block.raw_codes.nbytes


@contextlib.contextmanager
def line(
    how: str,
    run: RunInfo,
    made: Sequence[DaqBlock],
    receivers: int = 1,
) -> Iterator[Line]:
    """Give a trial of one way: `ours`, `bare`, both also `-curve`, `least`, `tcp`; what it started ends afterwards."""
    port = free_port()
    keys: list[str] = []
    path: Ours | Bare | Tcp
    with contextlib.ExitStack() as stack:
        if how == "ours":
            path = Ours(run, port)
        elif how == "ours-curve":
            ring = KeyRing(Place(stack.enter_context(tempfile.TemporaryDirectory(prefix="dtolbus-bench-"))))
            keys = [str(ring.new("bench", "read"))]
            path = Ours(run, port, ring)
        elif how == "bare":
            path = Bare(run, port, made[0])
        elif how == "least":
            path = Least(run, port, made[0])
        elif how == "bare-curve":
            public, secret = zmq.curve_keypair()
            keys = [public.decode()]
            path = Bare(run, port, made[0], secret)
        else:
            path = Tcp(port)
        stack.callback(path.close)
        kind = how.removesuffix("-curve")
        started = []
        for _ in range(receivers):
            receiver = Receiver(kind, f"tcp://127.0.0.1:{port}", size_of(made[0]), keys)
            stack.callback(receiver.close)
            started.append(receiver)
        yield Line(path, started, run, made)
