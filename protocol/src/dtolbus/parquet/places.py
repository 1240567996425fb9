"""Where a bus's Parquet folder has its files: `<device>/<task>/<run_id>/part-<from:012d>.parquet`."""

from pathlib import Path

from dtolbus import topics
from dtolbus.records import RunInfo

IDENTITY = "_dtolbus.json"
"""Readers of a folder skip names that begin with `_`, as this one, or `.`."""


def run_folder(folder: Path, run: RunInfo) -> Path:
    """Return where the run's parts lie."""
    return folder / topics.quote(run.device) / topics.quote(run.task) / topics.quote(run.run_id)


def part_name(from_index: int) -> str:
    """Return the file name of the part that begins with this record."""
    return f"part-{from_index:012d}.parquet"


def parts_of(folder: Path) -> list[Path]:
    """Return a run's parts in order."""
    return sorted(folder.glob("part-*.parquet"))
