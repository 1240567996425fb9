"""Sinks that a data folder knows elsewhere than where `dtolbus up` has them: in the folder itself."""

from collections.abc import Iterator
from pathlib import Path

from dtolbus.errors import RawFormatError
from dtolbus.registrations import read_registration, registration_path
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
