"""Runs and records for tests of sinks: deterministic, of every kind, the odd ones too."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np

from dtolbus.channels import status_of_codes
from dtolbus.records import (
    Channel,
    Clock,
    Codes,
    DaqBlock,
    DaqEvent,
    DaqReading,
    ErrorInfo,
    Gap,
    Record,
    RunInfo,
    RunKind,
    utc_from_ns,
)
from dtolbus.runblocks import block_of_run
from dtolbus.units.conversion import Bridge, Conversion, Lookup, Polynomial, Rtd, Thermocouple
from dtolbus_workers.destination import RunBatch

START_UTC_NS = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z."""
START_MONO_NS = 5_000_000_000

ODD_NAMES = (
    "Übergröße µ/°C",
    'quo"te',
    "device",
    "t_mono_ns",
    "value",
    "rowid",
    "ai0",
    "AI0",
    "ch_3",
    'x"; drop table readings; --',
    "comma, semi; new\nline",
    " leading",
    "n" * 100,
    "ü" * 50,
    "日本",
)
"""Names of channels that break a sink which trusts names."""

ODD_FLOATS = (float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, 1 / 3)


def make_run(
    kind: RunKind = "blocks",
    *,
    number: int = 1,
    device: str = "sim0",
    task: str | None = None,
    channels: Sequence[str] = ("ai0", "ai1", "ai2"),
    rate_hz: float = 3000.0,
    meta: Mapping[str, Any] | None = None,
) -> RunInfo:
    """Return a run header; `number` makes its run_id, so that it is the same in every process."""
    return RunInfo(
        run_id=f"019b0000-0000-7000-8000-{number:012d}",
        device=device,
        task=task if task is not None else ("vibration" if kind == "blocks" else "temperature"),
        kind=kind,
        channels=tuple(
            Channel(name, unit="V", scale=20 / 65536 * (place + 1), offset=-10.0 + place / 7, encoding="offset_binary")
            for place, name in enumerate(channels)
        ),
        rate_hz=rate_hz,
        started_utc_ns=START_UTC_NS,
        started_mono_ns=START_MONO_NS,
        dtype="uint16" if kind == "blocks" else "float64",
        block_samples=10,
        meta=dict(meta or {"operator": "Zoë"}),
    )


def make_block(
    run: RunInfo,
    index: int,
    *,
    samples: int = 10,
    first_sample: int | None = None,
    codes: Codes | None = None,
    sensor_status: Mapping[str, Iterable[int]] | None = None,
) -> DaqBlock:
    """Return the run's block at `index`; its codes depend on run, channel and sample, its period is no whole ns."""
    first = index * samples if first_sample is None else first_sample
    if codes is None:
        seed = int(run.run_id[-12:]) * 101
        grid = np.arange(first, first + samples) * 37 + np.arange(len(run.channels))[:, None] * 1009 + seed
        codes = (grid % 65536).astype(np.uint16)
    period_ns = 1e9 / run.rate_hz
    ahead_ns = round(first * period_ns)
    read_at = utc_from_ns(run.started_utc_ns + ahead_ns + 12_345_678)
    return block_of_run(
        run,
        index=index,
        first_sample=first,
        codes=codes,
        t_mono_ns=run.started_mono_ns + ahead_ns,
        clock=Clock(utc_ns=run.started_utc_ns + ahead_ns, period_ns=period_ns),
        read_started_at=read_at,
        read_finished_at=read_at + timedelta(milliseconds=1.5),
        sensor_status=sensor_status,
    )


def sensor_run(*, number: int = 1) -> RunInfo:
    """Return the header of a run with each conversion, and a plain channel."""
    volts = make_run(number=number, channels=("tc", "cjc", "pt", "strain", "level", "bar", "plain"))
    measured: dict[str, tuple[str, float, Conversion | None]] = {
        "tc": ("°C", 0.1, Thermocouple("K", "cjc")),
        "cjc": ("°C", 500.0, None),
        "pt": ("°C", 0.3, Rtd(100.0, 1e-3)),
        "strain": ("µm/m", 0.1, Bridge("quarter", 2.1, 5.0, per_strain=1e6)),
        "level": ("m", 10.0, Lookup((-4.0, 0.0, 5.0), (3.0, 1.0, 0.1))),
        "bar": ("bar", 10.0, Polynomial((0.1, 2.0, 1 / 3))),
        "plain": ("V", 10.0, None),
    }
    channels = tuple(
        Channel(name, unit, limit / 32768, -limit, (-limit, limit), 1.0, "offset_binary", 16, conversion=conversion)
        for name, (unit, limit, conversion) in measured.items()
    )
    return msgspec.structs.replace(volts, channels=channels)


def sensor_block(run: RunInfo, index: int) -> DaqBlock:
    """Return a block of a `sensor_run`: values, open sensors and values out of range, with their status."""
    codes = np.linspace(0, 65535, 40).astype(np.uint16)
    grid = np.stack([np.roll(codes, index + place) for place in range(len(run.channels))])
    return make_block(run, index, samples=40, codes=grid, sensor_status=status_of_codes(grid, run.channels))


def float_block(run: RunInfo, index: int, values: Sequence[Sequence[float]], **fields: Any) -> DaqBlock:
    """Return a block of given floats, shape (channels, samples), without codes."""
    samples = len(values[0])
    given: dict[str, Any] = {
        "device": run.device,
        "task": run.task,
        "channels": run.channel_names,
        "block_index": index,
        "first_sample_index": index * samples,
        "samples_per_channel": samples,
        "t_mono_ns": run.started_mono_ns + index * samples * 1_000_000,
        "t_utc": utc_from_ns(run.started_utc_ns + index * samples * 1_000_000),
        "data": np.array(values, dtype=np.float64),
        "block_period_ns": 1_000_000,
        "units": run.units,
        "run_id": run.run_id,
    }
    return DaqBlock(**given | fields)


def error_block(run: RunInfo, index: int, *, samples: int = 0) -> DaqBlock:
    """Return a block that failed: no samples, or NaN throughout."""
    return float_block(
        run,
        index,
        [[0.0] * samples for _ in run.channels],
        error=ErrorInfo("dtolbus.errors.BoardError", "A/D FIFO over\nrun, «schnell»"),
    )


def make_reading(run: RunInfo, index: int, values: Mapping[str, Any] | None = None, **fields: Any) -> DaqReading:
    """Return the run's reading at `index`; by default a float for each channel."""
    at_ns = round(index * 1e9 / run.rate_hz)
    asked = utc_from_ns(run.started_utc_ns + at_ns)
    if values is None:
        values = {name: 20.0 + index / 3 + place for place, name in enumerate(run.channel_names)}
    given: dict[str, Any] = {
        "device": run.device,
        "task": run.task,
        "values": dict(values),
        "units": {name: run.units.get(name) for name in values},
        "requested_at": asked,
        "received_at": asked + timedelta(microseconds=900),
        "t_utc": asked + timedelta(microseconds=450),
        "t_mono_ns": run.started_mono_ns + at_ns,
        "t_midpoint_mono_ns": run.started_mono_ns + at_ns + 450_000,
        "latency_s": 0.0009,
        "run_id": run.run_id,
        "reading_index": index,
    }
    return DaqReading(**given | fields)


def error_reading(run: RunInfo, index: int) -> DaqReading:
    """Return a reading that failed: it names no channel."""
    return make_reading(run, index, {}, units={}, error=ErrorInfo("builtins.TimeoutError", "no answer in 1 s"))


def make_event(run: RunInfo, index: int, *, kind: str = "overrun", message: str = "12 samples lost") -> DaqEvent:
    """Return an event at `index` of the run."""
    return DaqEvent(
        device=run.device,
        task=run.task,
        run_id=run.run_id,
        record_index=index,
        kind=kind,
        message=message,
        sample_index=index * 10,
        lost_samples=12,
        t_mono_ns=run.started_mono_ns + index,
        t_utc_ns=run.started_utc_ns + index * 1000,
    )


def make_record(run: RunInfo, index: int) -> Record:
    """Return the run's ordinary record at `index`."""
    return make_block(run, index) if run.kind == "blocks" else make_reading(run, index)


def make_batch(
    run: RunInfo,
    from_index: int,
    records: Sequence[Record] | int,
    *,
    gaps: Sequence[Gap] = (),
    to_index: int | None = None,
    backfilled: int = 0,
    put_aside: Mapping[int, str] | None = None,
) -> RunBatch:
    """Return a batch from `from_index` on; a number of records stands for so many ordinary ones."""
    if isinstance(records, int):
        records = [make_record(run, from_index + k) for k in range(records)]
    ends = [from_index, *(record.index + 1 for record in records), *(gap.to_index for gap in gaps)]
    return RunBatch(
        run=run,
        from_index=from_index,
        to_index=max(ends) if to_index is None else to_index,
        records=tuple(records),
        gaps=tuple(gaps),
        backfilled=backfilled,
        put_aside=dict(put_aside or {}),
    )
