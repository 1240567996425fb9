"""Blocks to long rows in a Parquet file, against Arrow IPC of the table, and its size against pyarrow's defaults."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from bench.items import SMALL, blocks, run_info
from bench.measuring import Case, Repeated, at_least, at_most
from bench.registry import Setting
from dtolbus_workers import parquet_parts
from dtolbus_workers.arrow import SAMPLE_SCHEMA, samples_table


def cases(setting: Setting) -> Iterator[Case]:
    made = blocks(run_info(SMALL), 16 if setting.quick else 64)
    table = samples_table(made)
    options = parquet_parts.writer_options(SAMPLE_SCHEMA, "zstd", use_dictionary=True)
    ours_path, reference_path = setting.folder / "ours.parquet", setting.folder / "reference.arrow"
    defaults_path = setting.folder / "defaults.parquet"

    def ours(times: int) -> None:
        for _ in range(times):
            with pq.ParquetWriter(ours_path, SAMPLE_SCHEMA, **options) as writer:
                writer.write_table(samples_table(made))

    def reference(times: int) -> None:
        for _ in range(times):
            with pa.OSFile(str(reference_path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
                writer.write_table(table)

    rows, trial_s = table.num_rows, setting.plan.trial_s
    yield Case(
        "parquet-long",
        f"blocks of 8 × {SMALL} to a file, against Arrow IPC of the table",
        "rows/s",
        Repeated(ours, rows, trial_s),
        Repeated(reference, rows, trial_s),
        at_least(0.30),
    )
    pq.write_table(table, defaults_path)
    ours(1)
    yield Case(
        "parquet-long",
        "bytes a row, against Parquet with pyarrow's defaults",
        "B/row",
        lambda: ours_path.stat().st_size / rows,
        lambda: defaults_path.stat().st_size / rows,
        at_most(0.75),
        trials=1,
    )
