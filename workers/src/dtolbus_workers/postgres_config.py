"""PostgresConfig: which database, which tables, and how to name them where a password must not be seen."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from dtolbus.dsn import TLS_OPTIONS, dsn_fault, dsn_with

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class PostgresConfig:
    """Connection and tables of a Postgres sink; either `dsn`, or `host`, `user` and `database`.

    Raises:
        ValueError: both or neither are given, or a field is not what it must be; the message never has the password.
    """

    dsn: str | None = field(default=None, repr=False)
    """`postgresql://user:password@host:port/database?…`; a password's special characters are percent-encoded."""
    host: str | None = None
    """Name, address, or the folder of a Unix socket."""
    port: int = 5432
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    sslmode: str | None = None
    """`verify-full` checks the server's certificate and its name; None: the DSN's, else PGSSLMODE's, else `prefer`."""
    sslrootcert: str | None = None
    """File of the CA that the server's certificate must come from."""
    sslcert: str | None = None
    """File of the certificate by which this client is known, with `sslkey`."""
    sslkey: str | None = None
    schema: str = "public"
    table_readings: str = "readings"
    table_blocks: str = "blocks"
    """Table of the block summaries."""
    pool_min_size: int = 1
    pool_max_size: int = 4
    statement_timeout_ms: int = 30000
    """The server ends a statement that takes longer."""
    command_timeout_s: float = 10.0
    """The client gives up on a call that takes longer."""
    create_tables: bool = False
    """Make the tables from the first records; else they must exist, and their columns are kept to."""
    use_copy: bool = True
    """Binary COPY; else `executemany`, for servers that refuse COPY."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail late, or run as SQL."""
        discrete = [name for name in ("host", "user", "password", "database") if getattr(self, name) is not None]
        if self.dsn is not None and discrete:
            raise ValueError(f"PostgresConfig: dsn and {', '.join(discrete)} exclude each other; give one of the two")
        if self.dsn is None and (self.host is None or self.user is None or self.database is None):
            raise ValueError("PostgresConfig: give dsn, or host, user and database")
        if self.dsn is not None and (fault := dsn_fault(self.dsn)):
            raise ValueError(f"PostgresConfig: dsn {fault}")
        _check_tls(self.sslmode)
        for name in ("schema", "table_readings", "table_blocks"):
            if not _IDENTIFIER.fullmatch(getattr(self, name)):
                raise ValueError(
                    f"PostgresConfig: {name} must match [A-Za-z_][A-Za-z0-9_]{{0,62}}, got {getattr(self, name)!r}"
                )
        if not 1 <= self.port <= 65535:
            raise ValueError(f"PostgresConfig: port must be 1 to 65535, got {self.port!r}")
        if not 0 <= self.pool_min_size <= self.pool_max_size or self.pool_max_size < 1:
            raise ValueError(
                f"PostgresConfig: 0 <= pool_min_size <= pool_max_size and 1 <= pool_max_size must hold, "
                f"got {self.pool_min_size!r} and {self.pool_max_size!r}"
            )
        for name in ("statement_timeout_ms", "command_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"PostgresConfig: {name} must be > 0, got {getattr(self, name)!r}")

    def secured(self, options: Mapping[str, str]) -> "PostgresConfig":
        """Return the same with what the options say of TLS_OPTIONS. Raises ValueError."""
        given: dict[str, Any] = {name: options[name] for name in TLS_OPTIONS if name in options}
        return dataclasses.replace(self, **given)

    def target(self) -> str:
        """Return where this leads, `postgresql://host:port/database.schema`, for logs and messages."""
        if self.dsn is None:
            return f"postgresql://{_host(self.host or '')}:{self.port}/{self.database}.{self.schema}"
        parts = urlsplit(self.dsn)
        given = parse_qs(parts.query)
        hosts = parts.netloc.rpartition("@")[2] or _host(given.get("host", ["localhost"])[0])
        port = given.get("port", [str(self.port)])[0]
        named = ",".join(host if _has_port(host) else f"{host}:{port}" for host in hosts.split(","))
        database = unquote(parts.path.lstrip("/")) or given.get("dbname", given.get("database", ["?"]))[0]
        return f"{parts.scheme}://{named}/{database}.{self.schema}"

    def connect_arguments(self) -> dict[str, Any]:
        """Return what asyncpg needs to find and enter the database."""
        secured = {name: getattr(self, name) for name in TLS_OPTIONS if getattr(self, name) is not None}
        if self.dsn is not None:
            return {"dsn": dsn_with(self.dsn, secured)}
        return {
            **({"dsn": dsn_with("postgresql://", secured)} if secured else {}),
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
        }


def _host(host: str) -> str:
    return quote(host, safe=":[]") if host.startswith("/") else host


def _has_port(host: str) -> bool:
    return bool(re.search(r":\d+$", host))


def _check_tls(mode: str | None) -> None:
    if mode is not None and mode not in TLS_MODES:
        raise ValueError(f"PostgresConfig: sslmode must be one of {', '.join(TLS_MODES)}, got {mode!r}")
