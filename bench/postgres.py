"""Samples into PostgreSQL, against the server's own COPY of a file and asyncpg's of records."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from bench.measuring import Case, at_least
from bench.registry import Setting
from bench.storing import Opened, Stream, rows_by_hand, took_s
from dtolbus.records import DaqBlock
from dtolbus_producer.postgres_embedded import EmbeddedPostgres
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.pgcopy import sample_rows, stream
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination
from dtolbus_workers.postgres_layout import SamplesLayout

BLOCKS = 10
"""In a COPY."""
ROWS = BLOCKS * 8000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def cases(setting: Setting) -> Iterator[Case]:
    copies = 1 if setting.quick else 4
    made, theirs = Stream(), Stream()
    setting.folder.chmod(0o755)  # the server has a user of its own
    with EmbeddedPostgres(setting.folder) as server:
        config = PostgresConfig(dsn=server.dsn, command_timeout_s=60.0)
        destination = PostgresDestination(config, blocks="samples", layout=SamplesLayout(index="none"))
        with Opened(destination) as sink:
            beside = sink.loop.run(asyncpg.connect(server.dsn))
            run = _runner(sink.loop)
            run(lambda: beside.execute("ALTER TABLE samples SET UNLOGGED"))
            run(lambda: beside.execute("CREATE UNLOGGED TABLE reference (LIKE samples)"))
            path = _file(setting.folder / "samples.bin", theirs.blocks(BLOCKS))

            def ours() -> float:
                run(lambda: beside.execute("TRUNCATE samples"))
                return copies * ROWS / sink.commit_s([made.batch(BLOCKS) for _ in range(copies)])

            def by_the_server() -> float:
                run(lambda: beside.execute("TRUNCATE reference"))
                copy = f"COPY reference FROM '{path}' (FORMAT binary)"
                return copies * ROWS / took_s(lambda: [run(lambda: beside.execute(copy)) for _ in range(copies)])

            def by_records() -> float:
                run(lambda: beside.execute("TRUNCATE reference"))
                blocks = theirs.blocks(BLOCKS)
                return ROWS / took_s(lambda: run(lambda: _copy_records(beside, blocks)))

            what = f"{BLOCKS} blocks of 8 × 1000 a COPY, unlogged, no index, against"
            yield Case(
                "postgres-samples", f"{what} the server's own of a file", "rows/s", ours, by_the_server, at_least(0.8)
            )
            yield Case(
                "postgres-samples",
                f"{what} asyncpg's of records",
                "rows/s",
                ours,
                by_records,
                at_least(2.5),
                note=lambda: _most(by_the_server, by_records),
            )
            run(lambda: beside.close())


def _most(by_the_server: Callable[[], float], by_records: Callable[[], float]) -> str:
    """Return how far the server gets alone, which makes no rows and is sent none."""
    alone, referred = (
        median(rates) for rates in zip(*((by_the_server(), by_records()) for _ in range(3)), strict=True)
    )
    return f"the server's own COPY of a file: {alone:,.0f} rows/s, {alone / referred:.2f} of the reference"


def _runner(loop: asyncio.Runner) -> Callable[[Callable[[], Any]], Any]:
    async def awaited(call: Callable[[], Any]) -> Any:
        return await call()

    return lambda call: loop.run(awaited(call))


def _file(path: Path, blocks: list[DaqBlock]) -> Path:
    path.write_bytes(stream([rows for block in blocks for rows in sample_rows(block)]))
    path.chmod(0o644)
    return path


async def _copy_records(connection: Any, blocks: list[DaqBlock]) -> None:
    rows = (row for block in blocks for row in rows_by_hand(block, _instants(block)))
    await connection.copy_records_to_table("reference", columns=SAMPLE_COLUMNS, records=rows)


def _instants(block: DaqBlock) -> list[Any]:
    micros = ((block.sample_offsets_ns() + block.t_utc_ns) // 1000).tolist()
    return [_EPOCH + timedelta(microseconds=micro) for micro in micros]
