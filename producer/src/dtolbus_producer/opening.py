"""The writer of a new run, as `[journal]` wants it."""

from collections.abc import Callable
from pathlib import Path

from dtolbus.records import RunInfo
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.journalconfig import JournalConfig


def open_writer(
    journal: Path, info: RunInfo, settings: JournalConfig, rolled: Callable[[], None] = lambda: None
) -> RunWriter:
    """Return the writer of a new run with the journal's settings. Raises CannotStartError."""
    return RunWriter(
        journal,
        info,
        sync_ms=settings.sync_ms,
        segment_bytes=settings.segment_bytes,
        segment_s=settings.segment_s,
        rolled=rolled,
    )
