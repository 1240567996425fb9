"""CURVE keys as values and as files: what a client holds, and what a gateway allows. No secret shows in any text."""

import re
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq

from dtolbus import files, privatefiles
from dtolbus.errors import CannotStartError, UsageError
from dtolbus.topics import name_fault

Role = Literal["read", "sink"]
"""`read`: subscribe and fetch; `sink`: also register and acknowledge, under the key's own name."""

SERVER = "server"
"""The gateway's own pair has this name, and no client."""
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_KEY = re.compile(rf"[{re.escape(_Z85)}]{{40}}")
_LARGEST_BYTES = 4096
_SHOWN = 8


class Secret:
    """A secret key. It is had by `reveal` alone: no repr, log line, traceback or encoder shows it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the key, 40 characters of Z85."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not copied out of its process")


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pair, and for a client the public key of the server that it is meant for. `<NAME>.key` holds it as JSON."""

    name: str
    public: str
    """40 characters of Z85."""
    secret: Secret
    server: str = ""
    """The server's public key; empty where the pair was made without it."""


class AllowedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A public key that a gateway lets in. `allowed/<NAME>` holds it as JSON; the file's name is the key's."""

    public: str
    role: Role = "read"
    since_utc: str = ""
    """ISO 8601, for people."""

    def line(self, name: str) -> tuple[str, ...]:
        """Return what a list shows of it."""
        return (name, self.role, f"{self.public[:_SHOWN]}…", self.since_utc[:19].replace("T", " "))


def new_keys(name: str, server: str = "") -> Keys:
    """Return a fresh pair. Raises UsageError for a name that no file can have, CannotStartError without CURVE."""
    check_key_name(name)
    return _fresh(name, server)


def new_server_keys() -> Keys:
    """Return a fresh pair for a gateway. Raises CannotStartError without CURVE."""
    return _fresh(SERVER)


def _fresh(name: str, server: str = "") -> Keys:
    check_curve()
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return Keys(name=name, public=public, secret=Secret(secret), server=server)


def allowed_now(public: str, role: Role) -> AllowedKey:
    """Return what stands in the file of a key that is allowed from now on."""
    return AllowedKey(public=public, role=role, since_utc=datetime.now(UTC).isoformat(timespec="seconds"))


def check_key_name(name: str) -> None:
    """Raise UsageError where a client's key cannot have the name."""
    fault = name_fault(name)
    if not fault and name.casefold() == SERVER:
        fault = f"{name!r} is the gateway's own: choose another name"
    if fault:
        raise UsageError(f"the key's name: {fault}")


def check_curve() -> None:
    """Raise CannotStartError where this libzmq has no CURVE."""
    if not zmq.has("curve"):
        raise CannotStartError("this machine's libzmq has no CURVE: pip install --force-reinstall pyzmq")


def is_key(text: str) -> bool:
    """Return whether the text is a key's 32 bytes in Z85."""
    if _KEY.fullmatch(text) is None:
        return False
    groups = (text[start : start + 5] for start in range(0, len(text), 5))
    return all(_number(group) < 2**32 for group in groups)


def raw_key(text: str) -> bytes:
    """Return the 32 bytes of a key that is one."""
    return b"".join(struct.pack(">I", _number(text[start : start + 5])) for start in range(0, len(text), 5))


def public_key(text: str, what: str) -> str:
    """Return the public key that a text is, or that is in the file it names: alone, or of a pair.

    Raises UsageError, which begins with `what`.
    """
    if is_key(text):
        return text
    path = Path(text)
    try:
        data = files.read_start(path, _LARGEST_BYTES)
    except OSError as error:
        raise UsageError(f"{what} {text}: neither a key of 40 characters nor a file ({error.strerror})") from error
    found = data.decode(errors="replace").strip()
    if is_key(found):
        return found
    try:
        return decode_keys(data, text).public
    except CannotStartError as error:
        raise UsageError(f"{what} {text}: there is no public key in this file") from error


def load_keys(path: Path, server: str | None = None) -> Keys:
    """Return the pair in a client's key file; `server` (a key or a file) is the server's, in the place of the file's.

    Raises CannotStartError where there is none, others can read it, or no server's key is known.
    """
    keys = _loaded(path)
    if server:
        keys = msgspec.structs.replace(keys, server=public_key(server, "--server-key"))
    if not keys.server:
        raise CannotStartError(
            f"{path} says no server's key: give --server-key, which is `keys/{SERVER}.public` in the gateway's data "
            f"folder"
        )
    return keys


def load_server_keys(path: Path) -> Keys:
    """Return the gateway's own pair. Raises CannotStartError as `load_keys`, FileNotFoundError where there is none."""
    return _loaded(path, is_server=True)


def _loaded(path: Path, *, is_server: bool = False) -> Keys:
    check_curve()
    try:
        data = privatefiles.read(path, _LARGEST_BYTES)
    except FileNotFoundError as error:
        if is_server:
            raise
        raise CannotStartError(f"there is no key file {path}: `dtolbus keys new NAME` makes one") from error
    except OSError as error:
        raise CannotStartError(f"the key file {path} cannot be read: {error.strerror or error}") from error
    keys = decode_keys(data, str(path))
    if (keys.name == SERVER) != is_server:
        whose = "the gateway's own, which stays with it" if keys.name == SERVER else f"a client's, {keys.name!r}"
        raise CannotStartError(f"{path}: this pair is {whose}")
    return keys


def decode_keys(data: bytes, source: str) -> Keys:
    """Return the pair that a file's content is. Raises CannotStartError, which begins with `source`."""
    what = f"{source} is not a key file of dtolbus"
    try:
        keys = msgspec.json.decode(data, type=Keys, dec_hook=_as_secret)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise CannotStartError(f"{what}: {error}; copy it again, or make another key") from error
    if name_fault(keys.name):
        raise CannotStartError(f"{what}: {name_fault(keys.name)}")
    for field, text in (("public", keys.public), ("secret", keys.secret.reveal()), ("server", keys.server or "0" * 40)):
        if not is_key(text):
            raise CannotStartError(f"{what}: {field} is no key of 40 characters; copy it again, or make another key")
    if zmq.curve_public(keys.secret.reveal().encode()).decode() != keys.public:
        raise CannotStartError(f"{what}: its secret is not that of its public key; copy it again, or make another key")
    return keys


def encode_keys(keys: Keys) -> bytes:
    """Return the content of a key file, which is secret."""
    plain = {field: getattr(keys, field) for field in keys.__struct_fields__} | {"secret": keys.secret.reveal()}
    return msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"


def decode_allowed(data: bytes) -> AllowedKey:
    """Return what an allowed key's file says. Raises ValueError where it is none."""
    found = msgspec.json.decode(data, type=AllowedKey)
    if not is_key(found.public):
        raise ValueError("public is no key of 40 characters")
    return found


def encode_allowed(key: AllowedKey) -> bytes:
    """Return the content of an allowed key's file."""
    return msgspec.json.format(msgspec.json.encode(key), indent=2) + b"\n"


def read_allowed(path: Path) -> AllowedKey:
    """Return what the file of an allowed key says. Raises OSError, and ValueError where it is none."""
    return decode_allowed(files.read_start(path, _LARGEST_BYTES))


def _as_secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("not a text")


def _number(group: str) -> int:
    number = 0
    for letter in group:
        number = number * 85 + _Z85.index(letter)
    return number
