"""A run's blocks, made for each message: what takes long to work out waits until somebody asks for it."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus.numbers import LARGEST
from dtolbus.records import Anchor, Clock, Codes, DaqBlock, ErrorInfo, RunInfo, ns_from_utc, utc_from_ns


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
    told_status: Mapping[str, NDArray[np.int64]] | None = None,
    error: ErrorInfo | None = None,
    anchor: Anchor | None = None,
) -> DaqBlock:
    """Return the block that `run` has at `index`: codes of shape (channels, samples), stamped by the clock fit.

    `read_started_at` and `read_finished_at` are instants, or ns since 1970.
    Raises ValueError for codes of another shape, and ValueError or ArithmeticError for times that cannot be.
    """
    shape: tuple[int, ...] = codes.shape
    if len(shape) != 2 or shape[0] != len(run.channels) or (shape[1] and not shape[0]):
        raise ValueError(f"codes of shape {shape} for {len(run.channels)} channels: it must be (channels, samples)")
    samples = shape[1]
    known = run.block_period_ns, run.started_at  # raise where the run has no times
    if not -LARGEST <= clock.utc_ns <= LARGEST:
        raise OverflowError(f"{clock.utc_ns} ns since 1970 is no date")
    if not abs(samples * clock.period_ns) <= LARGEST:
        raise OverflowError(f"{samples} samples of {clock.period_ns} ns are no time")
    del known
    fields: dict[str, Any] = {
        "block_index": index,
        "first_sample_index": first_sample,
        "samples_per_channel": samples,
        "t_mono_ns": t_mono_ns,
        "_data": None,
        "_has_own_data": False,
        "raw_codes": codes,
        "clock": clock,
        "_run": run,
    }
    if read_started_at is not None:
        fields["_read_started"] = _checked(read_started_at)
    if read_finished_at is not None:
        fields["_read_finished"] = _checked(read_finished_at)
    if sensor_status:
        fields["sensor_status"] = {name: np.asarray(status) for name, status in sensor_status.items()}
    if told_status is not None:
        fields["told_status"] = told_status
    if error is not None:
        fields["error"] = error
    if anchor is not None:
        fields["anchor"] = anchor
    block = object.__new__(DaqBlock)
    object.__setattr__(block, "__dict__", fields)
    return block


def _checked(instant: datetime | int) -> datetime | int:
    if not -LARGEST <= (instant if isinstance(instant, int) else ns_from_utc(instant)) <= LARGEST:
        raise OverflowError(f"{instant} is no instant that can be told in ns since 1970")
    return instant


def run_of(block: DaqBlock) -> RunInfo | None:
    """Return the run for which `block_of_run` made the block, so that it has no other names, channels or units."""
    return block.__dict__.get("_run")


def read_ns(block: DaqBlock) -> tuple[int | None, int | None]:
    """Return when the block's fetch began and ended, ns since 1970, floored to the µs that a datetime holds."""
    known = block.__dict__
    if "_run" in known:
        started, finished = known.get("_read_started"), known.get("_read_finished")
        if started.__class__ is finished.__class__ is int:
            return started // 1000 * 1000, finished // 1000 * 1000
        return _whole_micros(started), _whole_micros(finished)
    return _whole_micros(block.read_started_at), _whole_micros(block.read_finished_at)


def _whole_micros(instant: datetime | int | None) -> int | None:
    if isinstance(instant, datetime):
        return ns_from_utc(instant)
    return None if instant is None else instant // 1000 * 1000


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


def _instant(instant: datetime | int | None) -> datetime | None:
    return utc_from_ns(instant) if isinstance(instant, int) else instant


def _elapsed_s(block: DaqBlock) -> float | None:
    started, finished = block.read_started_at, block.read_finished_at
    return (finished - started).total_seconds() if started and finished else None


def _run(block: DaqBlock) -> RunInfo:
    run: RunInfo = block.__dict__["_run"]
    return run


_LATER: dict[str, Callable[[DaqBlock], Any]] = {
    "device": lambda block: _run(block).device,
    "task": lambda block: _run(block).task,
    "channels": lambda block: _run(block).channel_names,
    "calibration": lambda block: _run(block).channels,
    "sample_rate_hz": lambda block: _run(block).rate_hz,
    "block_period_ns": lambda block: _run(block).block_period_ns,
    "task_started_at": lambda block: _run(block).started_at,
    "run_id": lambda block: _run(block).run_id,
    "units": lambda block: _run(block).units,
    "is_linearised": lambda block: True,
    "sensor_status": lambda block: {},
    "t_utc": lambda block: utc_from_ns(block.t_utc_ns),
    "t0": lambda block: block.t_utc,
    "t_midpoint_mono_ns": lambda block: block.t_mono_ns + round(block.samples_per_channel * block.period_ns / 2),
    "read_started_at": lambda block: _instant(block.__dict__.get("_read_started")),
    "read_finished_at": lambda block: _instant(block.__dict__.get("_read_finished")),
    "elapsed_s": _elapsed_s,
}
for _name, _work_out in _LATER.items():
    setattr(DaqBlock, _name, _Later(_name, _work_out))
