"""`dtolbus check`: what will run, found out without starting it and without leaving anything behind."""

import msgspec

from dtolbus.errors import CannotStartError, UsageError
from dtolbus_producer.checking.looking import look
from dtolbus_producer.checking.report import Report
from dtolbus_producer.checking.text import as_text

__all__ = ["as_json", "as_text", "look", "refuse"]


def as_json(report: Report) -> str:
    """Return the report for machines."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def refuse(report: Report) -> None:
    """Raise CannotStartError where something keeps it from starting; UsageError where it is the configuration."""
    if report.is_wrong:
        raise UsageError("; ".join(report.problems))
    if report.problems:
        raise CannotStartError("; ".join(report.problems))
