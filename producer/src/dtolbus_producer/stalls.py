"""Sinks that store nothing although there is more for them: told once, and once more when they store again."""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dtolbus_producer.progress import SinkProgress

PATIENCE_S = 10.0
"""How long a sink may store nothing, beyond the age at which it commits a batch."""
_LAST_BYTES = 4096
_LEVELLED = re.compile(r"^\S+ \S+ (?P<level>[A-Z]+) \S+: (?P<said>.*)$")
_PROGRAM = re.compile(r"^dtolbus-[a-z]+: ")
_COMPLAINTS = {"WARNING", "ERROR", "CRITICAL"}


class LogTail:
    """What was written to a log since `mark`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = 0

    def mark(self) -> None:
        """Begin anew at its end."""
        with contextlib.suppress(OSError):  # not there yet
            self._from = self._path.stat().st_size

    def text(self) -> str:
        """Return the end of what was written since."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(self._from, file.seek(0, os.SEEK_END) - _LAST_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def complaint(self) -> str | None:
        """Return the newest complaint since."""
        return last_complaint(self.text().splitlines())


class Stalls:
    """Watches how far sinks are. By name: after how many s each commits a batch, and where it complains."""

    def __init__(self, ages_s: Mapping[str, float], logs: Mapping[str, LogTail]) -> None:
        self._allowed_s = {name: age_s + PATIENCE_S for name, age_s in ages_s.items()}
        self._logs = logs
        self._moved: dict[str, tuple[int, float]] = {}
        """By name: what the sink had when it last got on, or lacked nothing, and when that was."""
        self._told: set[str] = set()

    def note(self, now: float, sinks: Mapping[str, SinkProgress]) -> list[str]:
        """Take how far the sinks are at `now`, monotonic s; return what is to be said."""
        lines = []
        for name, progress in sinks.items():
            had, since = self._moved.get(name, (-1, now))
            if progress.position > had or not progress.lag:
                self._moved[name] = (progress.position, now)
                self._logs[name].mark()
                if name in self._told:
                    self._told.discard(name)
                    lines.append(f"{name} stores again after {now - since:.0f} s; {progress.lag} records behind")
            elif name not in self._told and now - since > self._allowed_s[name]:
                self._told.add(name)
                why = self._logs[name].complaint() or "it does not say why"
                lines.append(f"{name} has stored nothing for {now - since:.0f} s, {progress.lag} records behind: {why}")
        return lines


def last_complaint(log: Sequence[str]) -> str | None:
    """Return what the newest warning or error in the lines of a log says, without date and place."""
    for line in reversed(log):
        said = _complaint_of(line)
        if said:
            return said
    return None


def _complaint_of(line: str) -> str | None:
    if line.startswith("{"):
        try:
            facts = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if str(facts.get("level", "")).upper() not in _COMPLAINTS:
            return None
        return str(facts.get("error") or facts.get("cause") or facts.get("message"))
    found = _LEVELLED.match(line)
    if found is not None:
        said = found["said"].partition(" wait_s=")[0]
        return said.partition(" error=")[2] or said if found["level"] in _COMPLAINTS else None
    return _PROGRAM.sub("", line) if _PROGRAM.match(line) else None
