"""Whether a configured PostgreSQL database can be reached, and written."""

import asyncio
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from dtolbus.shown import masked
from dtolbus_producer.doctor.finding import Finding

_TIMEOUT_S = 5.0


def examine_database(dsn: str) -> Finding:
    """Connect, and ask whether tables can be made there. No password is told."""
    try:
        asyncpg = import_module("asyncpg")
    except ImportError:
        return Finding("database", "ok", "not tried: asyncpg is not installed")
    try:
        return database(where(dsn), asyncio.run(_may_create(asyncpg, dsn)))
    except Exception as error:  # whatever the driver and the system raise: no database
        why = masked(" ".join(str(error).split())) or type(error).__name__
        return Finding("database", "problem", f"{where(dsn)}: {why}", "start it, or correct the DSN (DTOLBUS_DSN)")


def database(place: str, may_create: bool) -> Finding:
    """Tell whether a database that answers can be used."""
    if may_create:
        return Finding("database", "ok", f"{place} answers, and tables can be made")
    todo = "GRANT CREATE ON SCHEMA public TO this user, or name a schema of its own in [sink.options]"
    return Finding("database", "warning", f"{place} answers; this user cannot make tables", todo)


def where(dsn: str) -> str:
    """Return which database it is, without user and password."""
    parts = urlsplit(dsn)
    return f"{parts.netloc.rpartition('@')[2] or 'localhost'}{parts.path}"


async def _may_create(asyncpg: Any, dsn: str) -> bool:
    connection = await asyncpg.connect(dsn, timeout=_TIMEOUT_S)
    try:
        ask = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
        return bool(await connection.fetchval(ask, timeout=_TIMEOUT_S))
    finally:
        await connection.close(timeout=_TIMEOUT_S)
