"""Who is let in: CURVE on every socket, and an allow-list that libzmq asks (ZAP) about every connection."""

import logging
from collections.abc import Mapping

import zmq

from dtolbus.errors import CannotStartError
from dtolbus.keyring import AllowedKeys, KeyRing, taken_back
from dtolbus.keys import AllowedKey, Keys, check_curve, raw_key
from dtolbus.privatefiles import check_folder
from dtolbus_producer.access import Caller

log = logging.getLogger(__name__)

_ZAP = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_DOMAIN = b"dtolbus"
_LOOK_S = 0.5
_REQUESTS = 64
"""Answered before the gateway goes on."""


class Door:
    """Answers libzmq's questions in the gateway's own loop, from the folder of allowed keys.

    Where nobody answers, nobody gets in: the domain is enforced on every socket. Raises CannotStartError where there is
    no pair of the gateway, or others than its owner can change who is allowed.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", ring: KeyRing) -> None:
        check_curve()
        self.keys = _own(ring)
        self._folder = AllowedKeys(ring.allowed_folder)
        self._allowed: Mapping[str, AllowedKey] = self._folder.read()
        self._names = _by_public(self._allowed)
        self._looked_at = 0.0
        if not self._allowed:
            log.warning("no key is allowed yet: `dtolbus keys new NAME` makes one", extra={"folder": str(ring.folder)})
        self.asked: zmq.Socket[bytes] = context.socket(zmq.REP)
        """Where libzmq asks."""
        self.asked.set(zmq.LINGER, 0)
        self.asked.bind(_ZAP)

    def guard(self, socket: "zmq.Socket[bytes]") -> None:
        """Have the socket talk to nobody who is not allowed; to be called before it is bound."""
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_PUBLICKEY, self.keys.public.encode())
        socket.set(zmq.CURVE_SECRETKEY, self.keys.secret.reveal().encode())
        socket.set(zmq.ZAP_DOMAIN, _DOMAIN)
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def answer(self) -> None:
        """Say of those who ask to come in whether they may."""
        for _ in range(_REQUESTS):
            try:
                request = self.asked.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            name = self._name_of(request)
            number = request[1] if len(request) > 1 else b""
            said = (b"400", b"not allowed", b"") if name is None else (b"200", b"OK", name.encode())
            self.asked.send_multipart([_VERSION, number, *said, b""])

    def look(self, now: float) -> bool:
        """Look, twice a second, who is allowed; return whether a key was taken back. `now` is monotonic, s."""
        if now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        before, self._allowed = self._allowed, self._folder.read()
        if before is self._allowed:
            return False
        self._names = _by_public(self._allowed)
        gone = taken_back(before, self._allowed)
        log.info("allowed keys changed", extra={"allowed": len(self._allowed), "taken_back": ", ".join(gone)})
        return bool(gone)

    def caller(self, part: zmq.Frame) -> Caller:
        """Return whose key the connection has by which a part of a message came."""
        try:
            name = str(part.get("User-Id"))
        except zmq.ZMQError:
            name = ""
        key = self._allowed.get(name)
        return Caller(name, None if key is None else key.role)

    def close(self) -> None:
        """Let nobody in any more."""
        self.asked.close(linger=0)

    def _name_of(self, request: list[bytes]) -> str | None:
        """Return the name of the key that asks; None where it is not allowed, or no key at all."""
        if len(request) != 7 or request[0] != _VERSION or request[2] != _DOMAIN or request[5] != b"CURVE":
            return None
        return self._names.get(request[6])


def _by_public(allowed: Mapping[str, AllowedKey]) -> dict[bytes, str]:
    return {raw_key(key.public): name for name, key in allowed.items()}


def _own(ring: KeyRing) -> Keys:
    try:
        keys = ring.server()
        if keys is not None:
            for folder in (ring.folder, ring.allowed_folder):
                check_folder(folder)
            return keys
    except OSError as error:
        raise CannotStartError(f"{error.filename}: the keys cannot be read: {error.strerror or error}") from error
    data = ring.folder.parent
    raise CannotStartError(
        f"an address that others can reach needs keys, and {data} has none: `dtolbus keys new NAME --data {data}` "
        f"makes one for each client; or --host 127.0.0.1, for this machine alone"
    )
