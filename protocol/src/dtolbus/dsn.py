"""Where a command has its database from: an option, the environment, or a file that holds a secret."""

import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

import click

from dtolbus import files
from dtolbus.cli import option
from dtolbus.errors import UsageError

DSN, DSN_FILE = "DTOLBUS_DSN", "DTOLBUS_DSN_FILE"
TLS_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
"""How a connection is secured; libpq's names, and its meanings."""
_SCHEMES = ("postgresql", "postgres")
_LONGEST = 1 << 16


def dsn_options(about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what adds `--dsn` and `--dsn-file`; the command gets `dsn`, a text or None."""

    def added(call: Callable[..., Any]) -> Callable[..., Any]:
        @option("--dsn", help=f"{about}; better in {DSN} or --dsn-file: others see a command line.")
        @option("--dsn-file", type=click.Path(path_type=Path), help="File that holds it: a secret of Docker, say.")
        @wraps(call)
        def with_dsn(dsn: str | None, dsn_file: Path | None, **rest: Any) -> Any:
            return call(dsn=chosen_dsn(dsn, dsn_file), **rest)

        return with_dsn

    return added


def chosen_dsn(dsn: str | None, file: Path | None) -> str | None:
    """Return the DSN that was given, or is in the file; None where neither is. Raises UsageError; it shows no DSN."""
    if dsn and file is not None:
        raise UsageError(f"--dsn ({DSN}) and --dsn-file ({DSN_FILE}): give one of the two")
    return dsn if file is None else _in_file(file)


def dsn_of(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the DSN of DTOLBUS_DSN, or of the file that DTOLBUS_DSN_FILE names. Raises UsageError."""
    file = environment.get(DSN_FILE)
    return chosen_dsn(environment.get(DSN) or None, Path(file) if file else None)


def dsn_fault(dsn: str) -> str:
    """Return why it is no connection URL, or one whose password runs into its other parts; empty: it is one."""
    try:
        parts: SplitResult | None = urlsplit(dsn)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in _SCHEMES:
        return "must look like postgresql://user:password@host:port/database"
    hosts = parts.netloc.rpartition("@")[2]
    ports = [host.rpartition(":")[2] for host in hosts.split(",") if ":" in host and not host.endswith("]")]
    if "@" in parts.path or parts.fragment or not all(port.isdigit() for port in ports):
        return "cannot be read; percent-encode special characters of the password (@ is %40, / is %2F)"
    return ""


def dsn_with(dsn: str, added: Mapping[str, str]) -> str:
    """Return the DSN with these at the end of its query: asyncpg takes the last of a name."""
    if not added:
        return dsn
    parts = urlsplit(dsn)
    query = "&".join(filter(None, (parts.query, urlencode(added))))
    return f"{dsn.partition('?')[0]}?{query}"


def _in_file(file: Path) -> str:
    try:
        data = files.read(file)
    except OSError as error:
        raise UsageError(f"--dsn-file {file}: cannot be read: {error.strerror or error}") from error
    try:
        text = data[:_LONGEST].decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text:
        raise UsageError(
            f"--dsn-file {file}: holds no DSN, which is one line: postgresql://user:password@host/database"
        )
    return text
