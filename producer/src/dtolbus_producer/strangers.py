"""The gateway's self-test: before it serves anybody, it shows that strangers stay out."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import zmq

from dtolbus.errors import CannotStartError
from dtolbus.handshakes import Handshakes, followed
from dtolbus.keys import Keys, new_keys

_PATIENCE_S = 20.0
"""A machine that does much else may take its time."""
_TURN_S = 0.002


def check_strangers(live: str, catchup: str, server: str, answer: Callable[[], None]) -> None:
    """Knock at both addresses with a key that nobody knows, and without one; `answer` is called meanwhile.

    `server` is the gateway's public key. Raises CannotStartError where one is let in, or nobody answers.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stranger = new_keys("stranger", server)
    doors = ((zmq.SUB, live), (zmq.DEALER, catchup))
    try:
        with ExitStack() as held:
            knocking = [held.enter_context(_knock(context, *door, keys)) for door in doors for keys in (stranger, None)]
            end = time.monotonic() + _PATIENCE_S
            while not all(_is_kept_out(handshakes) for handshakes in knocking):
                if time.monotonic() > end:
                    raise CannotStartError("the self-test of the keys did not end: nobody would be let in; start again")
                answer()
                time.sleep(_TURN_S)
    finally:
        context.term()


@contextmanager
def _knock(context: "zmq.Context[zmq.Socket[bytes]]", kind: int, url: str, keys: Keys | None) -> Iterator[Handshakes]:
    socket, handshakes = followed(context, kind, url, keys=keys)
    try:
        yield handshakes
    finally:
        handshakes.close()
        socket.close(linger=0)


def _is_kept_out(handshakes: Handshakes) -> bool:
    handshakes.look()
    if handshakes.seen.succeeded:
        raise CannotStartError(
            "the self-test of the keys failed: a stranger is let in; nothing is served. This is a fault of dtolbus, or "
            "of this machine's libzmq: pip install --force-reinstall pyzmq"
        )
    return handshakes.seen.is_given_up
