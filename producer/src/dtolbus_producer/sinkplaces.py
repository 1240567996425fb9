"""Which names devices, tasks and sinks may have, and where in the data folder a sink writes. Pure."""

from collections.abc import Iterable

from dtolbus.topics import quote
from dtolbus_producer.tasks import WrongKeyError

_PLACES = {"parquet": "parquet", "sqlite": "dtolbus.sqlite", "csv": "csv", "jsonl": "jsonl"}
_RESERVED = {"journal", "logs", "sinks", "keys", "postgres"}
_LONGEST_NAME = 220
"""Bytes of a quoted name: a file name has up to 255, and something is put before and behind it."""


def default_place(kind: str, name: str) -> str:
    """Return a sink's file or folder in the data folder; a sink with a name of its own has a place of its own."""
    if name == kind:
        return _PLACES[kind]
    return f"{quote(name)}.sqlite" if kind == "sqlite" else quote(name)


def check_name(key: str, name: str) -> None:
    """Raise WrongKeyError where a name cannot be a file's name, even quoted, or a command line's word."""
    if not name.isprintable():
        raise WrongKeyError(key, f"{name!r} has characters that cannot be shown: choose another name")
    if len(quote(name)) > _LONGEST_NAME:
        fits = len(shortened(name))
        raise WrongKeyError(key, f"{name!r} is too long for a file's name: its first {fits} characters would fit")


def shortened(name: str) -> str:
    """Return as much of a name as a file's name can hold."""
    while len(quote(name)) > _LONGEST_NAME:
        name = name[:-1]
    return name


def check_sink_places(sinks: Iterable[tuple[str, str, str | None]]) -> None:
    """Raise WrongKeyError where a sink, (kind, name, its path), would write where others do."""
    taken: dict[str, int] = {}
    for number, (kind, name, path) in enumerate(sinks):
        key = f"sink[{number}].name"
        if name != kind and name.casefold() in _RESERVED:
            raise WrongKeyError(key, f"{name!r} is a folder of the data folder's own: choose another name")
        if path is not None or kind == "postgres":
            continue
        place = default_place(kind, name)
        before = taken.setdefault(place.casefold(), number)  # some file systems do not tell a from A
        if before != number:
            raise WrongKeyError(key, f"{name!r} would write to {place!r}, as sink[{before}] does: choose another name")
