"""What each part of a bus's Parquet folder says about itself in its footer, beside its rows.

Keys, all text: `dtolbus.format` (1), `dtolbus.destination` (the folder's UUID), and `dtolbus.part`, a JSON object with
the fields of PartFooter.
"""

import msgspec

from dtolbus.records import DaqEvent, ErrorInfo, Gap, RunInfo
from dtolbus_workers.cells import CellKind

FORMAT = "1"
FORMAT_KEY, DESTINATION_KEY, PART_KEY = "dtolbus.format", "dtolbus.destination", "dtolbus.part"


class EmptyBlock(msgspec.Struct, frozen=True):
    """A block without samples, which therefore has no rows."""

    block_index: int
    first_sample_index: int
    error: ErrorInfo | None = None


class PutAside(msgspec.Struct, frozen=True):
    """A record that could not be stored as what it is."""

    record_index: int
    reason: str
    frames: bytes = b""
    """A msgpack array of its wire frames."""


class PartFooter(msgspec.Struct, frozen=True):
    """One commit of one run: all of it that is not a row."""

    run: RunInfo
    from_index: int
    to_index: int
    backfilled: int
    """Records that came through catch-up, of this part and those before it."""
    gaps: tuple[Gap, ...] = ()
    events: tuple[DaqEvent, ...] = ()
    put_aside: tuple[PutAside, ...] = ()
    empty_blocks: tuple[EmptyBlock, ...] = ()
    columns: tuple[tuple[str, CellKind, str], ...] = ()
    """Of readings: channel, kind and column, of this part and those before it."""
    parts: int = 0
    """So many parts has the run with this one; 0 in parts from before that was counted."""


def footer_keys(footer: PartFooter, destination_id: str) -> dict[str, str]:
    """Return the footer's keys."""
    return {
        FORMAT_KEY: FORMAT,
        DESTINATION_KEY: destination_id,
        PART_KEY: msgspec.json.encode(footer).decode(),
    }


def parse_footer(keys: dict[str, str]) -> PartFooter:
    """Return what the keys say.

    Raises:
        ValueError: they are not a part's, or of another format.
    """
    if keys.get(FORMAT_KEY) != FORMAT or PART_KEY not in keys:
        raise ValueError(f"its footer is not that of a part in format {FORMAT}")
    return msgspec.json.decode(keys[PART_KEY], type=PartFooter)
