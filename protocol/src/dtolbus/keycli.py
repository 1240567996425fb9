"""`dtolbus keys`: make, allow, revoke and list the keys of a gateway's clients. No secret is ever printed."""

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dtolbus.cli import Command, command, option
from dtolbus.configfile import data_options
from dtolbus.errors import CannotStartError, UsageError

_ROLES = click.Choice(["read", "sink"])
_WITHIN = "a gateway that runs notices within a second"


class _Group(Command, click.Group):
    """A command with commands below it."""


@click.group("keys", cls=_Group, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Keys of the machines that may reach this gateway over the network."""


@command("new")
@click.argument("name")
@option("--role", type=_ROLES, default="read", help="read: subscribe and fetch; sink: also be the sink NAME.")
@option("--only-pair", is_flag=True, help="Make the pair here, in ./NAME.key, for a gateway on another machine.")
@option("--server-key", metavar="FILE|KEY", help="With --only-pair: the gateway's public key.")
@data_options
def new(data: Path, name: str, role: Any, only_pair: bool, server_key: str | None) -> None:
    """Make a key pair for a client, and allow it."""
    from dtolbus.keyring import KeyRing  # noqa: PLC0415  # --help does without

    if only_pair:
        _say(_only_pair(name, role, server_key))
        return
    if server_key:
        raise UsageError("--server-key goes with --only-pair: here the gateway's own is known")
    with _told():
        ring = KeyRing(data)
        is_first = ring.server() is None
        path = ring.new(name, role)
    _say(_to_do(data, name, role, path))
    if is_first:
        _say(_first(data))


@command("allow")
@click.argument("name")
@option("--public", metavar="FILE|KEY", help="The client's public key.  [default: that of the pair made here]")
@option("--role", type=_ROLES, help="read: subscribe and fetch; sink: also be the sink NAME.  [default: read]")
@data_options
def allow(data: Path, name: str, public: str | None, role: Any) -> None:
    """Allow a client's public key, or give an allowed one another role."""
    from dtolbus.keyring import KeyRing  # noqa: PLC0415  # as above
    from dtolbus.keys import public_key  # noqa: PLC0415  # as above

    with _told():
        ring = KeyRing(_there(data))
        key = ring.allow(name, None if public is None else public_key(public, "--public"), role)
    _say(
        [
            f"allowed: {name!r}, role {key.role}; {_WITHIN}",
            f"the client needs the gateway's public key, which is no secret: {ring.server_public_file} (--server-key)",
        ]
    )


@command("revoke")
@click.argument("name")
@data_options
def revoke(data: Path, name: str) -> None:
    """Allow a key no longer, cut off whoever is connected with it, and delete its pair where it was made here."""
    from dtolbus.keyring import KeyRing  # noqa: PLC0415  # as above

    with _told():
        was_there = KeyRing(_there(data)).revoke(name)
    if not was_there:
        raise UsageError(f"there is no key {name!r} in {data}: see `dtolbus keys list --data {_typed(str(data))}`")
    click.echo(f"revoked: {name!r}; {_WITHIN}, cuts it off, and lets the others in again at once")
    where = f"--data {_typed(str(data.absolute()))}"
    click.echo(
        f"where a sink of that name is registered, it stays so until `dtolbus sinks forget {where} {_last(name)}`"
    )


@command("list")
@data_options
def list_keys(data: Path) -> None:
    """List the keys that are allowed: name, role, how the public key begins, since when."""
    from dtolbus.keyring import AllowedKeys, KeyRing  # noqa: PLC0415  # as above

    with _told():
        ring = KeyRing(_there(data))
        server, allowed = ring.server(), AllowedKeys(ring.allowed_folder).read()
    if server is None:
        click.echo(f"no keys in {data}: `dtolbus keys new NAME` makes the first")
        return
    rows = [("name", "role", "public key", "since (UTC)"), *(key.line(name) for name, key in allowed.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"the gateway's public key: {ring.server_public_file}")


for _made in (new, allow, revoke, list_keys):
    keys.add_command(_made)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn an error of the file system into one line."""
    try:
        yield
    except OSError as error:
        raise CannotStartError(f"{error.filename or 'keys'}: {error.strerror or error}") from error


def _there(data: Path) -> Path:
    """Return the data folder. Raises CannotStartError where there is none: a mistyped one would get keys of its own."""
    if not data.is_dir():
        raise CannotStartError(f"there is no data folder {data}: name the gateway's with --data, or make it first")
    return data


def _only_pair(name: str, role: str, server_key: str | None) -> Iterator[str]:
    from dtolbus import privatefiles  # noqa: PLC0415  # as above
    from dtolbus.keys import encode_keys, new_keys, public_key  # noqa: PLC0415  # as above
    from dtolbus.topics import quote  # noqa: PLC0415  # as above

    server = "" if server_key is None else public_key(server_key, "--server-key")
    made = new_keys(name, server)
    path, public = Path(f"{quote(name)}.key").absolute(), Path(f"{quote(name)}.public").absolute()
    with _told():
        try:
            privatefiles.create(path, encode_keys(made))
        except FileExistsError as error:
            raise UsageError(f"{path} is there already: choose another name, or move it away") from error
        privatefiles.replace(public, f"{made.public}\n".encode())
    yield f"made: {path}, which is secret and stays here, and {public}, which is not"
    yield f"  1. copy {public.name} to the gateway's machine"
    allow = f"dtolbus keys allow --public {_typed(public.name)} --role {role} --data DIR {_last(name)}"
    yield f"  2. there type: {allow}"
    if not server:
        yield f"  3. copy its keys/server.public back, and give that beside --key {_typed(path.name)} as --server-key"


def _to_do(data: Path, name: str, role: str, path: Path) -> Iterator[str]:
    yield f"made and allowed: {name!r}, role {role}; {_WITHIN}"
    yield f"  1. copy {path.absolute()} to the client's machine; it is secret: leave it readable to its owner alone"
    if role == "sink":
        yield (
            f"  2. there type, for instance: {_worker(name)} --key {_typed(path.name)} --connect tcp://HOST:5601 "
            f"--catchup tcp://HOST:5602"
        )
        yield f"     the sink is called {name!r}, as its key; a second sink needs a key of its own"
    else:
        yield f"  2. there type: dtolbus listen tcp://HOST:5601 --key {_typed(path.name)}"
    yield f"to take it back: dtolbus keys revoke --data {_typed(str(data.absolute()))} {_last(name)}"


def _worker(name: str) -> str:
    """Return the command of a sink; of that kind, where it is called as one."""
    if name == "postgres":
        return "dtolbus-postgres"
    kind = name if name in ("parquet", "csv", "jsonl") else "sqlite"
    return f"dtolbus-{kind} --out {'lab.sqlite' if kind == 'sqlite' else kind}"


def _first(data: Path) -> Iterator[str]:
    """Tell of a gateway's own keys: they may have been made for a folder that is no gateway's."""
    yield f"these are the first keys in {data.absolute()}: its gateway's own were made with them"
    if not (data / "journal").is_dir():
        yield "nothing was recorded there yet; if your gateway's folder is another, name it with --data"


def _typed(text: str) -> str:
    """Return a text as it is typed at a shell's prompt, where it may have blanks."""
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)


def _last(name: str) -> str:
    """Return a name as the last word of a command, where it is no option."""
    return f"-- {_typed(name)}" if name.startswith("-") else _typed(name)


def _say(lines: Any) -> None:
    for line in lines:
        click.echo(line)
