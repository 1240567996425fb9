"""What goes wrong around a recording and does not end it: told at once, and what to do about it at its end."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dtolbus.records import RunStatus
from dtolbus.topics import stream_name
from dtolbus_producer.sinkconfig import SinkConfig
from dtolbus_producer.stalls import LogTail

_REFUSED = re.compile(r"cannot be registered now: (?P<why>.*?); tried again")
_NO_ROOM = "No space left on device"


class Refusals:
    """Sinks that the gateway cannot register, as their logs tell: they store, and nobody can tell how far they are."""

    def __init__(self, logs: Mapping[str, LogTail]) -> None:
        self._logs = logs
        self.why: dict[str, str] = {}
        """By sink: why it could not be registered."""

    def note(self, was_heard: Callable[[str], bool]) -> list[str]:
        """Return what is to be said of those that were refused since; who was heard is registered."""
        lines = []
        for name, log in self._logs.items():
            found = None if name in self.why or was_heard(name) else _REFUSED.search(log.text())
            if found is not None:
                self.why[name] = found["why"]
                lines.append(f"{name} cannot be registered now: {found['why']}; the recording does not wait for it")
        return lines

    def open(self, is_registered: Callable[[str], bool]) -> dict[str, str]:
        """Return those that are not registered yet, each with why."""
        return {name: why for name, why in self.why.items() if not is_registered(name)}


def unregistered(name: str, why: str, sinks: Iterable[SinkConfig], data: Path) -> str:
    """Return what to say at the end of a sink that could not be registered."""
    chosen = list(sinks)
    is_plain = all(sink.name == sink.kind and sink.path is None for sink in chosen)
    again = f"--sinks {','.join(sink.kind for sink in chosen)}" if is_plain else "and the same --config"
    first = "make room" if _NO_ROOM in why else "mend that"
    return (
        f"{name} could not be registered ({why}): what it has is not verified; {first}, then "
        f"`dtolbus up --data {data} --catch-up {again}`"
    )


def gone(status: RunStatus, journal: Path) -> str:
    """Return what to say of a run whose folder went while it was watched."""
    stream = stream_name(status.info.device, status.info.task)
    return (
        f"{stream} {status.info.run_id}: its folder went from {journal / stream} after {status.head} records: put it "
        f"back under that name, then `dtolbus up --catch-up`, or its records are lost to the sinks that lack them"
    )
