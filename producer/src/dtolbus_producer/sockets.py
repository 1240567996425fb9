"""The gateway's two sockets: XPUB for what is live, ROUTER for catch-up. Nothing here blocks."""

import errno
import ipaddress
from typing import NamedTuple

import zmq

from dtolbus.bounds import fits
from dtolbus.errors import CannotStartError
from dtolbus.wire import MAX_FRAMES, MAX_HEADER_BYTES, Frame
from dtolbus_producer.publishing import SUBSCRIPTIONS_QUEUED, TOPIC_BYTES, Publisher
from dtolbus_producer.serving import ClientGoneError

_COPY_BELOW_BYTES = 64 * 1024
_REQUESTS_QUEUED = 64
"""For each client; one may have the size of a header."""
_LINGER_MS = 500


class Request(NamedTuple):
    """What a client sent."""

    client: bytes
    """Its routing id."""
    address: str
    frames: list[Frame]


class GatewaySockets:
    """Binds both ports on the loopback. Raises CannotStartError where one is in use, or the host is another."""

    def __init__(self, host: str, pub_port: int, catchup_port: int) -> None:
        address = loopback_address(host)
        self._context = zmq.Context()
        try:
            self._pub = Publisher(lambda: self._bound(zmq.XPUB, f"tcp://{address}:{pub_port}", pub_port, "--pub-port"))
            self._router = self._bound(zmq.ROUTER, f"tcp://{address}:{catchup_port}", catchup_port, "--catchup-port")
        except CannotStartError:
            self._context.destroy(linger=0)
            raise

    def close(self) -> None:
        """Close both; what was just published has half a second to leave."""
        self._pub.close(_LINGER_MS)
        self._router.close(linger=_LINGER_MS)
        self._context.term()

    def wait(self, timeout_s: float) -> None:
        """Return when a request is there, or after the time."""
        self._router.poll(round(timeout_s * 1000), zmq.POLLIN)

    def publish(self, frames: list[Frame]) -> None:
        """Send to all who subscribed; those who are behind by more than the mark miss it.

        What no receiver takes is left out: one oversize frame would silence them for ever.
        """
        if fits(frames):
            self._pub.publish(frames, copy=_small(frames))

    def tend(self, now: float) -> None:
        """Take what subscribers say; `now` is monotonic, s. Raises CannotStartError where their port is lost."""
        self._pub.tend(now)

    def send(self, client: bytes, frames: list[Frame]) -> bool:
        """Send to one client; False where it takes nothing now. Raises ClientGoneError."""
        try:
            self._router.send_multipart([client, *frames], zmq.NOBLOCK, copy=_small(frames))
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise ClientGoneError from error
        return True

    def receive(self) -> Request | None:
        """Return the next request; None where there is none now."""
        try:
            part = self._router.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        parts = [part]
        while part.more:
            part = self._router.recv(copy=False)
            if len(parts) <= MAX_FRAMES + 1:
                parts.append(part)
        try:
            address = str(part.get("Peer-Address"))
        except zmq.ZMQError:
            address = "unknown"
        return Request(parts[0].bytes, address, [part.bytes for part in parts[1:]])

    def _bound(self, kind: int, url: str, port: int, option: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.set(zmq.MAXMSGSIZE, TOPIC_BYTES if kind == zmq.XPUB else MAX_HEADER_BYTES)
        socket.set(zmq.HANDSHAKE_IVL, 3000)
        socket.set(zmq.SNDHWM, 1000)
        socket.set(zmq.RCVHWM, SUBSCRIPTIONS_QUEUED if kind == zmq.XPUB else _REQUESTS_QUEUED)
        socket.set(zmq.IPV6, 0)
        if kind == zmq.ROUTER:
            socket.set(zmq.ROUTER_MANDATORY, 1)
        try:
            socket.bind(url)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise CannotStartError(_why_not(error, port, option)) from error
        return socket


def _small(frames: list[Frame]) -> bool:
    return sum(map(len, frames)) < _COPY_BELOW_BYTES


def loopback_address(host: str) -> str:
    """Return the IPv4 loopback address that the host is. Raises CannotStartError for any other."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        if ipaddress.IPv4Address(host).is_loopback:
            return host
    except ipaddress.AddressValueError:
        pass
    raise CannotStartError(
        f"--host {host}: an address that others can reach needs keys, which this version does not have; "
        f"use --host 127.0.0.1 (and an ssh tunnel for other machines)"
    )


def _why_not(error: zmq.ZMQError, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: stop what uses it, or choose another with {option}"
    if error.errno == errno.EACCES:
        return f"port {port} is not allowed for this user: choose one above 1023 with {option}"
    return f"port {port} cannot be had ({error}): choose another with {option}"
