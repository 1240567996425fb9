"""What a worker does with what it received: every sink stores it, or refuses the record; nothing else comes of it."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz.places import inside

from dtolbus.parquet.footer import Form, footer_keys
from dtolbus.parquet.places import run_folder
from dtolbus.records import Gap, Record, RunInfo
from dtolbus.runs import run_path
from dtolbus_workers import parquet_content, sqlite_destination
from dtolbus_workers.destination import RecordRefusedError, RunBatch
from dtolbus_workers.sqlite_tables import CREATE
from dtolbus_workers.text_folder import stream_folder
from dtolbus_workers.text_format import CsvFormat, JsonlFormat
from dtolbus_workers.text_run import RunFiles, addition, file_name

_ROOT = Path("/somewhere/data")
_FORMS = (Form(), Form("wide", "codes"), Form("wide", "float32"))


def store(run: RunInfo, record: Record | Gap) -> None:
    """Store one record, as all sinks would."""
    check_places(run)
    index = record.from_index if isinstance(record, Gap) else record.index
    end = record.to_index if isinstance(record, Gap) else index + 1
    records, gaps = ((), (record,)) if isinstance(record, Gap) else ((record,), ())
    batch = RunBatch(run, index, end, records, gaps, backfilled=1)
    for put in _sinks():
        try:
            put(batch)
        except RecordRefusedError as refused:
            put(RunBatch(run, index, end, records, gaps, put_aside={refused.index: refused.reason}))


def check_places(run: RunInfo) -> None:
    """A name leads nowhere but into its own folder, and each is a file's name."""
    for place in (run_folder(_ROOT, run), stream_folder(_ROOT, run) / file_name(run, "position.json")):
        inside(_ROOT, place, depth=3)
    inside(_ROOT, run_path(_ROOT, run.device, run.task, run.run_id), depth=3)


def _sinks() -> Iterator[Callable[[RunBatch], None]]:
    for text in (CsvFormat(), JsonlFormat()):
        for blocks in ("samples", "summary"):
            yield lambda batch, text=text, blocks=blocks: _into_text(batch, text, blocks)
    for form in _FORMS:
        yield lambda batch, form=form: _into_parquet(batch, form)
    yield _into_sqlite


def _into_text(batch: RunBatch, text: CsvFormat | JsonlFormat, blocks: str) -> None:
    added = addition(batch, RunFiles(run=batch.run, next=batch.from_index), text, blocks)
    assert added.after.next == batch.to_index


def _into_parquet(batch: RunBatch, form: Form) -> None:
    content = parquet_content.content(batch, form.of_run(batch.run), {})
    for _ in content.tables:
        pass
    footer_keys(parquet_content.part_footer(batch, content, 0, 1, None), "")


def _into_sqlite(batch: RunBatch) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with contextlib.closing(connection):
        for statement in CREATE:
            connection.execute(statement)
        sqlite_destination.refuse_unstorable(batch)
        commit = sqlite_destination._Commit(connection, batch, Path("lab.sqlite"))
        commit._store_run()
        connection.execute("UPDATE dtolbus_position SET next = ?", (batch.from_index,))
        commit.store("both")
