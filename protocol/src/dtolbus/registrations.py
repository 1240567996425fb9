"""`<data>/sinks/<name>.json`: which sinks a journal has, where they are, how far each is. The gateway writes them."""

from pathlib import Path

import msgspec

from dtolbus import files
from dtolbus.errors import RawFormatError
from dtolbus.jsonreading import read_json
from dtolbus.numbers import Count
from dtolbus.records import RunInfo
from dtolbus.topics import name_fault, quote, unquote
from dtolbus.wire import topic_of_run

SINKS_FOLDER = "sinks"
SINCE_OPTION = "since_utc_ns"
"""Option of a sink that leaves out runs which began before this instant."""
LONGEST_INSTANT = 19
"""Digits of one in ns since 1970; what a registration says beyond them is left out."""
_WITH_SAMPLES = {"samples", "both"}
_BLOCKS = ("skip", "summary", "samples", "both")
_TOPICS = ("block/", "reading/", "note/", "heartbeat/")


class SinkPosition(msgspec.Struct, frozen=True):
    """How far a sink is in one run, as it last said."""

    stream: str
    position: Count
    """Number of records committed, from 0 on without holes."""
    backfilled: Count = 0
    summarised: Count = 0
    """Of blocks below this record, samples may not be stored: they came while it kept summaries, or were not seen."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One sink that follows this journal."""

    name: str
    sink: str
    """Its kind: `parquet`, `sqlite`, …"""
    place: str
    """Where its destination is; never with a password."""
    destination_id: str
    topics: tuple[str, ...] = ()
    """Topic prefixes it takes; none: all."""
    options: dict[str, str] = {}
    """What `verify` must know to read the destination back."""
    positions: dict[str, SinkPosition] = {}
    """By run_id."""
    seen_utc: str = ""
    """When it was last heard, ISO 8601."""

    def takes(self, run: RunInfo) -> bool:
        """Return whether the sink's topics, and where it has one its `since`, cover the run."""
        since = self.options.get(SINCE_OPTION, "")
        known = self.positions.get(run.run_id)
        is_begun = known is not None and known.position > 0  # an age like 7d moves on; what was begun stays wanted
        if since.isdecimal() and not is_begun and run.started_utc_ns < int(since[:LONGEST_INSTANT]):
            return False
        return not self.topics or topic_of_run(run).decode().startswith(self.topics)

    @property
    def keeps_samples(self) -> bool:
        """Whether of the blocks that come now it stores the samples, not summaries alone."""
        return self.sink == "parquet" or self.options.get("blocks") in _WITH_SAMPLES

    def has_samples(self, run: RunInfo, from_index: int) -> bool:
        """Return whether all samples are stored of what it has of the run from that record on; readings always are."""
        if run.kind != "blocks" or self.sink == "parquet":
            return True
        known = self.positions.get(run.run_id)
        return self.keeps_samples and (known is None or known.summarised <= from_index)


def registration_path(data: Path, name: str) -> Path:
    """Return the file of the sink `name` in a data folder."""
    return data / SINKS_FOLDER / f"{quote(name)}.json"


def read_registration(path: Path) -> Registration:
    """Return what the file says. Raises FileNotFoundError, and RawFormatError where it is no registration."""
    try:
        registration: Registration = read_json(files.read(path), Registration)
    except ValueError as error:
        raise RawFormatError(
            f"{path}: not a sink's registration: {error}; start its worker again, which has it written anew, or say "
            f'`dtolbus sinks forget "{unquote(path.stem)}"` if that sink will not come back'
        ) from error
    if name_fault(registration.name) or registration_path(path.parent.parent, registration.name).name != path.name:
        raise RawFormatError(
            f"{path}: is the registration of the sink {registration.name!r} under another name, a copy; remove it"
        )
    return registration


def usable_registration(path: Path) -> Registration:
    """Return what the file says of a sink that is to be read, or run again.

    Raises FileNotFoundError, and RawFormatError where it is no registration, or one of no use.
    """
    registration = read_registration(path)
    if fault := _fault(registration):
        raise RawFormatError(
            f"{path}: {fault}; correct it, start the sink's worker again as it was run, or say "
            f'`dtolbus sinks forget "{registration.name}"` if that sink will not come back'
        )
    return registration


def _fault(sink: Registration) -> str:
    """Return what is wrong with what a registration says; empty where nothing is."""
    if not sink.place:
        return "it does not say where the sink is ('place')"
    if sink.options.get("blocks", "skip") not in _BLOCKS:
        return f"blocks is {sink.options['blocks']!r}; there are {', '.join(_BLOCKS)}"
    for topic in sink.topics:
        if not any(topic.startswith(known) or known.startswith(topic) for known in _TOPICS):
            return f"no topic begins with {topic!r}; there are {', '.join(_TOPICS)}"
    return ""


def read_registrations(data: Path) -> list[Registration]:
    """Return the sinks of a data folder, by name. Raises RawFormatError where a file is no registration."""
    return [read_registration(path) for path in sorted((data / SINKS_FOLDER).glob("*.json"))]


def readable_registrations(data: Path) -> tuple[list[Registration], list[str]]:
    """Return the sinks of a data folder, by name, and what is wrong with those that cannot be read."""
    found, damaged = [], []
    for path in sorted((data / SINKS_FOLDER).glob("*.json")):
        try:
            found.append(read_registration(path))
        except (RawFormatError, OSError) as error:
            damaged.append(str(error))
    return found, damaged


def encode_registration(registration: Registration) -> bytes:
    """Return the content of a registration's file."""
    return msgspec.json.format(msgspec.json.encode(registration), indent=2) + b"\n"


def forget(data: Path, name: str) -> Registration | None:
    """Unregister a sink, and return what it was, None where that cannot be read.

    A gateway registers it again only when it says Hello again.

    Raises FileNotFoundError where there is no such sink, OSError.
    """
    path = registration_path(data, name)
    try:
        registration = read_registration(path)
    except RawFormatError:
        registration = None
    path.unlink()
    files.sync_dir(path.parent)
    return registration
