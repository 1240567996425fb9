"""What goes wrong around a recording and does not end it: told at once, and what to do about it at its end."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from dtolbus.records import RunStatus
from dtolbus.topics import stream_name
from dtolbus_producer.children import Child
from dtolbus_producer.sinkconfig import SinkConfig
from dtolbus_producer.stalls import LogTail
from dtolbus_producer.watching import Watch

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


class Troubles:
    """Of one recording: sinks that cannot start or be registered, and runs whose folder went."""

    def __init__(
        self,
        sinks: Sequence[SinkConfig],
        data: Path,
        children: Mapping[str, Child],
        watch: Watch,
        logs: Mapping[str, LogTail],
    ) -> None:
        self._sinks, self._data = sinks, data
        self._children = children
        self._watch = watch
        self._refusals = Refusals(logs)
        self._lost: set[str] = set()
        """Runs whose folder went, of which it was told."""

    def failed(self) -> dict[str, str]:
        """Return the sinks that cannot start, each with why, where the others go on without them."""
        return {name: child.failure for name, child in self._children.items() if child.failure is not None}

    def refused(self) -> Collection[str]:
        """Return the sinks that the gateway could not register when they came."""
        return self._refusals.why.keys()

    def away(self) -> set[str]:
        """Return the sinks of which nobody can tell how far they are."""
        return {name for name in self._refusals.why if not self._watch.was_heard(name)} | self.failed().keys()

    def registered_sinks(self) -> list[str]:
        """Return the sinks of which the journal knows how far they are."""
        unknown = self._refusals.open(self._watch.is_registered)
        return [name for name in self._children if name not in unknown]

    def news(self) -> list[str]:
        """Return what is to be said since it was last asked."""
        lines = self._refusals.note(self._watch.was_heard)
        for status in self._watch.gone():
            if status.info.run_id not in self._lost:
                lines.append(gone(status, self._data / "journal"))
        self._lost = {status.info.run_id for status in self._watch.gone()}
        return lines

    def at_the_end(self) -> list[str]:
        """Return what is to be done about all of it."""
        unknown = self._refusals.open(self._watch.is_registered)
        return [
            *(f"{name} does not catch up: {why}" for name, why in self.failed().items()),
            *(unregistered(name, why, self._sinks, self._data) for name, why in unknown.items()),
            *(gone(status, self._data / "journal") for status in self._watch.gone()),
        ]


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
