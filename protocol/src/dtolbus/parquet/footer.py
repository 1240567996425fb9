"""What each part of a bus's Parquet folder says about itself in its footer, beside its rows.

Keys, all text: `dtolbus.format`, `dtolbus.destination` (the folder's UUID), and `dtolbus.part`, a JSON object with the
fields of PartFooter. The format is 1 of parts that every version reads, 2 where the rows are of another form: what
knows only the first refuses those, instead of mistaking them.
"""

from typing import Literal

import msgspec

from dtolbus.jsonreading import read_json
from dtolbus.numbers import Count, Instant
from dtolbus.records import DaqEvent, ErrorInfo, Gap, RunInfo

Layout = Literal["long", "wide"]
"""Of blocks: a row for each sample of each channel, or a row for each sample instant with a column for each channel."""
Values = Literal["float64", "float32", "codes"]
CellKind = Literal["number", "integer", "text"]
"""What a column of readings holds."""

FORMAT = "1"
FORM_FORMAT = "2"
FORMAT_KEY, DESTINATION_KEY, PART_KEY = "dtolbus.format", "dtolbus.destination", "dtolbus.part"
CODE_TYPES = ("int16", "uint16", "int32")


class Form(msgspec.Struct, frozen=True):
    """How the samples of a run lie in its parts; the same from its first part to its last."""

    layout: Layout = "long"
    values: Values = "float64"

    def __post_init__(self) -> None:
        """Refuse codes in one column: they would be taken for values."""
        if self.layout == "long" and self.values == "codes":
            raise ValueError(
                "codes need the layout wide: in the long one a single column holds all channels, whose codes differ in "
                "scale; choose layout wide, or values float64 or float32"
            )

    def of_run(self, run: RunInfo) -> "Form":
        """Return the form that a run takes: readings have their own, and a board that gives floats has no codes."""
        if run.kind == "readings":
            return USUAL
        has_codes = run.dtype in CODE_TYPES
        return Form(self.layout, "float64") if self.values == "codes" and not has_codes else self


USUAL = Form()


class EmptyBlock(msgspec.Struct, frozen=True):
    """A block without samples, which therefore has no rows."""

    block_index: Count
    first_sample_index: Count
    error: ErrorInfo | None = None


class PutAside(msgspec.Struct, frozen=True):
    """A record that could not be stored as what it is."""

    record_index: Count
    reason: str
    frames: bytes = b""
    """A msgpack array of its wire frames."""


class BlockRows(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """The rows that one block has in a part of the wide layout."""

    block_index: Count
    samples: Count
    """So many rows, behind those of the blocks before it."""
    t_mono_ns: Instant
    """Monotonic instant of its first sample; those of the others follow it as `t_utc` does."""
    error: ErrorInfo | None = None
    """Why its values are NaN, and its codes null."""


class Span(msgspec.Struct, frozen=True, array_like=True):
    """The samples of a part, half-open; of a part without samples empty, where those before it end."""

    first_sample: Count
    end_sample: Count
    first_utc_ns: Instant
    end_utc_ns: Instant


class PartFooter(msgspec.Struct, frozen=True):
    """One commit of one run: all of it that is not a row."""

    run: RunInfo
    from_index: Count
    to_index: Count
    backfilled: Count
    """Records that came through catch-up, of this part and those before it."""
    gaps: tuple[Gap, ...] = ()
    events: tuple[DaqEvent, ...] = ()
    put_aside: tuple[PutAside, ...] = ()
    empty_blocks: tuple[EmptyBlock, ...] = ()
    columns: tuple[tuple[str, CellKind, str], ...] = ()
    """Of readings, of this part and those before it, and of the wide layout: channel, kind and column."""
    parts: Count = 0
    """So many parts has the run with this one; 0 in parts from before that was counted."""
    layout: Layout = "long"
    values: Values = "float64"
    blocks: tuple[BlockRows, ...] = ()
    """Of the wide layout, in the order of the rows."""
    span: Span | None = None
    """None in parts of readings, and in those from before it was told."""

    @property
    def form(self) -> Form:
        """How the samples lie in the part."""
        return Form(self.layout, self.values)


def footer_keys(footer: PartFooter, destination_id: str) -> dict[str, str]:
    """Return the footer's keys."""
    return {
        FORMAT_KEY: FORMAT if footer.form == USUAL else FORM_FORMAT,
        DESTINATION_KEY: destination_id,
        PART_KEY: msgspec.json.encode(footer).decode(),
    }


def parse_footer(keys: dict[str, str]) -> PartFooter:
    """Return what the keys say.

    Raises:
        ValueError: they are not a part's, or of another format.
    """
    if keys.get(FORMAT_KEY) not in (FORMAT, FORM_FORMAT) or PART_KEY not in keys:
        raise ValueError(f"its footer is not that of a part in format {FORMAT} or {FORM_FORMAT}")
    found: PartFooter = read_json(keys[PART_KEY], PartFooter)
    return found
