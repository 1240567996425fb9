"""The tables of the bus's SQLite file."""

from dtolbus.rows import READING_KEYS
from dtolbus_workers.columns import BLOCK_COLUMNS, SAMPLE_COLUMNS
from dtolbus_workers.schema import STATUS_COLUMN, quoted

FORMAT_VERSION = 1

EVENT_COLUMNS = ("run_id", "stream", "record_index", "sample_index", "t_utc", "kind", "message")
GAP_COLUMNS = ("run_id", "stream", "from_index", "to_index", "first_sample", "end_sample", "cause")
PUT_ASIDE_COLUMNS = ("run_id", "stream", "record_index", "reason", "frames")
READING_COLUMNS = ("run_id", "reading_index", *READING_KEYS, STATUS_COLUMN)
"""The readings' fixed columns; each channel's column and its `_unit` follow them, as the channels are met."""

_INTEGERS = {
    "block_index",
    "sample_index",
    "t_mono_ns",
    "sensor_status",
    "first_sample_index",
    "samples_per_channel",
    "block_period_ns",
    "t_midpoint_mono_ns",
    "is_linearised",
    "reading_index",
    "record_index",
    "from_index",
    "to_index",
    "first_sample",
    "end_sample",
    "next",
    "backfilled",
}
_REALS = {"value", "sample_rate_hz", "elapsed_s", "latency_s"}


def _table(name: str, columns: tuple[str, ...], *, key: tuple[str, ...] = (), text: str = "") -> str:
    """Return CREATE TABLE with types by the columns' names; `text` names one that is text in this table only."""
    typed = [f"{quoted(column)} {'TEXT' if column == text else _type(column)}" for column in columns]
    primary = [f"PRIMARY KEY ({', '.join(map(quoted, key))})"] if key else []
    return f"CREATE TABLE IF NOT EXISTS {name} ({', '.join([*typed, *primary])})"


def _type(column: str) -> str:
    if column == "frames":
        return "BLOB"
    return "INTEGER" if column in _INTEGERS else "REAL" if column in _REALS else "TEXT"


CREATE = (
    _table("dtolbus", ("key", "value"), key=("key",), text="value"),
    _table("runs", ("run_id", "stream", "header"), key=("run_id", "stream")),
    _table("dtolbus_position", ("run_id", "stream", "next", "backfilled", "updated_at"), key=("run_id", "stream")),
    _table("dtolbus_columns", ("device", "task", "channel", "column"), key=("device", "task", "channel")),
    # No key and no index: either halves the rate of inserts. The position's compare-and-set keeps rows from doubling,
    # and the rows of a run lie in order, so a reader scans.
    _table("samples", SAMPLE_COLUMNS),
    _table("blocks", BLOCK_COLUMNS, key=("run_id", "device", "task", "block_index")),
    _table("readings", READING_COLUMNS, key=("run_id", "reading_index"), text=STATUS_COLUMN),
    _table("events", EVENT_COLUMNS, key=("run_id", "stream", "record_index")),
    _table("gaps", GAP_COLUMNS, key=("run_id", "stream", "from_index")),
    _table("put_aside", PUT_ASIDE_COLUMNS, key=("run_id", "stream", "record_index")),
)
