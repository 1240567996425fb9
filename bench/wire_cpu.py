"""What a block costs the threads that publish and receive it, beside what it costs pyzmq alone."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import xxhash
import zmq

from bench.cpu import Cpu, cpu_us
from bench.receiving import COPY_BELOW
from bench.sending import Bare, Ours, free_port, size_of
from dtolbus.records import DaqBlock, RunInfo
from dtolbus.sequencer import Arrived
from dtolbus.subscriber import Subscriber
from dtolbus.wire import RunRecord, decode, encode

_TRIES = 5
_MOST = 300
"""Blocks at a time: no socket drops any of them."""
_MOST_BYTES = 16 << 20
_PATIENCE_MS = 5000


def in_words(run: RunInfo, made: Sequence[DaqBlock]) -> str:
    """Return what the two threads work for a block; libzmq's own threads come on top, with us and without."""
    made = made[: max(1, min(_MOST, _MOST_BYTES // size_of(made[0])))]
    publish, receive = _ours(run, made)
    bare_publish, bare_receive, bare_checked = _bare(run, made)
    record = RunRecord(run, made[0])
    frames = encode(record)
    encoding = cpu_us(lambda: [encode(record) for _ in made], len(made))
    decoding = cpu_us(lambda: [decode(frames) for _ in made], len(made))
    return (
        f"CPU of a block, µs: to publish {publish:.1f} (pyzmq {bare_publish:.1f}), of which encoding {encoding:.1f}; "
        f"to receive {receive:.1f} ({bare_receive:.1f}, and {bare_checked:.1f} with a checksum of its frames), "
        f"of which decoding {decoding:.1f} where the frames are in the processor's cache"
    )


def _ours(run: RunInfo, made: Sequence[DaqBlock]) -> tuple[float, float]:
    publish, receive, port = Cpu(len(made)), Cpu(len(made)), free_port()
    path = Ours(run, port)
    with contextlib.closing(path), Subscriber(f"tcp://127.0.0.1:{port}") as subscriber:
        while subscriber.heard_at is None:
            path.greet()
            subscriber.receive(0.02)
        for number in range(_TRIES):
            this = msgspec.structs.replace(run, run_id=f"{run.run_id}-{number}")
            with publish:
                for block in made:
                    path.send(this, block)
            time.sleep(0.2)  # all of it lies at the receiver: what it waits for would count neither way
            with receive:
                _take(subscriber, len(made))
    return publish.us, receive.us


def _take(subscriber: Subscriber, blocks: int) -> None:
    while blocks > 0:
        blocks -= sum([isinstance(item, Arrived) for item in subscriber.receive(_PATIENCE_MS / 1000)])


def _bare(run: RunInfo, made: Sequence[DaqBlock]) -> tuple[float, float, float]:
    publish, receive, checked, port = Cpu(len(made)), Cpu(len(made)), Cpu(len(made)), free_port()
    path = Bare(run, port, made[0])
    with contextlib.closing(path), _subscribed(port) as socket:
        while not socket.poll(20):
            path.greet()
        while socket.poll(20):
            socket.recv_multipart()
        take: Callable[[], Sequence[Any]] = socket.recv_multipart
        if size_of(made[0]) >= COPY_BELOW:
            take = partial(socket.recv_multipart, copy=False)
        for number in range(2 * _TRIES):
            with publish:
                for block in made:
                    path.send(run, block)
            time.sleep(0.2)
            if number % 2:
                with checked:
                    for _ in made:
                        _check(take())
            else:
                with receive:
                    for _ in made:
                        take()
    return publish.us, receive.us, checked.us


def _check(frames: Sequence[Any]) -> None:
    """Work out what every receiver has to: it reads each byte once, as the least that can be done."""
    digest = xxhash.xxh3_64()
    for frame in frames:
        digest.update(frame)


@contextlib.contextmanager
def _subscribed(port: int) -> "Iterator[zmq.Socket[bytes]]":
    context = zmq.Context()
    socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
    socket.connect(f"tcp://127.0.0.1:{port}")
    socket.subscribe(b"")
    try:
        yield socket
    finally:
        socket.close(0)
        context.term()
