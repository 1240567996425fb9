"""The gateway's two sockets: XPUB for what is live, ROUTER for catch-up. Nothing here blocks."""

import errno
import logging
from typing import NamedTuple

import zmq

from dtolbus.bounds import fits
from dtolbus.connecting import CURVE_BYTES
from dtolbus.errors import CannotStartError
from dtolbus.keyring import KeyRing
from dtolbus.wire import MAX_FRAMES, MAX_HEADER_BYTES, Frame
from dtolbus_producer.access import Caller
from dtolbus_producer.addresses import bind_address, reached_at
from dtolbus_producer.admission import room_left
from dtolbus_producer.binding import Binding, Bound, bind
from dtolbus_producer.door import Door
from dtolbus_producer.memory import MemoryWatch
from dtolbus_producer.ports import not_here
from dtolbus_producer.publishing import QUEUED, SUBSCRIPTIONS_QUEUED, TOPIC_BYTES, Publisher
from dtolbus_producer.serving import ClientGoneError
from dtolbus_producer.strangers import check_strangers

log = logging.getLogger(__name__)

_COPY_BELOW_BYTES = 64 * 1024
_REQUESTS_QUEUED = 64
"""For each client; one may have the size of a header."""
_LINGER_MS = 500
_CUT_WAIT_S = 0.005
_REST_S = 1.0


class Request(NamedTuple):
    """What a client sent."""

    client: bytes
    """Its routing id."""
    address: str
    frames: list[Frame]
    caller: Caller | None = None
    """Whose key it has; None where none is asked for."""


class GatewaySockets:
    """Binds both ports; with a key ring whoever is not allowed by it stays out.

    `memory` tells when peers take too much of the process's, which is the gateway's alone then; it is closed with this.
    Raises CannotStartError where a port is in use, the host is no address of this machine, or the keys fail.
    """

    def __init__(
        self,
        host: str,
        pub_port: int,
        catchup_port: int,
        ring: KeyRing | None = None,
        memory: MemoryWatch | None = None,
    ) -> None:
        address = bind_address(host)
        self._context = zmq.Context()
        self._memory = memory
        self._door: Door | None = None
        self._is_crowd_told = self._is_memory_told = False
        try:
            self._door = None if ring is None else Door(self._context, ring)
            self._pub = Publisher(lambda: self._bound(zmq.XPUB, address, pub_port, "--pub-port"))
            self._router = Binding(lambda: self._bound(zmq.ROUTER, address, catchup_port, "--catchup-port"))
            if self._door is not None:
                live, catchup = (f"tcp://{reached_at(host)}:{port}" for port in (pub_port, catchup_port))
                check_strangers(live, catchup, self._door.keys.public, self._door.answer)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def close(self) -> None:
        """Close both; what was just published has half a second to leave."""
        if self._memory is not None:
            self._memory.close()
        self._pub.close(_LINGER_MS)
        self._router.close(_LINGER_MS)
        if self._door is not None:
            self._door.close()
        self._context.term()

    def wait(self, timeout_s: float, *, for_requests: bool = True, also: int | None = None) -> bool:
        """Return whether a request is there: when one is, when the descriptor `also` can be read, or after the time.

        Where requests are not waited for, that is a short one.
        """
        router = self._router.socket if for_requests else None
        poller = zmq.Poller()
        if also is not None:
            poller.register(also, zmq.POLLIN)
        if router is None:
            timeout_s = min(timeout_s, _CUT_WAIT_S)
        else:
            poller.register(router, zmq.POLLIN)
            if self._door is not None:
                poller.register(self._door.asked, zmq.POLLIN)
        ready = dict(poller.poll(round(timeout_s * 1000)))
        if self._door is not None:
            self._door.answer()
        return router in ready

    def publish(self, frames: list[Frame]) -> None:
        """Send to all who subscribed; those who are behind by more than the mark miss it.

        What no receiver takes is left out: one oversize frame would silence them for ever.
        """
        size = sum(map(len, frames))
        if size <= MAX_HEADER_BYTES or fits(frames):
            self._pub.publish(frames, size, copy=size < _COPY_BELOW_BYTES)

    def tend(self, now: float) -> None:
        """Take what subscribers say, and notice which keys are allowed; `now` is monotonic, s.

        Where a key was taken back everybody is cut off: libzmq cannot close one connection. Those who are allowed
        connect again by themselves, and fetch what they missed. Raises CannotStartError where a port is lost.
        """
        if self._door is not None and self._door.look(now):
            log.warning("a key was taken back: everybody has to connect again")
            self._pub.cut(now)
            self._router.cut(now)
        self._bound_peers(now)
        self._pub.tend(now)
        self._router.tend(now)

    def _bound_peers(self, now: float) -> None:
        """Keep newcomers out where there are too many connections; cut everybody off where peers take all there is."""
        room = room_left()
        if room != "free" and not self._is_crowd_told:
            self._is_crowd_told = True
            log.warning("too many connections: nobody new is let in until some end")
        if room == "none" and self._router.socket is not None:
            log.info("no descriptor is left: everybody has to connect again")  # what is left is the journal's then
            self._cut(now)
        if self._memory is not None and self._memory.is_too_much(now, self._pub.queued, _REST_S):
            level = logging.DEBUG if self._is_memory_told else logging.WARNING
            log.log(level, "peers take too much memory: everybody has to connect again")
            self._is_memory_told = True
            self._cut(now)
        for binding in (self._pub, self._router):
            binding.admit(newcomers=room == "free")

    def _cut(self, now: float) -> None:
        self._pub.cut(now, _REST_S)
        self._router.cut(now, _REST_S)

    def send(self, client: bytes, frames: list[Frame]) -> bool:
        """Send to one client; False where it takes nothing now. Raises ClientGoneError."""
        router = self._router.socket
        if router is None:
            raise ClientGoneError
        try:
            small = sum(map(len, frames)) < _COPY_BELOW_BYTES
            router.send_multipart([client, *frames], zmq.NOBLOCK, copy=small)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise ClientGoneError from error
        return True

    def receive(self) -> Request | None:
        """Return the next request; None where there is none now."""
        router = self._router.socket
        if router is None:
            return None
        try:
            part = router.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        parts = [part]
        while part.more:
            part = router.recv(copy=False)
            if len(parts) <= MAX_FRAMES + 1:
                parts.append(part)
        try:
            address = str(part.get("Peer-Address"))
        except zmq.ZMQError:
            address = "unknown"
        caller = None if self._door is None else self._door.caller(part)
        return Request(parts[0].bytes, address, [part.bytes for part in parts[1:]], caller)

    def _bound(self, kind: int, address: str, port: int, option: str) -> Bound:
        socket = self._context.socket(kind)
        largest = TOPIC_BYTES if kind == zmq.XPUB else MAX_HEADER_BYTES
        socket.set(zmq.MAXMSGSIZE, largest + (0 if self._door is None else CURVE_BYTES))
        socket.set(zmq.HANDSHAKE_IVL, 3000)
        socket.set(zmq.SNDHWM, QUEUED)
        socket.set(zmq.RCVHWM, SUBSCRIPTIONS_QUEUED if kind == zmq.XPUB else _REQUESTS_QUEUED)
        socket.set(zmq.IPV6, 0)
        if kind == zmq.ROUTER:
            socket.set(zmq.ROUTER_MANDATORY, 1)
        if self._door is not None:
            self._door.guard(socket)
        try:
            return bind(socket, f"tcp://{address}:{port}")
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise CannotStartError(_why_not(error, address, port, option)) from error


def _why_not(error: zmq.ZMQError, address: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return not_here(address)
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: stop what uses it, or choose another with {option}"
    if error.errno == errno.EACCES:
        return f"port {port} is not allowed for this user: choose one above 1023 with {option}"
    return f"port {port} cannot be had ({error}): choose another with {option}"
