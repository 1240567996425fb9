"""Which names devices, tasks and sinks may have, and where in the data folder a sink writes. Pure."""

import os
from collections.abc import Iterable
from pathlib import Path

from dtolbus.topics import name_fault, quote
from dtolbus_producer.tasks import WrongKeyError

_PLACES = {"parquet": "parquet", "sqlite": "dtolbus.sqlite", "csv": "csv", "jsonl": "jsonl"}
_RESERVED = {"journal", "logs", "sinks", "keys", "postgres"}


def default_place(kind: str, name: str) -> str:
    """Return a sink's file or folder in the data folder; a sink with a name of its own has a place of its own."""
    if name == kind:
        return _PLACES[kind]
    return f"{quote(name)}.sqlite" if kind == "sqlite" else quote(name)


def check_name(key: str, name: str) -> None:
    """Raise WrongKeyError where a name cannot be a file's name, even quoted, or a command line's word."""
    fault = name_fault(name)
    if fault:
        raise WrongKeyError(key, fault)


def check_sink_places(data: Path, sinks: Iterable[tuple[str, str, str | None]]) -> None:
    """Raise WrongKeyError where a sink, (kind, name, its path), would write where others do."""
    taken: dict[str, int] = {}
    for number, (kind, name, path) in enumerate(sinks):
        what = "name" if path is None else "path"
        key = f"sink[{number}].{what}"
        if name != kind and name.casefold() in _RESERVED:
            raise WrongKeyError(
                f"sink[{number}].name", f"{name!r} is a folder of the data folder's own: choose another name"
            )
        if kind == "postgres":
            continue
        place = data / default_place(kind, name) if path is None else Path(path)
        inside = _own_folder(place, data)
        if inside is not None:
            raise WrongKeyError(key, f"{path!r} is in {inside!r}, the data folder's own: choose another path")
        before = taken.setdefault(os.path.abspath(place).casefold(), number)  # some file systems do not tell a from A
        if before != number:
            value = name if path is None else path
            shown = place.name if path is None else path
            raise WrongKeyError(
                key, f"{value!r} would write to {shown!r}, as sink[{before}] does: choose another {what}"
            )


def _own_folder(place: Path, data: Path) -> str | None:
    """Return the folder of the data folder's own that the place is in."""
    absolute, root = Path(os.path.abspath(place)), Path(os.path.abspath(data))
    if not absolute.is_relative_to(root):
        return None
    first = next(iter(absolute.relative_to(root).parts), ".")
    return first if first.casefold() in _RESERVED else None


def check_databases(sinks: Iterable[tuple[int, str | None, str]]) -> None:
    """Raise WrongKeyError where Postgres sinks, (number, dsn, schema), have one place, or more than one database."""
    taken: dict[str, int] = {}
    first: tuple[int, str | None] | None = None
    for number, dsn, schema in sinks:
        first = first or (number, dsn)
        if dsn != first[1]:
            raise WrongKeyError(
                f"sink[{number}].dsn",
                f"another database than sink[{first[0]}]'s: one stack stores into one; run dtolbus-postgres beside it",
            )
        before = taken.setdefault(schema, number)
        if before != number:
            raise WrongKeyError(
                f"sink[{number}].options.schema",
                f"{schema!r} is where sink[{before}] stores too: give each a schema of its own",
            )
