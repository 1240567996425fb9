"""What goes wrong around a recording and does not end it: told at once, and what to do about it at its end."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dtolbus.records import RunStatus
from dtolbus.topics import stream_name
from dtolbus_producer.children import Child
from dtolbus_producer.progress import JournalWatch, SinkWatch
from dtolbus_producer.sinkconfig import SinkConfig
from dtolbus_producer.stalls import LogTail

_REFUSED = re.compile(r"cannot be registered now: (?P<why>.*?); tried again")
_NO_ROOM = "No space left on device"


class Troubles:
    """Sinks that cannot start, or that the gateway cannot register, as their logs tell; runs whose folder went."""

    def __init__(
        self,
        data: Path,
        sinks: Iterable[SinkConfig],
        children: Mapping[str, Child],
        logs: Mapping[str, LogTail],
        journal: JournalWatch,
        registered: SinkWatch,
    ) -> None:
        self._data, self._sinks, self._children, self._logs = data, list(sinks), children, logs
        self._journal, self._registered = journal, registered
        self._refused: dict[str, str] = {}
        """By sink: why it could not be registered."""
        self._told: set[str] = set()
        """Runs that went, of which it was told."""

    def failed(self) -> dict[str, str]:
        """Return the sinks that cannot start and that the others go on without, each with why."""
        return {name: child.failure for name, child in self._children.items() if child.failure is not None}

    def away(self) -> set[str]:
        """Return the sinks that nobody need wait for: they cannot start, or nobody can tell how far they are."""
        return self.failed().keys() | {name for name in self._refused if not self._registered.was_heard(name)}

    def unregistered(self) -> dict[str, str]:
        """Return the sinks that could not be registered and are not, each with why."""
        self._registered.update()
        return {name: why for name, why in self._refused.items() if name not in self._registered.registrations}

    def refusals(self) -> list[str]:
        """Return what is to be said of the sinks that were refused since this was last asked."""
        lines = []
        for name, log in self._logs.items():
            is_known = name in self._refused or self._registered.was_heard(name)
            found = None if is_known else _REFUSED.search(log.text())
            if found is not None:
                self._refused[name] = found["why"]
                lines.append(f"{name} cannot be registered now: {found['why']}; the recording does not wait for it")
        return lines

    def losses(self) -> list[str]:
        """Return what is to be said of the runs whose folder went since this was last asked."""
        news, self._told = self._journal.gone - self._told, set(self._journal.gone)
        return [gone(self._journal.statuses[run_id], self._data / "journal") for run_id in sorted(news)]

    def at_the_end(self) -> list[str]:
        """Return what is to be done now about all of this."""
        lines = [f"{name} does not catch up: {why}" for name, why in self.failed().items()]
        lines += [self._registering(name, why) for name, why in self.unregistered().items()]
        self._told = set()
        return lines + self.losses()

    def _registering(self, name: str, why: str) -> str:
        is_plain = all(sink.name == sink.kind and sink.path is None for sink in self._sinks)
        again = f"--sinks {','.join(sink.kind for sink in self._sinks)}" if is_plain else "and the same --config"
        first = "make room" if _NO_ROOM in why else "mend that"
        return (
            f"{name} could not be registered ({why}): what it has is not verified; {first}, then "
            f"`dtolbus up --data {self._data} --catch-up {again}`"
        )


def gone(status: RunStatus, journal: Path) -> str:
    """Return what to say of a run whose folder went while it was watched."""
    stream = stream_name(status.info.device, status.info.task)
    return (
        f"{stream} {status.info.run_id}: its folder went from {journal / stream} after {status.head} records: put it "
        f"back under that name, then `dtolbus up --catch-up`, or its records are lost to the sinks that lack them"
    )
