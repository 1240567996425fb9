"""Whatever is done to what a sink holds is seen: never COMPLETE where anything is missing, doubled or changed."""

import asyncio
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.workers.postgres import query

from dtolbus.parquet.footer import PART_KEY
from dtolbus.records import DaqBlock, DaqReading, Record, RunInfo
from dtolbus.runs import RunFolder
from dtolbus_producer.journal import RunWriter
from dtolbus_workers import text_folder
from dtolbus_workers.certificate import Line, compare
from dtolbus_workers.destination import RecordRefusedError
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.postgres_config import PostgresConfig
from dtolbus_workers.postgres_destination import PostgresDestination
from dtolbus_workers.postgres_stored import stored as postgres_stored
from dtolbus_workers.specimens import error_reading, make_batch, make_block, make_event, make_reading, make_run
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.text_destination import CsvDestination, JsonlDestination

CHANNELS = ("ai0", "ai1", "ai2")
BLOCKS = make_run("blocks", channels=CHANNELS)
READINGS = make_run("readings", number=2, channels=CHANNELS)
EMPTY = 4
NAN = float("nan")


def _journaled() -> dict[str, list[Record]]:
    status = {"ai1": [0, 0, 3, 0, 0, 0, 1, 0, 0, 0]}
    return {
        BLOCKS.run_id: [
            make_block(BLOCKS, 0),
            make_block(BLOCKS, 1),
            make_block(BLOCKS, 2, sensor_status=status),
            make_event(BLOCKS, 3),
            make_block(BLOCKS, EMPTY, samples=0, first_sample=30),
            make_block(BLOCKS, 5, first_sample=30),
        ],
        READINGS.run_id: [
            make_reading(READINGS, 0),
            make_reading(READINGS, 1, {"ai0": NAN, "ai1": 1, "ai2": "open"}, sensor_status={"ai0": 1}),
            error_reading(READINGS, 2),
            make_event(READINGS, 3),
            make_reading(READINGS, 4, {"ai0": 2**70}),
            make_reading(READINGS, 5),
        ],
    }


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    place = tmp_path_factory.mktemp("journal")
    folders = {}
    for run in (BLOCKS, READINGS):
        writer = RunWriter(place, run)
        for record in _journaled()[run.run_id]:
            writer.append(record)
        writer.close()
        folders[run.run_id] = RunFolder(writer.path)
    return folders


def commit_journal(destination: Any, journal: dict[str, RunFolder]) -> None:
    """Commit both runs in two batches each, as a worker does."""

    async def go() -> None:
        await destination.open()
        for run in (BLOCKS, READINGS):
            records = [r for r in journal[run.run_id].records(0, 6) if isinstance(r, Record)]
            assert len(records) == 6
            for start, end in ((0, 3), (3, 6)):
                aside: dict[int, str] = {}
                try:
                    await destination.commit(make_batch(run, start, records[start:end]))
                except RecordRefusedError as refused:
                    aside[refused.index] = refused.reason
                    await destination.commit(make_batch(run, start, records[start:end], put_aside=aside))
        await destination.close()

    asyncio.run(go())


def judged(kind: str, stored: Any, journal: dict[str, RunFolder], run: RunInfo, mode: str | None) -> Line:
    line = Line(kind, "stream", run.run_id, "ended", 6)
    assert stored is not None
    compare(line, journal[run.run_id].records(0, 6), stored, kind, blocks_mode=mode, run=run)
    return line


def assert_seen(line: Line, words: str) -> None:
    assert not line.complete
    told = f"{line.missing} missing; {line.duplicates} twice; {'; '.join(line.remarks)}"
    assert words in told, told


# ---- SQL ----

OTHER = "019b0000-0000-7000-8000-000000000099"
STREAM = "sim0/temperature"
SQL: list[tuple[RunInfo, str, str]] = [
    (BLOCKS, "DELETE FROM samples", "without its samples"),
    (BLOCKS, "DELETE FROM blocks", "without its summary"),
    (BLOCKS, "DELETE FROM samples WHERE block_index = 1", "block 1 is stored without its samples"),
    (BLOCKS, "DELETE FROM blocks WHERE block_index = 1", "block 1 is stored without its summary"),
    (BLOCKS, f"DELETE FROM blocks WHERE block_index = {EMPTY}", "1 missing"),
    (BLOCKS, "DELETE FROM samples WHERE block_index = 1 AND channel = 'ai1'", "block 1 differs"),
    (BLOCKS, "DELETE FROM samples WHERE block_index = 1 AND sample_index = 19", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET sample_index = sample_index + 1 WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET sample_index = 29 - sample_index WHERE block_index = 1", "block 1 differs"),
    (
        BLOCKS,
        "UPDATE samples SET channel = CASE channel WHEN 'ai0' THEN 'ai1' WHEN 'ai1' THEN 'ai0' ELSE channel END "
        "WHERE block_index = 1",
        "block 1 differs",
    ),
    (BLOCKS, "UPDATE samples SET channel = 'other' WHERE block_index = 1 AND channel = 'ai2'", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET t_mono_ns = t_mono_ns + 1 WHERE sample_index = 15", "block 1 differs"),
    (
        BLOCKS,
        "UPDATE samples SET t_utc = (SELECT max(t_utc) FROM samples) WHERE sample_index = 15 AND channel = 'ai1'",
        "block 1 differs",
    ),
    (BLOCKS, "UPDATE samples SET unit = 'mV' WHERE sample_index = 15", "block 1"),
    (BLOCKS, "UPDATE samples SET unit = NULL WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET device = 'other' WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET task = NULL WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, f"UPDATE samples SET run_id = '{OTHER}' WHERE block_index = 1", "block 1 is stored without its samples"),
    (BLOCKS, "UPDATE samples SET sensor_status = 1 WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET sensor_status = 0 WHERE block_index = 2 AND channel = 'ai1'", "block 2 differs"),
    (BLOCKS, "UPDATE samples SET error_type = 'E' WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET error_message = 'E' WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET value = value + 1 WHERE sample_index = 15", "block 1 differs"),
    (BLOCKS, "UPDATE samples SET value = NULL WHERE block_index = 1", ""),
    (BLOCKS, "INSERT INTO samples SELECT * FROM samples WHERE block_index = 1", "block"),
    (BLOCKS, "UPDATE blocks SET t_mono_ns = t_mono_ns + 1 WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE blocks SET t_utc = (SELECT max(t_utc) FROM blocks) WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE blocks SET device = 'other' WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE blocks SET elapsed_s = 7 WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE blocks SET units = '[]' WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, "UPDATE blocks SET samples_per_channel = 0 WHERE block_index = 1", "block 1 differs"),
    (BLOCKS, f"UPDATE blocks SET error_type = 'E' WHERE block_index = {EMPTY}", f"block {EMPTY} differs"),
    *(
        (READINGS, f"UPDATE readings SET {change} WHERE reading_index = 5", "reading 5 differs")
        for change in (
            "t_mono_ns = t_mono_ns + 1",
            "t_midpoint_mono_ns = NULL",
            "t_utc = (SELECT min(t_utc) FROM readings)",
            "requested_at = (SELECT min(requested_at) FROM readings)",
            "received_at = (SELECT min(received_at) FROM readings)",
            "latency_s = 1",
            "ai0_unit = 'mV'",
            "ai0_unit = NULL",
            "error_type = 'E'",
            "error_message = 'E'",
            "device = 'other'",
            "task = 'other'",
            "ai0 = ai0 + 1",
            "sensor_status = '{\"ai0\":2}'",
        )
    ),
    (READINGS, "UPDATE readings SET sensor_status = NULL WHERE reading_index = 1", "reading 1 differs"),
    (READINGS, "UPDATE readings SET error_message = NULL WHERE reading_index = 2", "reading 2 differs"),
    (READINGS, "DELETE FROM readings WHERE reading_index = 5", "position is 6, what it holds ends at 5"),
    (READINGS, f"UPDATE readings SET run_id = '{OTHER}' WHERE reading_index = 1", "1 missing"),
    (BLOCKS, "UPDATE events SET kind = 'other'", "event 3 differs"),
    (BLOCKS, "UPDATE events SET message = ''", "event 3 differs"),
    (BLOCKS, "UPDATE events SET sample_index = 1", "event 3 differs"),
    (BLOCKS, "UPDATE events SET t_utc = (SELECT max(t_utc) FROM readings)", "event 3 differs"),
    (BLOCKS, "DELETE FROM events", "1 missing"),
    (
        READINGS,
        f"INSERT INTO events SELECT run_id, stream, 1, 10, t_utc, kind, message FROM events WHERE stream = '{STREAM}'",
        "1 records that the journal does not have",
    ),
    (
        READINGS,
        f"INSERT INTO gaps VALUES ('{READINGS.run_id}', '{STREAM}', 1, 2, NULL, NULL, 'lost')",
        "gap 1, which the journal has",
    ),
    (
        READINGS,
        "DELETE FROM readings WHERE reading_index = 1; "
        f"INSERT INTO gaps VALUES ('{READINGS.run_id}', '{STREAM}', 1, 2, NULL, NULL, 'lost')",
        "1 missing",
    ),
    (
        READINGS,
        "DELETE FROM readings WHERE reading_index = 1; "
        "INSERT INTO put_aside SELECT run_id, stream, 1, reason, frames FROM put_aside",
        "record 1 is put aside without need",
    ),
    (READINGS, "DELETE FROM put_aside", "1 missing"),
    (READINGS, "UPDATE put_aside SET frames = 'abc'", "record put aside 4 differs"),
    (BLOCKS, "UPDATE dtolbus_position SET next = next + 1", "its position is 7, what it holds ends at 6"),
    (BLOCKS, "UPDATE dtolbus_position SET next = next - 1", "its position is 5, what it holds ends at 6"),
    (BLOCKS, "DELETE FROM runs", "the run's header is not there"),
    (BLOCKS, "UPDATE runs SET header = '{}'", "the run's header is not the journal's"),
    (BLOCKS, "UPDATE runs SET header = replace(CAST(header AS text), 'Zo', 'Bo')HEADER_CAST", "header is not the"),
]


@pytest.fixture(scope="module")
def sqlite_files(tmp_path_factory: pytest.TempPathFactory, journal: dict[str, RunFolder]) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("sqlite")
    made = {mode: place / f"{mode}.sqlite" for mode in ("summary", "samples", "both")}
    for mode, path in made.items():
        commit_journal(SqliteDestination(path, blocks=mode), journal)  # type: ignore[arg-type]  # one of its modes
    return made


def damaged_sqlite(template: Path, place: Path, statements: str) -> Path:
    path = place / "bus.sqlite"
    shutil.copy(template, path)
    connection = sqlite3.connect(path)
    connection.executescript(statements.replace("HEADER_CAST", ""))
    connection.close()
    return path


@pytest.mark.parametrize("mode", ["summary", "samples", "both"])
@pytest.mark.parametrize("run", [BLOCKS, READINGS], ids=["blocks", "readings"])
def test_an_undamaged_sqlite_file_is_complete(
    run: RunInfo, mode: str, journal: dict[str, RunFolder], sqlite_files: dict[str, Path]
) -> None:
    line = judged("sqlite", SqliteDestination.stored(str(sqlite_files[mode]), {}, run), journal, run, mode)
    assert line.complete, line.remarks


@pytest.mark.parametrize(("run", "statements", "words"), SQL, ids=[case[1][:60] for case in SQL])
def test_sqlite(
    run: RunInfo,
    statements: str,
    words: str,
    tmp_path: Path,
    journal: dict[str, RunFolder],
    sqlite_files: dict[str, Path],
) -> None:
    path = damaged_sqlite(sqlite_files["both"], tmp_path, statements)
    assert_seen(judged("sqlite", SqliteDestination.stored(str(path), {}, run), journal, run, "both"), words)


@pytest.mark.parametrize(("mode", "table"), [("summary", "blocks"), ("samples", "samples")])
def test_one_half_alone(
    mode: str, table: str, tmp_path: Path, journal: dict[str, RunFolder], sqlite_files: dict[str, Path]
) -> None:
    path = damaged_sqlite(sqlite_files[mode], tmp_path, f"DELETE FROM {table} WHERE block_index = 1")
    line = judged("sqlite", SqliteDestination.stored(str(path), {}, BLOCKS), journal, BLOCKS, mode)
    assert_seen(line, "1 missing")


@pytest.fixture(scope="module")
def postgres_template(postgres_server: str, journal: dict[str, RunFolder]) -> Iterator[str]:
    name = f"damage_{uuid.uuid4().hex}"
    query(postgres_server, f"CREATE DATABASE {name}")
    dsn = urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    commit_journal(PostgresDestination(PostgresConfig(dsn=dsn), blocks="both"), journal)
    yield name
    query(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_copy(postgres_server: str, postgres_template: str) -> Iterator[str]:
    name = f"damaged_{uuid.uuid4().hex}"
    query(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    query(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("run", [BLOCKS, READINGS], ids=["blocks", "readings"])
def test_an_undamaged_database_is_complete(run: RunInfo, journal: dict[str, RunFolder], postgres_copy: str) -> None:
    line = judged("postgres", postgres_stored(PostgresConfig(dsn=postgres_copy), run), journal, run, "both")
    assert line.complete, line.remarks


@pytest.mark.parametrize(("run", "statements", "words"), SQL, ids=[case[1][:60] for case in SQL])
def test_postgres(run: RunInfo, statements: str, words: str, journal: dict[str, RunFolder], postgres_copy: str) -> None:
    for statement in statements.replace(")HEADER_CAST", ")::json").split("; "):
        query(postgres_copy, statement)
    found = postgres_stored(PostgresConfig(dsn=postgres_copy), run)
    assert_seen(judged("postgres", found, journal, run, "both"), words)


# ---- Parquet ----


@pytest.fixture(scope="module")
def parquet_folder(tmp_path_factory: pytest.TempPathFactory, journal: dict[str, RunFolder]) -> Path:
    place = tmp_path_factory.mktemp("parquet")
    commit_journal(ParquetDestination(place), journal)
    return place


def parts(place: Path, run: RunInfo) -> list[Path]:
    return sorted(place.glob(f"*/*/{run.run_id}/part-*.parquet"))


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = change(pq.read_table(path, partitioning=None))
    pq.write_table(table, path)


def column_changed(name: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    def apply(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        cells = change(table.column(name).to_pylist())
        return table.set_column(place, table.schema.field(name), pa.array(cells, table.schema.field(name).type))

    return apply


def footer_changed(change: Callable[[dict[str, Any]], None]) -> Callable[[pa.Table], pa.Table]:
    def apply(table: pa.Table) -> pa.Table:
        metadata = dict(table.schema.metadata)
        part = msgspec.json.decode(metadata[PART_KEY.encode()])
        change(part)
        return table.replace_schema_metadata({**metadata, PART_KEY.encode(): msgspec.json.encode(part)})

    return apply


def plus_one(cells: list[Any]) -> list[Any]:
    return [None if cell is None else cell + 1 for cell in cells]


def others(cells: list[Any]) -> list[Any]:
    return ["other"] * len(cells)


def later(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("t_utc")
    ns = pc.add(table.column("t_utc").cast(pa.int64()), 1)
    return table.set_column(place, table.schema.field("t_utc"), ns.cast(pa.timestamp("ns", "UTC")))


PARQUET: list[tuple[RunInfo, int, Callable[[pa.Table], pa.Table], str]] = [
    (BLOCKS, 0, column_changed("sample_index", plus_one), "block 0 differs"),
    (BLOCKS, 0, column_changed("sample_index", lambda cells: cells[:10][::-1] + cells[10:]), "block 0 differs"),
    (BLOCKS, 0, column_changed("t_mono_ns", plus_one), "block 0 differs"),
    (BLOCKS, 0, later, "block 0 differs"),
    (BLOCKS, 0, column_changed("value", plus_one), "block 0 differs"),
    (BLOCKS, 0, column_changed("value", lambda cells: [None, *cells[1:]]), "blocks cannot be read on"),
    (BLOCKS, 0, column_changed("sensor_status", lambda cells: [1] * len(cells)), "block 0 differs"),
    *(
        (BLOCKS, 0, column_changed(name, others), "block 0 differs")
        for name in ("run_id", "device", "task", "channel", "unit", "error_type", "error_message")
    ),
    (
        BLOCKS,
        0,
        column_changed("channel", lambda cells: [{"ai0": "ai1", "ai1": "ai0"}.get(c, c) for c in cells]),
        "block 0 differs",
    ),
    (BLOCKS, 0, lambda table: table.slice(0, len(table) - 1), "block 2 differs"),
    (BLOCKS, 0, lambda table: table.drop_columns(["unit"]), "cannot be read on"),
    (BLOCKS, 1, footer_changed(lambda part: part.update(events=[])), "1 missing"),
    (BLOCKS, 1, footer_changed(lambda part: part["events"][0].update(message="")), "event 3 differs"),
    (BLOCKS, 1, footer_changed(lambda part: part.update(empty_blocks=[])), "1 missing"),
    (BLOCKS, 1, footer_changed(lambda part: part["empty_blocks"][0].update(first_sample_index=9)), "block 4 differs"),
    (BLOCKS, 1, footer_changed(lambda part: part.update(to_index=7)), "its position is 7, what it holds ends at 6"),
    (BLOCKS, 1, footer_changed(lambda part: part["run"].update(meta={})), "header is not the journal's"),
    *(
        (READINGS, 0, column_changed(name, plus_one), "reading 0 differs")
        for name in ("t_mono_ns", "t_midpoint_mono_ns", "latency_s", "ai0")
    ),
    (READINGS, 0, later, "reading 0 differs"),
    *(
        (READINGS, 0, column_changed(name, others), "reading 0 differs")
        for name in ("run_id", "device", "task", "ai0_unit", "error_type", "error_message", "sensor_status")
    ),
    (READINGS, 1, footer_changed(lambda part: part.update(put_aside=[])), "1 missing"),
    (READINGS, 1, footer_changed(lambda part: part["put_aside"][0].update(record_index=5)), "aside without need"),
]


@pytest.mark.parametrize("run", [BLOCKS, READINGS], ids=["blocks", "readings"])
def test_an_undamaged_parquet_folder_is_complete(
    run: RunInfo, journal: dict[str, RunFolder], parquet_folder: Path
) -> None:
    line = judged("parquet", ParquetDestination.stored(str(parquet_folder), {}, run), journal, run, None)
    assert line.complete, line.remarks


@pytest.mark.parametrize(("run", "part", "change", "words"), PARQUET)
def test_parquet(
    run: RunInfo,
    part: int,
    change: Callable[[pa.Table], pa.Table],
    words: str,
    tmp_path: Path,
    journal: dict[str, RunFolder],
    parquet_folder: Path,
) -> None:
    place = shutil.copytree(parquet_folder, tmp_path / "parquet")
    rewritten(parts(place, run)[part], change)
    assert_seen(judged("parquet", ParquetDestination.stored(str(place), {}, run), journal, run, None), words)


def test_a_parquet_part_missing_or_doubled(tmp_path: Path, journal: dict[str, RunFolder], parquet_folder: Path) -> None:
    place = shutil.copytree(parquet_folder, tmp_path / "parquet")
    first, second = parts(place, BLOCKS)
    shutil.copy(first, first.with_name("part-000000000009.parquet"))
    assert_seen(
        judged("parquet", ParquetDestination.stored(str(place), {}, BLOCKS), journal, BLOCKS, None), "begins at"
    )
    first.with_name("part-000000000009.parquet").unlink()
    first.unlink()
    assert_seen(
        judged("parquet", ParquetDestination.stored(str(place), {}, BLOCKS), journal, BLOCKS, None), "3 missing"
    )
    assert second.exists()


# ---- CSV and JSON lines ----

TEXTS = {"csv": CsvDestination, "jsonl": JsonlDestination}


@pytest.fixture(scope="module")
def text_folders(tmp_path_factory: pytest.TempPathFactory, journal: dict[str, RunFolder]) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("text")
    for kind, destination in TEXTS.items():
        for mode in ("samples", "summary"):
            commit_journal(destination(place / f"{kind}-{mode}", blocks=mode), journal)
    return {f"{kind}-{mode}": place / f"{kind}-{mode}" for kind in TEXTS for mode in ("samples", "summary")}


def judged_text(kind: str, place: Path, journal: dict[str, RunFolder], run: RunInfo, mode: str) -> Line:
    return judged(kind, TEXTS[kind].stored(str(place), {}, run), journal, run, mode)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("mode", ["samples", "summary"])
@pytest.mark.parametrize("run", [BLOCKS, READINGS], ids=["blocks", "readings"])
def test_an_undamaged_text_folder_is_complete(
    run: RunInfo, mode: str, kind: str, journal: dict[str, RunFolder], text_folders: dict[str, Path]
) -> None:
    line = judged_text(kind, text_folders[f"{kind}-{mode}"], journal, run, mode)
    assert line.complete, line.remarks


@pytest.mark.parametrize("kind", TEXTS)
def test_a_channel_named_like_a_column_of_blocks(kind: str, tmp_path: Path) -> None:
    run = make_run("readings", channels=("sample_index", "samples_per_channel", "block_index"))
    batch = make_batch(run, 0, 3)

    async def go() -> None:
        destination = TEXTS[kind](tmp_path)
        await destination.open()
        await destination.commit(batch)
        await destination.close()

    asyncio.run(go())
    line = Line(kind, "stream", run.run_id, "ended", 3)
    found = TEXTS[kind].stored(str(tmp_path), {}, run)
    assert found is not None
    compare(line, iter(batch.records), found, kind, run=run)
    assert line.complete, line.remarks


def last_line_doubled(data: bytes) -> bytes:
    return data + data.splitlines(keepends=True)[-1]


TEXT_LENGTHS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("last byte cut", lambda data: data[:-1]),
    ("garbage at the end", lambda data: data + b"\xff\x00garbage"),
    ("last line doubled", last_line_doubled),
    ("cut to half", lambda data: data[: len(data) // 2]),
    ("emptied", lambda data: b""),
]


@pytest.mark.parametrize("ending", ["DATA", "events.jsonl"])
@pytest.mark.parametrize("change", [case[1] for case in TEXT_LENGTHS], ids=[case[0] for case in TEXT_LENGTHS])
@pytest.mark.parametrize("run", [BLOCKS, READINGS], ids=["blocks", "readings"])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_file_of_another_length(
    kind: str,
    run: RunInfo,
    change: Callable[[bytes], bytes],
    ending: str,
    tmp_path: Path,
    journal: dict[str, RunFolder],
    text_folders: dict[str, Path],
) -> None:
    place = shutil.copytree(text_folders[f"{kind}-samples"], tmp_path / kind)
    (path,) = place.glob(f"*/*/{run.run_id}.{kind if ending == 'DATA' else ending}")
    before = path.read_bytes()
    after = change(before)
    path.write_bytes(after)
    line = judged_text(kind, place, journal, run, "samples")
    assert_seen(line, f"{path.name} has {len(after)} bytes, {len(before)} of them count")


@pytest.mark.parametrize("kind", TEXTS)
def test_text_files_deleted_or_added(
    kind: str, tmp_path: Path, journal: dict[str, RunFolder], text_folders: dict[str, Path]
) -> None:
    template = text_folders[f"{kind}-samples"]
    names = [path.relative_to(template) for path in sorted(template.glob(f"*/*/{READINGS.run_id}.*"))]
    assert len(names) >= 3
    for name in names:
        if not name.name.endswith("position.json"):
            place = shutil.copytree(template, tmp_path / name.name)
            (place / name).unlink()
            assert_seen(judged_text(kind, place, journal, READINGS, "samples"), f"{name.name} is not there")
    place = shutil.copytree(template, tmp_path / "added")
    (place / names[0]).with_name(f"{READINGS.run_id}.gaps.jsonl").write_bytes(b"{}\n")
    assert_seen(judged_text(kind, place, journal, READINGS, "samples"), "has 3 bytes, none of them count")


@pytest.mark.parametrize("kind", TEXTS)
def test_a_commit_under_way_is_not_held_against_a_run_that_is_recorded(
    kind: str, tmp_path: Path, journal: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, records = READINGS, _journaled()[READINGS.run_id][:4]
    write_sidecar, lines = text_folder._write_sidecar, []  # between the rows and what counts them

    def verified_first(path: Path, state: Any) -> None:
        held = TEXTS[kind].stored(str(tmp_path), {}, run)
        if held is not None:
            lines.append(Line(kind, "stream", run.run_id, "running", 4))
            compare(lines[-1], journal[run.run_id].records(0, 4), held, kind, blocks_mode="samples", run=run)
        write_sidecar(path, state)

    async def go() -> None:
        destination = TEXTS[kind](tmp_path, blocks="samples")
        await destination.open()
        for index, record in enumerate(records):
            await destination.commit(make_batch(run, index, [record]))
        await destination.close()

    monkeypatch.setattr(text_folder, "_write_sidecar", verified_first)
    asyncio.run(go())
    assert [line.remarks for line in lines] == [[], [], []]
    assert [(line.stored, line.behind) for line in lines] == [(1, 3), (2, 2), (3, 1)]


TEXT_BYTES: list[tuple[RunInfo, str, bytes, bytes, str]] = [
    (BLOCKS, "DATA", b"ai1", b"ai2", "differs"),
    (BLOCKS, "DATA", b"2026-01-01T", b"2026-01-02T", "block 0 differs"),
    (BLOCKS, "DATA", b"sim0", b"simX", "block 0 differs"),
    (BLOCKS, "DATA", BLOCKS.run_id.encode(), OTHER.encode(), "block 0 differs"),
    (BLOCKS, "DATA", b"\n", b" ", ""),
    (READINGS, "DATA", b"2026-01-01T", b"2026-01-02T", "reading 0 differs"),
    (READINGS, "DATA", b"sim0", b"simX", "reading 0 differs"),
    (READINGS, "DATA", b"no answer", b"an answer", "reading 2 differs"),
    (READINGS, "events.jsonl", b"overrun", b"overall", "event 3 differs"),
    (READINGS, "events.jsonl", b"lost", b"won!", "event 3 differs"),
    (READINGS, "events.jsonl", b"{", b"[", "events.jsonl cannot be read on"),
    (READINGS, "position.json", b'"next": 6', b'"next": 5', "its position is 5, what it holds ends at 6"),
    (READINGS, "position.json", b"operator", b"Operator", "header is not the journal's"),
]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(("run", "ending", "old", "new", "words"), TEXT_BYTES)
def test_bytes_of_text_files_changed(
    run: RunInfo,
    ending: str,
    old: bytes,
    new: bytes,
    words: str,
    kind: str,
    tmp_path: Path,
    journal: dict[str, RunFolder],
    text_folders: dict[str, Path],
) -> None:
    place = shutil.copytree(text_folders[f"{kind}-samples"], tmp_path / kind)
    (path,) = place.glob(f"*/*/{run.run_id}.{kind if ending == 'DATA' else ending}")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    assert_seen(judged_text(kind, place, journal, run, "samples"), words)


@pytest.mark.parametrize("kind", TEXTS)
def test_the_summary_of_a_block_without_samples_is_deleted(
    kind: str, tmp_path: Path, journal: dict[str, RunFolder], text_folders: dict[str, Path]
) -> None:
    place = shutil.copytree(text_folders[f"{kind}-samples"], tmp_path / kind)
    (path,) = place.glob(f"*/*/{BLOCKS.run_id}.blocks.jsonl")
    path.unlink()
    assert_seen(judged_text(kind, place, journal, BLOCKS, "samples"), "1 missing")


def test_the_journal_holds_what_these_tests_speak_of(journal: dict[str, RunFolder]) -> None:
    blocks = [r for r in journal[BLOCKS.run_id].records(0, 6) if isinstance(r, DaqBlock)]
    readings = [r for r in journal[READINGS.run_id].records(0, 6) if isinstance(r, DaqReading)]
    assert [block.samples_per_channel for block in blocks] == [10, 10, 10, 0, 10]
    assert np.any(blocks[2].sensor_status["ai1"])
    assert [reading.index for reading in readings] == [0, 1, 2, 4, 5]
