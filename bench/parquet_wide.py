"""Blocks into a durable Parquet file, a row an instant and codes, against Arrow IPC uncompressed."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.items import CHANNELS, LARGE, SMALL, blocks, run_info
from bench.measuring import Case, Repeated, at_least
from bench.registry import Setting
from dtolbus.parquet.footer import Form
from dtolbus.parquet.places import parts_of, run_folder
from dtolbus.records import DaqBlock, RunInfo
from dtolbus_workers.destination import RunBatch
from dtolbus_workers.parquet_folder import ParquetFolder
from dtolbus_workers.parquet_parts import writer_options

_BATCH_BYTES = 16 << 20
"""As a worker commits them."""


def cases(setting: Setting) -> Iterator[Case]:
    for samples in (SMALL, LARGE):
        run = run_info(samples)
        count = (_BATCH_BYTES >> (3 if setting.quick else 0)) // (2 * CHANNELS * samples)
        yield _case(setting, run, blocks(run, count))


def _case(setting: Setting, run: RunInfo, batch: Sequence[DaqBlock]) -> Case:
    values = len(batch) * CHANNELS * run.block_samples
    ours, place = _ours(setting.folder / str(run.block_samples), run, batch)
    reference = _reference(setting.folder / f"{run.block_samples}.arrow", batch)
    what = f"blocks of {CHANNELS} × {run.block_samples} int16 → a synced part, codes"

    def rate(call: Callable[[int], None]) -> Repeated:
        return Repeated(call, values / 1e6, setting.plan.trial_s, most=8)

    referred = rate(reference)

    def note() -> str:
        part = parts_of(place)[-1]
        return f"{part.stat().st_size / values:.2f} B a value; {_encoder_alone(part, values, referred)}"

    return Case("parquet-wide", what, "M values/s", rate(ours), referred, at_least(1.2), note=note)


def _ours(folder: Path, run: RunInfo, batch: Sequence[DaqBlock]) -> tuple[Callable[[int], None], Path]:
    """Commit the batch again and again, as a run that goes on."""
    parts = ParquetFolder(folder, Form("wide", "codes"))
    parts.open()
    begins = itertools.count(0, len(batch))

    def go(times: int) -> None:
        for _ in range(times):
            start = next(begins)
            parts.commit(RunBatch(run, start, start + len(batch), tuple(batch)))

    return go, run_folder(folder, run)


def _reference(path: Path, batch: Sequence[DaqBlock]) -> Callable[[int], None]:
    """The same table by the shortest way: arrays joined, Arrow IPC as they lie in memory, one sync."""

    def go(times: int) -> None:
        for _ in range(times):
            table = _table(batch)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            descriptor = os.open(path, os.O_RDWR)
            os.fdatasync(descriptor)
            os.close(descriptor)
            path.unlink()

    return go


def _encoder_alone(part: Path, values: int, reference: Repeated) -> str:
    """Return how fast pyarrow writes what stands in a part, all of it ready, to memory, with the part's encodings."""
    table = pq.read_table(part, partitioning=None)
    options = writer_options(table.schema, None, use_dictionary=False)  # codes are not compressed
    rate = Repeated(lambda times: _write(table, options, times), values / 1e6, 0.3, most=8)
    alone, referred = (median(rates) for rates in zip(*((rate(), reference()) for _ in range(5)), strict=True))
    return f"pyarrow's encoder alone, in memory: {alone:.1f} M values/s, {alone / referred:.2f} of the reference"


def _write(table: pa.Table, options: Mapping[str, Any], times: int) -> None:
    for _ in range(times):
        with pq.ParquetWriter(pa.BufferOutputStream(), table.schema, **options) as writer:
            writer.write_table(table)


def _table(batch: Sequence[DaqBlock]) -> pa.Table:
    index = np.concatenate([np.arange(b.first_sample_index, b.end_sample_index) for b in batch])
    utc = np.concatenate([b.sample_offsets_ns() + b.t_utc_ns for b in batch])
    codes = np.concatenate([b.raw_codes for b in batch if b.raw_codes is not None], axis=1)
    columns = {"sample_index": pa.array(index), "t_utc": pa.array(utc.view("datetime64[ns]"))}
    return pa.table(columns | {name: pa.array(row) for name, row in zip(batch[0].channels, codes, strict=True)})
