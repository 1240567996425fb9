"""How the table of samples is laid out in Postgres: its index, its partitions, whether it is a hypertable."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from dtolbus.errors import UsageError
from dtolbus_workers.postgres_tables import BusTables, quoted

SamplesIndex = Literal["none", "brin"]
SamplesPartition = Literal["none", "month"]

_INDEXED = "run_id, block_index, t_utc"
_BY_TIME = "RANGE (t_utc)"
_FOUND = (
    "SELECT pg_get_partkeydef(c.oid), EXISTS (SELECT 1 FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid "
    "JOIN pg_am a ON a.oid = x.relam WHERE i.indrelid = c.oid AND a.amname = 'brin') "
    "FROM pg_class c WHERE c.oid = $1::regclass"
)
_HAS_HYPERTABLES = "SELECT to_regclass('timescaledb_information.hypertables') IS NOT NULL"
_IS_HYPERTABLE = (
    "SELECT EXISTS (SELECT 1 FROM timescaledb_information.hypertables "
    "WHERE hypertable_schema = $1 AND hypertable_name = $2)"
)
_EXTENSION = (
    "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'"
)
_AVAILABLE = "SELECT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb')"


@dataclass(frozen=True)
class SamplesLayout:
    """How `samples` is to be made; None leaves it to what is there, and where nothing is, to the usual.

    Raises:
        UsageError: the values do not go together, or are none.
    """

    index: SamplesIndex | None = None
    """`brin` (usual): a small index by run, block and time; it costs a tenth of the rate."""
    partition: SamplesPartition | None = None
    """`month`: a partition for each month of `t_utc`, made by the commit that needs it; `none` (usual)."""
    hypertable: bool = False
    """A hypertable of TimescaleDB, where the database has that extension."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail late."""
        for name, value, allowed in (
            ("index", self.index, get_args(SamplesIndex)),
            ("partition", self.partition, get_args(SamplesPartition)),
        ):
            if value is not None and value not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if self.hypertable and self.partition == "month":
            raise UsageError(
                "--hypertable and --partition month: a hypertable has its own parts; leave one of them out"
            )


class FoundLayout(NamedTuple):
    """How `samples` is."""

    key: str | None
    """What it is partitioned by."""
    has_brin: bool
    is_hypertable: bool

    @property
    def is_by_month(self) -> bool:
        """Whether it takes partitions by time."""
        return self.key == _BY_TIME


async def found_layout(connection: Any, tables: BusTables) -> FoundLayout:
    """Return how `samples`, which is there, is laid out."""
    key, has_brin = await connection.fetchrow(_FOUND, tables["samples"])
    is_hypertable = await connection.fetchval(_HAS_HYPERTABLES) and await connection.fetchval(
        _IS_HYPERTABLE, tables.schema, tables.names["samples"]
    )
    return FoundLayout(key, has_brin, bool(is_hypertable))


def contradiction(asked: SamplesLayout, found: FoundLayout) -> str | None:
    """Return how the table that is there is another one than was asked for, or None; its index can still be changed."""
    if asked.hypertable and not found.is_hypertable:
        return "--hypertable was asked for, and it is a plain table"
    if asked.partition == "month" and not found.is_by_month:
        return (
            f"--partition month was asked for, and it is {f'partitioned by {found.key}' if found.key else 'one table'}"
        )
    if asked.partition == "none" and found.key:
        return f"--partition none was asked for, and it is partitioned by {found.key}"
    return None


def index_remark(asked: SamplesLayout, found: FoundLayout, table: str) -> str | None:
    """Return what is to be said of an index that is there against what was asked for, or the reverse."""
    if asked.index == "brin" and not found.has_brin:
        return f"it has no BRIN index; make one, if it is wanted: CREATE INDEX ON {table} USING brin ({_INDEXED})"
    if asked.index == "none" and found.has_brin:
        return "it has a BRIN index; drop that, if it is not wanted"
    return None


def samples_statements(tables: BusTables, layout: SamplesLayout, extension: str | None) -> list[str]:
    """Return what makes `samples`; `extension` is the schema of TimescaleDB, where that is to be used."""
    by_month = f" PARTITION BY {_BY_TIME}" if layout.partition == "month" else ""
    statements = [tables.create("samples") + by_month]
    if extension is not None:
        name = tables["samples"].replace("'", "''")
        statements.append(
            f"SELECT {quoted(extension)}.create_hypertable('{name}', 't_utc', create_default_indexes => false)"
        )
    if layout.index != "none":
        # the position keeps samples from doubling; a B-tree would cost 70 % of the rate, BRIN 10 %
        statements.append(f"CREATE INDEX ON {tables['samples']} USING brin ({_INDEXED})")
    return statements


async def timescale_schema(connection: Any) -> str:
    """Return the schema of TimescaleDB's functions.

    Raises:
        ValueError: the database does not have it; what to do.
    """
    schema = await connection.fetchval(_EXTENSION)
    if schema is not None:
        return str(schema)
    if await connection.fetchval(_AVAILABLE):
        raise ValueError("TimescaleDB is installed, but not in this database: CREATE EXTENSION timescaledb there first")
    raise ValueError(
        "this server has no TimescaleDB: install it, or leave --hypertable out (--partition month needs none)"
    )
