"""Peers that mean no good, on plain sockets, against the ports of a gateway on this machine.

`python -m tests.faults.hostile NAME TARGET SECONDS` is one attack, in a process of its own; TARGET is JSON. It says at
its end how long it worked, s.
"""

import contextlib
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from dtolbus import wire
from dtolbus.wire import Credit, Fetch, Hello, Message

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
SUB, DEALER = b"SUB", b"DEALER"
PEERS = 6
_PATIENCE = 3
"""So many connections that nobody answers."""
_MOST_HELD = 500
"""Connections to each port."""


class Target(msgspec.Struct, frozen=True):
    """A gateway, and a run that it serves."""

    live: int
    """Its ports."""
    catchup: int
    device: str
    task: str
    run_id: str
    server: str = ""
    """Its public key, where it asks for keys."""

    @property
    def ports(self) -> tuple[int, int]:
        """Both."""
        return self.live, self.catchup


Wait = Callable[[float], object]
"""What is done while connections are held, told for how many seconds."""
Attack = Callable[[Target, float, Wait], object]


def _frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | 2,)) + len(body).to_bytes(8, "big") + body


def _ready(kind: bytes) -> bytes:
    return _frame(b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind, flags=4)


def _message(frames: Iterable[bytes]) -> bytes:
    parts = [bytes(frame) for frame in frames]
    return b"".join(_frame(part, flags=int(part is not parts[-1])) for part in parts)


def _message_of(message: Message) -> bytes:
    return _message(bytes(frame) for frame in wire.encode(message))


def foreign(rng: random.Random) -> list[bytes]:
    """What other programs, old ones and broken ones say first; after some the peer waits for ever."""
    hello = _GREETING + _ready(b"DEALER")
    huge = b"\x02" + (4 << 30).to_bytes(8, "big") + bytes(1000)
    return [
        b"GET / HTTP/1.1\r\nHost: daq-pc\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),
        rng.randbytes(3000),
        b"\x01\x00",
        b"\xff" + bytes(8) + b"\x7f\x01\x05",
        b"\xff" + bytes(8) + b"\x7f\x01\x02\x00\x00",
        _GREETING[:11],
        _GREETING,
        _GREETING + huge,
        hello + huge,
        _GREETING + _ready(b"SUB") + huge,
        _GREETING + _ready(b"PAIR"),
        _GREETING + _ready(b"X" * 250),
    ]


@contextlib.contextmanager
def crowd(port: int, count: int, says: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that say this and stay: text, or a kind of socket, whose handshake they make.

    Fewer where no more can be had, or nobody answers any more.
    """
    if says in (SUB, DEALER):
        says = _GREETING + _ready(says)
    with contextlib.ExitStack() as held:
        made: list[socket.socket] = []
        unanswered = 0
        for _ in range(count):
            try:
                one = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1.0))
            except OSError as error:
                unanswered += isinstance(error, TimeoutError)
                if unanswered == _PATIENCE:
                    break
                continue
            made.append(one)
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.send(says)
        yield made


def flood(port: int, kind: bytes, messages: Iterator[bytes], seconds: float, peers: int, *, reads: bool = True) -> int:
    """Send the messages as fast as they are taken, by turns on so many connections; return the number of bytes.

    A connection that the gateway closes or refuses is made anew.
    """
    sent = 0
    links: dict[socket.socket, bytes] = {}
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if len(links) < peers:
                with contextlib.suppress(OSError):
                    link = socket.create_connection(("127.0.0.1", port), timeout=1.0)
                    link.setblocking(False)
                    links[link] = _GREETING + _ready(kind)
            readable, writable, _ = select.select(links, links, [], 0.01)
            for link in {*readable, *writable}:
                try:
                    if reads and link in readable and not link.recv(1 << 20):
                        raise ConnectionResetError
                    if link in writable:
                        links[link] = links[link] or b"".join(next(messages) for _ in range(500))
                        count = link.send(links[link])
                        links[link] = links[link][count:]
                        sent += count
                except BlockingIOError:
                    pass
                except OSError:
                    link.close()
                    del links[link]
    finally:
        for link in links:
            link.close()
    return sent


def topics(rng: random.Random, size: int) -> Iterator[bytes]:
    """Topics without end, no two alike."""
    while True:
        yield _frame(b"\x01" + rng.randbytes(rng.randrange(size)))


def fetch_requests(device: str, task: str, run_id: str) -> Iterator[bytes]:
    """Fetches, each for everything, with more credit than there are records."""
    number = 0
    while True:
        number += 1
        yield _message_of(Fetch(device, task, run_id, 0, 1 << 40, number)) + _message_of(Credit(1 << 30, number))


def nameless() -> Iterator[bytes]:
    """Nameless ones."""
    while True:
        yield _message_of(Hello(worker=""))


def damaged(rng: random.Random) -> Iterator[bytes]:
    """Requests with a flipped bit, and frames of nothing that is known."""
    topic, header = (bytes(frame) for frame in wire.encode(Hello(worker="somebody")))
    while True:
        flipped = bytearray(header)
        flipped[rng.randrange(len(header))] ^= 1 << rng.randrange(8)
        yield _message([topic, bytes(flipped)])
        yield _message(rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 9)))


def strangers(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Come and go, saying something else."""
    end = time.monotonic() + seconds
    seed = 0
    while time.monotonic() < end:
        for said in foreign(random.Random(seed)):
            for port in target.ports:
                with crowd(port, 1, said):
                    pass
        seed += 1


def handshakes_that_stop(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Begin in every way that leads nowhere, and stay."""
    with contextlib.ExitStack() as held:
        for said in foreign(random.Random(1)):
            for port in target.ports:
                held.enter_context(crowd(port, min(_MOST_HELD // 10, round(10 * seconds)), said))
        wait(seconds)


def crowds(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Connect properly, by hundreds, and stay."""
    count = min(_MOST_HELD, round(100 * seconds))
    with crowd(target.live, count, SUB), crowd(target.catchup, count, DEALER):
        wait(seconds)


def subscriptions(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Subscribe to short, long and too long topics without end."""
    for size in (60, 500, 50_000):
        flood(target.live, SUB, topics(random.Random(size), size), seconds / 3, PEERS)


def fetches(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Ask for everything again and again, and take it; then without taking it."""
    for reads in (True, False):
        asked = fetch_requests(target.device, target.task, target.run_id)
        flood(target.catchup, DEALER, asked, seconds / 2, PEERS, reads=reads)


def hellos(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Say Hello without end, and take the answers; then without taking them."""
    for reads in (True, False):
        flood(target.catchup, DEALER, nameless(), seconds / 2, PEERS, reads=reads)


def damaged_requests(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Send what cannot be read."""
    flood(target.catchup, DEALER, damaged(random.Random(1)), seconds, PEERS)


def nothing_but_work(target: Target, seconds: float, wait: Wait = time.sleep) -> None:
    """Attack nobody, and take a core: what an attacker on the same machine costs by that alone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (strangers, handshakes_that_stop, crowds, subscriptions, fetches, hellos, damaged_requests)
}


@contextlib.contextmanager
def attacking(name: str, target: Target, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """Attack by a process of its own, which does not share its interpreter with whoever measures."""
    words = [name, msgspec.json.encode(target).decode(), str(seconds)]
    command = [sys.executable, "-m", "tests.faults.hostile", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def main(name: str, target: str, seconds: str) -> None:
    """Attack, and say how long that worked."""
    from tests.faults import hostile_keys  # it builds on this module

    attacks: dict[str, Attack] = {**ATTACKS, **hostile_keys.ATTACKS, nothing_but_work.__name__: nothing_but_work}
    attacks[name](msgspec.json.decode(target, type=Target), float(seconds), time.sleep)
    sys.stdout.write(f"{time.process_time()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
