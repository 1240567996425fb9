"""`<data>/keys/`: the gateway's own pair, the pairs made for clients, and the public keys that are allowed."""

import contextlib
import errno
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from dtolbus import files, privatefiles
from dtolbus.errors import CannotStartError, UsageError
from dtolbus.keys import (
    SERVER,
    AllowedKey,
    Keys,
    Role,
    allowed_now,
    check_key_name,
    encode_allowed,
    encode_keys,
    load_keys,
    load_server_keys,
    new_keys,
    new_server_keys,
    read_allowed,
)
from dtolbus.topics import quote, unquote

log = logging.getLogger(__name__)

KEYS_FOLDER = "keys"
_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}
"""Says that this process cannot read now, and nothing of the file."""


class KeyRing:
    """The keys of one data folder, made and taken back. Every method may raise OSError."""

    def __init__(self, data: Path) -> None:
        self.folder = data / KEYS_FOLDER
        self.allowed_folder = self.folder / "allowed"

    @property
    def server_file(self) -> Path:
        """Where the gateway's own pair is."""
        return self.folder / f"{SERVER}.key"

    @property
    def server_public_file(self) -> Path:
        """Where its public key is, to be copied."""
        return self.folder / f"{SERVER}.public"

    def key_file(self, name: str) -> Path:
        """Return where a client's pair is, if it was made here."""
        return self.folder / f"{quote(name)}.key"

    def server(self) -> Keys | None:
        """Return the gateway's own pair; None where there is none. Raises CannotStartError."""
        try:
            return load_server_keys(self.server_file)
        except FileNotFoundError:
            return None

    def made_server(self) -> Keys:
        """Return the gateway's own pair, made where there is none. Raises CannotStartError."""
        if not self.server_file.exists():
            privatefiles.make_folder(self.folder)
            privatefiles.make_folder(self.allowed_folder)
            try:
                privatefiles.create(self.server_file, encode_keys(new_server_keys()))
            except FileExistsError:
                log.debug("another process made the gateway's pair")
        keys = load_server_keys(self.server_file)
        public = f"{keys.public}\n".encode()
        if not _holds(self.server_public_file, public):  # of a pair that was made anew, say
            privatefiles.replace(self.server_public_file, public)
        return keys

    def new(self, name: str, role: Role) -> Path:
        """Make a pair, allow it, and return its file. Raises UsageError where the name has a key already."""
        check_key_name(name)
        if self._is_allowed(name):
            raise UsageError(f"{name!r} has a key already: choose another name, or `dtolbus keys revoke {name}` first")
        server = self.made_server()
        fresh, path = new_keys(name, server.public), self.key_file(name)
        try:
            privatefiles.create(path, encode_keys(fresh))
        except FileExistsError as error:
            raise UsageError(
                f"{path} is there already, and not allowed: `dtolbus keys allow {name}` allows it, `dtolbus keys "
                f"revoke {name}` removes it"
            ) from error
        try:
            self._allow(name, allowed_now(fresh.public, role))
        except OSError:
            path.unlink(missing_ok=True)  # else the name was taken by a key that opens nothing
            raise
        return path

    def allow(self, name: str, public: str | None, role: Role | None) -> AllowedKey:
        """Allow a public key, by default that of the pair made here, and return what is allowed now.

        Without a role it keeps the one it has, or gets `read`. Raises UsageError.
        """
        check_key_name(name)
        server = self.made_server()
        before = self._known(name)
        if public is None:
            public = before.public if before is not None else self._own_public(name)
        if public == server.public:
            raise UsageError("that is the gateway's own public key: make a pair for the client")
        if before is not None and before.public != public:
            raise UsageError(f"{name!r} is allowed with another key: `dtolbus keys revoke {name}` first")
        for other, key in AllowedKeys(self.allowed_folder).read().items():
            if key.public == public and other != name:
                raise UsageError(f"this key is allowed as {other!r} already: `dtolbus keys revoke {other}` first")
        key = allowed_now(public, role or (before.role if before is not None else "read"))
        self._allow(name, key)
        return key

    def revoke(self, name: str) -> bool:
        """Allow a key no longer, and delete its pair where it was made here; return whether there was any of both."""
        check_key_name(name)
        was_there = False
        for path in (self.allowed_folder / quote(name), self.key_file(name)):
            try:
                path.unlink()
                was_there = True
                files.sync_dir(path.parent)  # no power cut lets it in again
            except FileNotFoundError:
                log.debug("not there", extra={"file": str(path)})
        return was_there

    def of_sink(self, name: str) -> Path:
        """Return the key file of a sink of this machine, made and allowed where that is not so.

        One that was taken back is made anew. Raises CannotStartError where the name is a reader's key.
        """
        known, path = self._known(name), self.key_file(name)
        if known is not None and known.role != "sink":
            raise CannotStartError(
                f"the key {name!r} may only read, and a sink of that name is to run: `dtolbus keys allow {name} --role "
                f"sink`, or `dtolbus keys revoke {name}`"
            )
        server = self.made_server()
        if known is not None and path.exists():
            keys = load_keys(path)
            if (keys.public, keys.server) == (known.public, server.public):
                return path
        self.revoke(name)
        return self.new(name, "sink")

    def _allow(self, name: str, key: AllowedKey) -> None:
        privatefiles.make_folder(self.allowed_folder)
        privatefiles.replace(self.allowed_folder / quote(name), encode_allowed(key))

    def _is_allowed(self, name: str) -> bool:
        return (self.allowed_folder / quote(name)).exists()

    def _known(self, name: str) -> AllowedKey | None:
        try:
            return read_allowed(self.allowed_folder / quote(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UsageError(f"{self.allowed_folder / quote(name)} is no allowed key ({error}): remove it") from error

    def _own_public(self, name: str) -> str:
        path = self.key_file(name)
        if not path.exists():
            raise UsageError(f"which key? Give --public, or `dtolbus keys new {name}` makes a pair")
        return load_keys(path).public


class AllowedKeys:
    """The folder of the public keys that are allowed, read again where it changed. Anybody may look at it often."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, int, int]] | None = None
        self._keys: dict[str, AllowedKey] = {}

    def read(self) -> Mapping[str, AllowedKey]:
        """Return the keys by name. A file that is none, or two with one key, let nobody in, and are logged once."""
        try:
            seen = _listed(self._folder)
        except FileNotFoundError:
            seen = {}
        except OSError as error:
            if error.errno in _TRANSIENT:
                return self._keys
            log.warning("allowed keys cannot be listed: nobody is let in", extra={"cause": str(error)})
            seen = {}
        if seen != self._seen:
            self._keys, is_whole = self._read_all(seen)
            self._seen = seen if is_whole else None
        return self._keys

    def _read_all(self, seen: Mapping[str, tuple[int, int, int]]) -> tuple[dict[str, AllowedKey], bool]:
        """Return the keys, and whether each file could be read."""
        keys: dict[str, AllowedKey] = {}
        is_whole = True
        for file in sorted(seen):
            name, path = unquote(file), self._folder / file
            try:
                if quote(name) != file:
                    raise ValueError("no key's file has that name")
                keys[name] = read_allowed(path)
            except OSError as error:
                if error.errno in _TRANSIENT:
                    is_whole = False
                    if name in self._keys:
                        keys[name] = self._keys[name]
                else:
                    _tell(path, str(error))
            except ValueError as error:
                _tell(path, str(error))
        many = {public for public, count in Counter(key.public for key in keys.values()).items() if count > 1}
        for name in [name for name, key in keys.items() if key.public in many]:
            _tell(self._folder / quote(name), "another name has the same key")
            del keys[name]
        return keys, is_whole


def taken_back(before: Mapping[str, AllowedKey], now: Mapping[str, AllowedKey]) -> list[str]:
    """Return whose key is not allowed any more as it was: those are to be cut off. `since` is for people."""
    return [
        name
        for name, key in before.items()
        if name not in now or (now[name].public, now[name].role) != (key.public, key.role)
    ]


def _listed(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what tells a changed file, by file name; those that begin with a dot are being written."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # it was taken back since
                if not entry.name.startswith("."):
                    found[entry.name] = _state(entry)
    return found


def _state(entry: "os.DirEntry[str]") -> tuple[int, int, int]:
    """Return what changes with a file; nothing of one that cannot be looked at, which is told when it is read."""
    try:
        state = os.stat(entry)
    except OSError as error:
        if error.errno in {errno.ENOENT, *_TRANSIENT}:
            raise
        return 0, 0, 0
    return state.st_mtime_ns, state.st_size, state.st_ino


def _holds(path: Path, data: bytes) -> bool:
    try:
        return files.read_start(path, len(data) + 1) == data
    except FileNotFoundError:
        return False


def _tell(path: Path, cause: str) -> None:
    log.warning("not an allowed key: nobody is let in with it", extra={"file": str(path), "cause": cause})
