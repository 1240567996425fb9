"""Sinks that a data folder knows beside those of `dtolbus up`, or elsewhere than it has them: in the folder itself."""

from collections.abc import Collection, Iterator
from pathlib import Path

from dtolbus.errors import RawFormatError
from dtolbus.records import RunInfo
from dtolbus.registrations import read_registration, readable_registrations, registration_path
from dtolbus_producer.config import Config
from dtolbus_producer.plan import place_of


def registered_outside(config: Config, data: Path) -> Iterator[tuple[str, str]]:
    """Yield each sink whose place is in the data folder, and which is registered outside: its name, what to know of it.

    Where a sink's path is the config's, or its old place is gone, since the folder was moved, that is as it should be.
    """
    for sink in config.sinks:
        if sink.kind == "postgres" or sink.path is not None:
            continue
        try:
            place = Path(read_registration(registration_path(data, sink.name)).place)
            is_elsewhere = place.is_absolute() and not place.resolve().is_relative_to(data.resolve())
            is_outside = is_elsewhere and place.exists()
        except (RawFormatError, OSError):
            continue
        if is_outside:
            yield (
                sink.name,
                f"registered at {place}, and not at {place_of(sink, data)}: this folder is a copy, or a stack of "
                f"another folder stored this journal there",
            )


def sinks_besides(data: Path, ours: Collection[str], runs: Collection[RunInfo]) -> list[str]:
    """Return the names of the folder's sinks that are to have any of the runs, and are none of ours."""
    return [
        sink.name for sink in readable_registrations(data)[0] if sink.name not in ours and any(map(sink.takes, runs))
    ]
