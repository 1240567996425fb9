"""Names are never SQL: whatever a device, a task or a channel is called, it is stored, and nothing else happens."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.workers.postgres import query

from dtolbus.errors import UsageError
from dtolbus.records import Record, RunInfo
from dtolbus_workers.certificate import Line, compare
from dtolbus_workers.destination import RecordRefusedError, RunBatch
from dtolbus_workers.postgres import PostgresConfig, PostgresSink
from dtolbus_workers.postgres_destination import PostgresDestination, stored
from dtolbus_workers.specimens import make_batch, make_block, make_event, make_reading, make_run
from dtolbus_workers.sqlite import SqliteSink
from dtolbus_workers.sqlite_destination import SqliteDestination

INJECTION = '"; DROP TABLE kept; --'
NAMES = (
    *(
        INJECTION,
        "'; DROP TABLE kept; --",
        '"',
        '""',
        "'",
        "''",
        "\\",
        "\\'",
        "a\"b'c`d",
        "$1",
        "%s",
        "?",
        ":name",
        "{readings}",
    ),
    *("select", "user", "table", "order", "group", "SELECT", "oid", "ctid", "xmin", "tableoid", "rowid", "_rowid_"),
    *("n" * 58, "n" * 59, "n" * 63, "n" * 64, "ü" * 29, "ü" * 30, "日" * 19 + "a", "日" * 20, "日" * 21),
    *(
        "é",
        "e\u0301",
        "\u2126",
        "\u03a9",
        "ı",
        "I",
        "ß",
        "SS",
        "a b",
        " a",
        "a ",
        "a\tb",
        "a\nb",
        "\u202e",
        "🦆",
        "/* */",
        "--",
    ),
)
"""58 bytes and `_unit` are 63, the longest name of PostgreSQL."""
TEXT = f"{INJECTION} ' \\ $$"


def runs() -> list[tuple[RunInfo, list[Record]]]:
    readings = msgspec.structs.replace(make_run("readings", channels=NAMES), device=INJECTION, task="'; --")
    blocks = msgspec.structs.replace(make_run("blocks", number=2, channels=NAMES), device="select", task=INJECTION)
    readings, blocks = (
        msgspec.structs.replace(
            run, channels=tuple(msgspec.structs.replace(channel, unit=channel.name) for channel in run.channels)
        )
        for run in (readings, blocks)
    )
    odd: dict[str, Any] = {name: TEXT if place % 2 else 2**60 + 1 for place, name in enumerate(NAMES)}
    return [
        (readings, [make_reading(readings, 0), make_reading(readings, 1, odd)]),
        (blocks, [make_block(blocks, 0), make_event(blocks, 1, kind=INJECTION, message=TEXT)]),
    ]


async def committed(destination: Any) -> None:
    await destination.open()
    for run, records in runs():
        await destination.commit(make_batch(run, 0, records))
    await destination.close()


def complete(kind: str, run: RunInfo, records: list[Record], found: Any) -> None:
    line = Line(kind, "stream", run.run_id, "ended", len(records))
    compare(line, iter(records), found, kind)
    assert line.complete, line


def test_sqlite_stores_every_name(tmp_path: Path) -> None:
    place = tmp_path / "lab.sqlite"
    asyncio.run(committed(SqliteDestination(place, blocks="both")))
    for run, records in runs():
        complete("sqlite", run, records, SqliteDestination.stored(str(place), {}, run))
    with sqlite3.connect(place) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"readings", "blocks", "samples"} <= tables


def test_postgres_stores_every_name_and_drops_nothing(postgres_dsn: str) -> None:
    query(postgres_dsn, "CREATE TABLE public.kept (a int)")
    config = PostgresConfig(dsn=postgres_dsn, schema="lab", create_tables=True)
    asyncio.run(committed(PostgresDestination(config, blocks="both")))
    for run, records in runs():
        complete("postgres", run, records, stored(config, run))
    assert query(postgres_dsn, "SELECT count(*) FROM public.kept") == [(0,)]
    columns = query(
        postgres_dsn, "SELECT octet_length(column_name) FROM information_schema.columns WHERE table_schema = 'lab'"
    )
    assert max(length for (length,) in columns) <= 63


def test_stand_alone_sinks_store_every_name(tmp_path: Path, postgres_dsn: str) -> None:
    query(postgres_dsn, "CREATE TABLE public.kept (a int)")
    run, records = runs()[0]

    async def written() -> None:
        for sink in (
            SqliteSink(tmp_path / "lab.sqlite"),
            PostgresSink(PostgresConfig(dsn=postgres_dsn, create_tables=True)),
        ):
            async with sink:
                await sink.write_many([records[0]])

    asyncio.run(written())
    assert query(postgres_dsn, "SELECT count(*) FROM public.kept") == [(0,)]
    ((row,),) = query(postgres_dsn, "SELECT to_json(readings.*)::text FROM readings")
    found = msgspec.json.decode(row)
    assert (found["device"], found["task"]) == (run.device, run.task)
    assert len(found) >= 2 * len(set(NAMES))


@pytest.mark.parametrize("name", [INJECTION, "a;b", 'a"b', "", "1a", "a b", "ü", "n" * 64, "a\0b"])
def test_a_schema_or_a_table_that_is_no_plain_name_is_refused(name: str) -> None:
    for key in ("schema", "table_readings", "table_blocks"):
        with pytest.raises(ValueError, match=f"{key} must match"):
            PostgresConfig(dsn="postgresql://h/d", **{key: name})  # type: ignore[arg-type]


def test_text_with_a_nul_is_put_aside_and_what_says_no_record_is_stored_without(postgres_dsn: str) -> None:
    run = msgspec.structs.replace(make_run("blocks", channels=("a\0b", "c")), meta={"\0": "\0"})
    config = PostgresConfig(dsn=postgres_dsn, schema="lab", create_tables=True)

    async def stored_all() -> dict[int, str]:
        destination = PostgresDestination(config, blocks="both")
        await destination.open()
        batch = make_batch(run, 0, [make_block(run, 0), make_event(run, 1, kind="\0", message="\0")])
        aside: dict[int, str] = {}
        while True:
            try:
                await destination.commit(RunBatch(**{**vars(batch), "put_aside": aside}))
                break
            except RecordRefusedError as refused:
                aside = {refused.index: refused.reason, **aside}
        await destination.close()
        return aside

    assert set(asyncio.run(stored_all())) <= {0, 1}
    found = stored(config, run)
    assert found is not None
    assert found.position.next == 2


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError):
        SqliteDestination("x", blocks=INJECTION)  # type: ignore[arg-type]
