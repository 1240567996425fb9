"""A run's blocks, made for each message: what takes long to work out waits until somebody asks for it."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from dtolbus.records import Anchor, Clock, Codes, DaqBlock, ErrorInfo, RunInfo, ns_from_utc, utc_from_ns

_FIRST_NS: Final = ns_from_utc(datetime.min.replace(tzinfo=UTC))
_END_NS: Final = ns_from_utc(datetime.max.replace(tzinfo=UTC)) + 1000
"""The instants that a datetime can be, ns since 1970."""


def block_of_run(
    run: RunInfo,
    *,
    index: int,
    first_sample: int,
    codes: Codes,
    t_mono_ns: int,
    clock: Clock,
    read_started_at: datetime | int | None = None,
    read_finished_at: datetime | int | None = None,
    sensor_status: Mapping[str, Iterable[int]] | None = None,
    error: ErrorInfo | None = None,
    anchor: Anchor | None = None,
) -> DaqBlock:
    """Return the block that `run` has at `index`: codes of shape (channels, samples), stamped by the clock fit.

    `read_started_at` and `read_finished_at` are instants, or ns since 1970.
    Raises ValueError for codes of another shape, and ValueError or ArithmeticError for times that cannot be.
    """
    channels = run.channel_names
    if codes.ndim != 2 or codes.shape[0] != len(channels):
        raise ValueError(f"codes of shape {codes.shape} for {len(channels)} channels: it must be (channels, samples)")
    samples = codes.shape[1]
    if not _FIRST_NS <= clock.utc_ns < _END_NS:
        raise OverflowError(f"{clock.utc_ns} ns since 1970 is no date")
    read = (read_started_at, read_finished_at)
    for instant in read:
        if instant.__class__ is int and not _FIRST_NS <= instant < _END_NS:
            raise OverflowError(f"{instant} ns since 1970 is no date")
    # what DaqBlock's own constructor puts here, in a tenth of its time
    fields: dict[str, Any] = {
        "device": run.device,
        "task": run.task,
        "channels": channels,
        "block_index": index,
        "first_sample_index": first_sample,
        "samples_per_channel": samples,
        "t_mono_ns": t_mono_ns,
        "_data": None,
        "raw_codes": codes,
        "calibration": run.channels,
        "cjc_data": None,
        "sample_rate_hz": run.rate_hz,
        "block_period_ns": run.period_ns,
        "clock": clock,
        "anchor": anchor,
        "task_started_at": run.started_at,
        "t_midpoint_mono_ns": t_mono_ns + round(samples * clock.period_ns / 2),
        "is_linearised": True,
        "sensor_status": {name: np.asarray(status) for name, status in sensor_status.items()} if sensor_status else {},
        "error": error,
        "run_id": run.run_id,
        "_run": run,
        "_read": read,
    }
    block = object.__new__(DaqBlock)
    object.__setattr__(block, "__dict__", fields)
    return block


class _Later:
    """A field of a block that `block_of_run` made: worked out when it is first asked for, then kept."""

    def __init__(self, name: str, work_out: Callable[[DaqBlock], Any]) -> None:
        self._name = name
        self._work_out = work_out

    def __get__(self, block: DaqBlock | None, owner: type) -> Any:
        if block is None:
            raise AttributeError(self._name)  # as of a field without a default
        found = block.__dict__[self._name] = self._work_out(block)
        return found


def _read_at(block: DaqBlock, place: int) -> datetime | None:
    instant: datetime | int | None = block.__dict__["_read"][place]
    return utc_from_ns(instant) if isinstance(instant, int) else instant


def _elapsed_s(block: DaqBlock) -> float | None:
    started, finished = block.read_started_at, block.read_finished_at
    return (finished - started).total_seconds() if started and finished else None


_LATER: dict[str, Callable[[DaqBlock], Any]] = {
    "t_utc": lambda block: utc_from_ns(block.t_utc_ns),
    "t0": lambda block: block.t_utc,
    "read_started_at": lambda block: _read_at(block, 0),
    "read_finished_at": lambda block: _read_at(block, 1),
    "elapsed_s": _elapsed_s,
    "units": lambda block: block.__dict__["_run"].units,
}
for _name, _work_out in _LATER.items():
    setattr(DaqBlock, _name, _Later(_name, _work_out))
