"""A worker's two connections to Postgres: one that holds the destination's lock, one that writes."""

import asyncio
import logging
import struct
from typing import Any

import xxhash

from dtolbus.errors import CannotStartError
from dtolbus_workers import extras
from dtolbus_workers.postgres_config import PostgresConfig

log = logging.getLogger(__name__)

SETTINGS = {
    "application_name": "dtolbus-postgres",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""A session whose worker is gone without a word ends after 25 s, and its lock with it: the next one waits 30 s."""
_HOLDERS = (
    "SELECT string_agg(a.application_name || ' (pid ' || a.pid || ')', ', ') FROM pg_locks l "
    "JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND (l.classid::bigint << 32 | l.objid::bigint) = $1 AND l.database = (SELECT oid FROM pg_database "
    "WHERE datname = current_database())"
)


def load() -> Any:
    """Return asyncpg. Raises DtolSinkDependencyError where it is not installed."""
    return extras.load("asyncpg", package="asyncpg", extra="postgres")


def outside_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what asyncpg raises when the server refuses, fails or is gone, and `others`."""
    asyncpg = load()
    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, *others)


def reason(error: BaseException) -> str:
    """Return the error as one line."""
    return " ".join(str(error).split()) or type(error).__name__


async def connect(config: PostgresConfig, **settings: str) -> Any:
    """Return a new connection; raises as `outside_errors` and ValueError."""
    return await load().connect(
        **config.connect_arguments(),
        timeout=config.command_timeout_s,
        command_timeout=config.command_timeout_s,
        server_settings={**SETTINGS, "statement_timeout": str(config.statement_timeout_ms), **settings},
    )


async def disconnect(connection: Any) -> None:
    """End a connection, whatever its state."""
    try:
        await connection.close(timeout=5)
    except outside_errors():
        connection.terminate()


class Link:
    """The connections; made anew when they are lost."""

    def __init__(self, config: PostgresConfig, lock_timeout_s: float) -> None:
        self._config = config
        self._lock_timeout_s = lock_timeout_s
        self._holder: Any = None
        self._writer: Any = None
        name = f"dtolbus:{config.schema}".encode()
        (self._key,) = struct.unpack(">q", xxhash.xxh3_64_digest(name))

    async def writer(self) -> Any:
        """Return a connection to write on while the lock is held.

        Raises:
            CannotStartError: another worker has the destination.
            Exception: as `connect`.
        """
        if self._holder is None or self._holder.is_closed():
            await self._drop(self._holder)
            self._holder = await self._locked()
        if self._writer is not None and not self._writer.is_closed():
            return self._writer
        self._writer = await connect(self._config, synchronous_commit="on")
        return self._writer

    async def drop_writer(self) -> None:
        """End the writing connection; the server rolls its transaction back."""
        writer, self._writer = self._writer, None
        await self._drop(writer)

    async def close(self) -> None:
        """End both, and with them the lock."""
        holder, self._holder = self._holder, None
        for connection in (self._writer, holder):
            if connection is not None:
                await disconnect(connection)
        self._writer = None

    async def _drop(self, connection: Any) -> None:
        if connection is not None:
            connection.terminate()

    async def _locked(self) -> Any:
        """Return a connection that holds the destination's lock."""
        holder = await connect(self._config)
        try:
            deadline = asyncio.get_running_loop().time() + self._lock_timeout_s
            while not await holder.fetchval("SELECT pg_try_advisory_lock($1)", self._key):
                if asyncio.get_running_loop().time() >= deadline:
                    owners = await holder.fetchval(_HOLDERS, self._key)
                    raise CannotStartError(
                        f"{self._config.target()} is in use by another worker, {owners or 'just gone'}; "
                        f"stop that one, or choose another schema"
                    )
                await asyncio.sleep(0.25)
        except BaseException:
            holder.terminate()
            raise
        return holder
