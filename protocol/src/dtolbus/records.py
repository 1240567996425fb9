"""The records that travel: what a board delivered, with the words to read it by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtolbus.channels import Channel as Channel
from dtolbus.channels import engineering
from dtolbus.numbers import LARGEST, Count, Instant, Int64
from dtolbus.topics import name_fault
from dtolbus.units.status import SensorStatus as SensorStatus

Scalar = float | int | str | bool | None
"""One cell of a row."""

Codes = NDArray[np.int16] | NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.float64]
"""What a board delivers: raw codes, or floats where the board gives floats."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_from_ns(ns: int) -> datetime:
    """Return the instant `ns` nanoseconds after 1970-01-01 UTC, floored to the microseconds a datetime holds."""
    return _EPOCH + timedelta(microseconds=ns // 1000)


def ns_from_utc(instant: datetime) -> int:
    """Return the nanoseconds from 1970-01-01 UTC to `instant`, exact (a naive datetime is taken as UTC)."""
    since = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as a value, so that it can be journaled, sent and stored."""

    type: str
    """Module and name of the exception class."""
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return what the rows of a failed record say about `error`."""
        return cls(f"{type(error).__module__}.{type(error).__qualname__}", str(error))

    def __str__(self) -> str:
        return self.message


class Clock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The run's clock fit as it stood for one block, anchored at the block's first sample."""

    utc_ns: Instant
    """UTC instant of the block's first sample, ns since 1970."""
    period_ns: float
    """Time from one sample of a channel to the next, ns; a float, so that nothing accumulates."""


class Anchor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of the time, raw, once a second or so: from these a run's clock can be fitted again, and better."""

    samples: Count
    """So many samples of each channel were over when the board's callback came, which may be late, but never early."""
    mono_ns: Instant
    """Monotonic instant of the callback, ns."""
    utc_ns: Instant
    """The same instant by the wall clock as it stood then, ns since 1970; the run's own UTC follows no step."""
    uncertainty_ns: Int64
    """How far the monotonic instants of the block that carries this may be off, ns; between two, the greater holds."""


RunKind = Literal["blocks", "readings"]
RunEnd = Literal["running", "ended", "interrupted"]


class RunInfo(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The run header: what one acquisition of one task is. It never changes while the run lasts."""

    run_id: str
    """UUIDv7."""
    device: str
    task: str
    kind: RunKind
    channels: tuple[Channel, ...]
    rate_hz: float
    """Samples a second and channel, as read back from the board; of readings: polls a second."""
    started_utc_ns: Instant
    """UTC instant of the start, ns since 1970."""
    started_mono_ns: Instant
    """The same instant on the producer's monotonic clock, ns."""
    dtype: str = "float64"
    """NumPy name of the payload's type."""
    block_samples: Count = 1
    """Samples a channel in a full block."""
    samples_asked: Count | None = None
    """Samples a channel (polls) after which the run ends by itself; None: until it is stopped."""
    board: str = ""
    """Model and serial number, as the board tells."""
    meta: dict[str, Any] = {}
    """Run metadata: operator, specimen, sensor serials, calibration dates, free keys."""
    goes_on_from: str | None = None
    """run_id of the run that this one goes on from, after its process died or its board went away."""
    samples_before: Count = 0
    """Samples a channel (polls) that were over in that run and those before it, lost ones included."""

    def __post_init__(self) -> None:
        """Refuse names that no file can have, and a rate by which no time passes."""
        for name in (self.device, self.task, self.run_id):
            if fault := name_fault(name):
                raise ValueError(f"a run's device, task and run_id: {fault}")
        if not (math.isfinite(self.rate_hz) and 1e9 / LARGEST < self.rate_hz):
            raise ValueError(f"a rate of {self.rate_hz} Hz")

    @cached_property
    def channel_names(self) -> tuple[str, ...]:
        """The channels' names in the order of a block's rows."""
        return tuple(channel.name for channel in self.channels)

    @cached_property
    def block_period_ns(self) -> int:
        """Time from one sample of a channel to the next, whole ns."""
        return round(1e9 / self.rate_hz)

    @cached_property
    def started_at(self) -> datetime:
        """UTC instant of the start, to the µs."""
        return utc_from_ns(self.started_utc_ns)

    @property
    def units(self) -> dict[str, str | None]:
        """Each channel's unit by its name."""
        return {channel.name: channel.unit for channel in self.channels}


class RunStatus(msgspec.Struct, frozen=True):
    """How far a run is, as its journal or a heartbeat tells."""

    info: RunInfo
    state: RunEnd
    first: Count
    """First index still available."""
    head: Count
    """Number of durable records."""

    @property
    def final(self) -> int | None:
        """Number of records of a run that is over, else None."""
        return None if self.state == "running" else self.head


class _Samples:
    """The field `data` of a block: the floats it was given, else computed from its codes when first asked for."""

    def __get__(self, block: "DaqBlock | None", owner: type) -> NDArray[np.float64]:
        if block is None:
            return None  # type: ignore[return-value]  # the dataclass asks for the field's default
        data: NDArray[np.float64] | None = block.__dict__["_data"]
        if block.error is not None:
            return np.full((len(block.channels), block.samples_per_channel), np.nan)
        if data is None:
            data = block.__dict__["_data"] = block.scaled()
        return data

    def __set__(self, block: "DaqBlock", value: ArrayLike | None) -> None:
        block.__dict__["_data"] = None if value is None else np.asarray(value, dtype=np.float64)
        block.__dict__["_has_own_data"] = value is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class DaqBlock:
    """One buffer of a hardware-clocked task: samples of all its channels at evenly spaced instants."""

    device: str
    task: str | None
    channels: tuple[str, ...]
    """Names, in the order of the rows of `data`."""
    block_index: int
    """Number of this record in its run, from 0, without holes."""
    first_sample_index: int
    """Number in the run of this block's first sample: the truth about time, with the clock fit."""
    samples_per_channel: int
    t_mono_ns: int
    """Monotonic instant of the block's first sample, ns."""
    t_utc: datetime
    """UTC instant of the block's first sample; `t_utc_ns` has it to the nanosecond."""
    data: NDArray[np.float64] = _Samples()  # type: ignore[assignment]  # a descriptor: typed as what it gives
    """Samples in engineering units, shape (channels, samples); NaN throughout where `error` is set."""
    raw_codes: Codes | None = None
    """What the board delivered, shape (channels, samples)."""
    calibration: tuple[Channel, ...] | None = None
    """What turns codes into engineering units, a channel each."""
    cjc_data: NDArray[np.float64] | None = None
    """Cold-junction temperatures, °C, shape (channels, samples)."""
    sample_rate_hz: float | None = None
    """Samples a second and channel, as read back from the board."""
    block_period_ns: int | None = None
    """The sample period in whole ns; where `clock` is set, its float period counts instead."""
    clock: Clock | None = None
    """The clock fit this block was journaled with."""
    anchor: Anchor | None = None
    """The earliest callback of the second before, in the first block of each second."""
    task_started_at: datetime | None = None
    t0: datetime | None = None
    """UTC instant of the block's first sample."""
    t_midpoint_mono_ns: int | None = None
    read_started_at: datetime | None = None
    """UTC instant when the producer began to fetch this buffer; says nothing about the samples' time."""
    read_finished_at: datetime | None = None
    elapsed_s: float | None = None
    """Time that the fetch took, s."""
    units: Mapping[str, str | None] = field(default_factory=dict)
    is_linearised: bool = False
    """Whether the sensors' curve is already applied, so that `unit` is the measured quantity's."""
    sensor_status: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """For each channel that has any: a SensorStatus for each sample; shape (samples,)."""
    told_status: Mapping[str, NDArray[np.int64]] | None = None
    """What of it the board told, rather than the codes, in the journal; None: not known."""
    error: ErrorInfo | None = None
    """Why this block holds no valid samples; an exception given here is kept as its name and message."""
    run_id: str | None = None

    def __post_init__(self) -> None:
        """Normalise what callers may give in several forms, and refuse shapes that do not fit."""
        put = self.__dict__
        put["channels"] = tuple(self.channels)
        if isinstance(self.error, BaseException):
            put["error"] = ErrorInfo.of(self.error)
        put["sensor_status"] = {name: np.asarray(status) for name, status in self.sensor_status.items()}
        if self.raw_codes is not None:
            put["raw_codes"] = np.asarray(self.raw_codes)
        for name in ("_data", "raw_codes", "cjc_data"):
            array = put[name]
            if array is not None and (array.ndim != 2 or array.shape[0] != len(self.channels)):
                raise ValueError(
                    f"DaqBlock: {name.lstrip('_')} has shape {array.shape}, but there are {len(self.channels)} "
                    f"channels: it must be (channels, samples)"
                )

    @property
    def index(self) -> int:
        """Number of this record in its run."""
        return self.block_index

    @property
    def has_own_data(self) -> bool:
        """Whether `data` was given, beside codes or without, and is not computed from them."""
        return bool(self.__dict__["_has_own_data"])

    @property
    def end_sample_index(self) -> int:
        """One past the last sample of this block."""
        return self.first_sample_index + self.samples_per_channel

    @property
    def t_utc_ns(self) -> int:
        """UTC instant of the block's first sample, ns since 1970."""
        return self.clock.utc_ns if self.clock is not None else ns_from_utc(self.t_utc)

    @property
    def period_ns(self) -> float:
        """Time between samples, ns: the clock fit's, else the whole-ns one, else from the rate or the read window."""
        if self.clock is not None:
            return self.clock.period_ns
        if self.block_period_ns is not None:
            return float(self.block_period_ns)
        if self.sample_rate_hz:
            return 1e9 / self.sample_rate_hz
        if self.read_started_at is None or self.read_finished_at is None:
            return 0.0
        window_ns = ns_from_utc(self.read_finished_at) - ns_from_utc(self.read_started_at)
        return float(window_ns // max(1, self.samples_per_channel))

    def sample_offsets_ns(self) -> NDArray[np.int64]:
        """Return each sample's time after the block's first, rounded to whole ns; shape (samples,)."""
        offsets: NDArray[np.int64] = np.rint(np.arange(self.samples_per_channel) * self.period_ns).astype(np.int64)
        return offsets

    def scaled(self) -> NDArray[np.float64]:
        """Return the codes in engineering units: code × scale + offset, then the channel's conversion.

        Shape (channels, samples); NaN where the sensor's status is not OK. Without a calibration the values are the
        codes themselves; without codes they are NaN.
        """
        if self.raw_codes is None:
            return np.full((len(self.channels), self.samples_per_channel), np.nan)
        codes = self.raw_codes[:, : self.samples_per_channel]
        values = codes.astype(np.float64) if self.calibration is None else engineering(codes, self.calibration)
        for row, name in zip(values, self.channels, strict=True) if self.sensor_status else ():
            if name in self.sensor_status:
                row[np.flatnonzero(self.sensor_status[name][: self.samples_per_channel])] = np.nan
        return values


class DaqReading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One polled reading of a task: a value for each channel."""

    device: str
    task: str | None
    values: dict[str, Any]
    """By channel; float, int, bool or text. NaN where the sensor gave none (see `sensor_status`)."""
    units: dict[str, str | None] = {}
    requested_at: datetime
    received_at: datetime
    t_utc: datetime
    """UTC midpoint of the acquisition."""
    t_mono_ns: Instant
    """Monotonic instant of the request, ns."""
    t_midpoint_mono_ns: Instant | None = None
    latency_s: float = 0.0
    sensor_status: dict[str, int] = {}
    """By channel, a SensorStatus; only channels that have any."""
    metadata: dict[str, Any] = {}
    error: ErrorInfo | None = None
    """Why there is no value; an exception given here is kept as its name and message."""
    run_id: str | None = None
    reading_index: Count = 0
    """Number of this record in its run, from 0, without holes."""

    def __post_init__(self) -> None:
        """Keep an exception as its name and message."""
        if isinstance(self.error, BaseException):
            msgspec.structs.force_setattr(self, "error", ErrorInfo.of(self.error))

    @property
    def index(self) -> int:
        """Number of this record in its run."""
        return self.reading_index

    def is_of(self, run: RunInfo) -> bool:
        """Return whether it says that it is of the run."""
        return (self.run_id, self.device, self.task) == (run.run_id, run.device, run.task)


class DaqEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened to a stream: a record like the others, in its place among them."""

    device: str
    task: str
    run_id: str
    record_index: Count
    """Number of this record in its run, from 0, without holes."""
    kind: str
    """`overrun`, `device_lost`, `sdk_error`, …"""
    message: str
    sample_index: Count = 0
    """Number of the sample before which it happened."""
    lost_samples: Count = 0
    """Samples of each channel that never reached the journal: [sample_index, sample_index + lost_samples)."""
    t_mono_ns: Instant = 0
    t_utc_ns: Instant = 0
    """UTC instant, ns since 1970."""

    @property
    def index(self) -> int:
        """Number of this record in its run."""
        return self.record_index

    @property
    def t_utc(self) -> datetime:
        """UTC instant."""
        return utc_from_ns(self.t_utc_ns)


Record = DaqBlock | DaqReading | DaqEvent


@dataclass(frozen=True, slots=True)
class DaqSample:
    """One sample of one channel of a block."""

    device: str
    task: str | None
    channel: str
    block_index: int
    sample_index: int
    t_mono_ns: int
    t_utc: datetime
    value: float
    unit: str | None
    sensor_status: int | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of a run's records that cannot be had any more. It is data, and is stored."""

    from_index: Count
    to_index: Count
    cause: str
    first_sample: Count | None = None
    end_sample: Count | None = None
