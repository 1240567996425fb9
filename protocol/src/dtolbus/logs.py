"""Log lines: facts with their keys, for people or for machines, never with a password."""

import json
import logging
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dtolbus.shown import masked, printable

_STANDARD_LOG_KEYS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(level: str, log_format: str) -> None:
    """Log to stderr: one line for each fact, with its keys."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(log_format == "json"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(log_format == "json")


def is_json() -> bool:
    """Return whether lines are for machines: also the one that says why a command ends, before it logs anything."""
    found = [one.formatter.is_json for one in logging.getLogger().handlers if isinstance(one.formatter, _Lines)]
    return any(found) if found else os.environ.get("DTOLBUS_LOG_FORMAT") == "json"


class _Lines(logging.Formatter):
    """A log record as one line of text or JSON, its keys included."""

    def __init__(self, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.is_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        facts = {key: value for key, value in vars(record).items() if key not in _STANDARD_LOG_KEYS}
        if not self.is_json:
            text = super().format(record)
            return masked(text + "".join(f" {key}={printable(str(value))}" for key, value in facts.items()))
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return json_line(record.created, record.levelname.lower(), record.name, record.getMessage(), facts)


def json_line(at_s: float, level: str, logger: str, message: str, facts: Mapping[str, Any]) -> str:
    """Return a fact as one JSON object; `at_s` since 1970. What is no text, number or truth is told as text."""
    time_utc = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": time_utc, "level": level, "logger": logger, "message": masked(message)}
    told = {key if key not in line else f"{key}_": _as_json(value) for key, value in facts.items()}
    return json.dumps({**line, **told})


def _as_json(value: object) -> object:
    is_plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return value if is_plain else masked(str(value))
