"""A SQLite file as sinks use it: connections, transactions that are whole or not at all, errors in the sinks' words."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkWriteError
from dtolbus_workers.schema import plain, quoted, unwritable

JournalMode = Literal["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF"]
Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]

OF_BUS: dict[str, Any] = {
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "busy_timeout_ms": 5000,
    "page_bytes": 16 << 10,
    "cache_bytes": 16 << 20,
}
"""How a worker opens its file. Samples are long rows that are appended: larger pages, and a cache that need not be
emptied in mid-commit, save a fifth of their cost."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def connect(
    path: Path,
    *,
    journal_mode: JournalMode,
    synchronous: Synchronous,
    busy_timeout_ms: int,
    page_bytes: int = 4096,
    cache_bytes: int = 2 << 20,
) -> sqlite3.Connection:
    """Open the file, made where there is none, for writing. Raises CannotStartError.

    A file that is there keeps the size of its pages.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout_ms / 1000)
    except sqlite3.Error as error:
        raise CannotStartError(
            f"{path}: cannot open this SQLite file ({error}); check the folder and its rights"
        ) from error
    try:
        connection.execute(f"PRAGMA busy_timeout={busy_timeout_ms:d}")
        connection.execute(f"PRAGMA page_size={page_bytes:d}")
        connection.execute(f"PRAGMA cache_size=-{cache_bytes >> 10:d}")
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute(f"PRAGMA synchronous={synchronous}")
    except sqlite3.Error as error:
        connection.close()
        raise CannotStartError(f"{path}: {error}; choose another file, or free this one") from error
    return connection


def roll_back(path: Path) -> None:
    """Undo what a kill or a power cut left half-done before the file had its write-ahead log. Raises CannotStartError.

    Until that is done nobody can read the file who may not write to it.
    """
    if not path.with_name(f"{path.name}-journal").exists() or not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.Error as error:
        raise CannotStartError(f"{path}: {error}; choose another file, or free this one") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file read-only for the length of the block, in one snapshot. Raises CannotStartError."""
    if path.exists() and not path.is_file():  # a pipe would be waited for; to open and close it would drop locks
        raise CannotStartError(f"{path}: not a regular file; choose another file")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise CannotStartError(f"{path}: cannot read this SQLite file ({error})") from error
    try:
        connection.execute("BEGIN")
        yield connection
    except sqlite3.DatabaseError as error:
        raise CannotStartError(f"{path}: not a SQLite file that can be read ({error}); choose another file") from error
    finally:
        connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Commit what the block does, or roll all of it back.

    Raises DtolSinkWriteError when the outside failed, DtolSinkError for rows that are there already.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException as error:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
            raise DtolSinkError(f"{path}: nothing of this write was stored: {error}") from error
        if isinstance(error, sqlite3.DatabaseError):
            raise DtolSinkWriteError(f"{path}: nothing of this write was stored: {error}") from error
        raise


def tables(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the file's tables."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    )
    return {name for (name,) in rows}


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the table's columns in order; none where there is no such table."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]


def insert(table: str, names: tuple[str, ...]) -> str:
    """Return the INSERT of one row with these columns."""
    listed = ", ".join(quoted(name) for name in names)
    marks = ", ".join("?" for _ in names)
    return f"INSERT INTO {quoted(table)} ({listed}) VALUES ({marks})"  # noqa: S608  # every name is quoted


def unstorable(given: object) -> str | None:
    """Return why SQLite cannot store a value, or None if it can."""
    value = plain(given)
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return f"the int {value} is beyond 64 bits"
    return unwritable(value)
