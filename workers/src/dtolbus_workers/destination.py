"""What a worker commits into: one sink's end of the bus, with the positions kept inside its data."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, DaqEvent, DaqReading, ErrorInfo, Gap, Record, RunInfo

P = ParamSpec("P")
T = TypeVar("T")

BlocksMode = Literal["summary", "samples", "both"]
"""What a SQL sink stores of a block: one summary row, a row for each sample, or both."""


@dataclass(frozen=True)
class RunBatch:
    """The next piece of one run: what every commit stores, whole, together with the position after it."""

    run: RunInfo
    from_index: int
    """The position this batch continues; a destination refuses any other."""
    to_index: int
    """The position after it."""
    records: tuple[Record, ...]
    """In order; with the gaps they fill [from_index, to_index)."""
    gaps: tuple[Gap, ...] = ()
    backfilled: int = 0
    """How many of the records came through catch-up."""
    put_aside: Mapping[int, str] = field(default_factory=dict)
    """By index: why a record is stored as put aside and not as what it is."""

    @cached_property
    def blocks(self) -> list[DaqBlock]:
        """The blocks to store, in order."""
        return [r for r in self.records if isinstance(r, DaqBlock) and r.index not in self.put_aside]

    @cached_property
    def readings(self) -> list[DaqReading]:
        """The readings to store, in order."""
        return [r for r in self.records if isinstance(r, DaqReading) and r.index not in self.put_aside]

    @cached_property
    def events(self) -> list[DaqEvent]:
        """The events to store, in order."""
        return [r for r in self.records if isinstance(r, DaqEvent)]


class Position(NamedTuple):
    """How far a destination is in one run."""

    next: int
    """Number of records committed, from 0 on without holes."""
    backfilled: int


Positions = dict[str, Position]
"""By run_id."""


class RecordRefusedError(Exception):
    """A record cannot be stored for its own sake: the worker puts it aside, and commits the batch again.

    `others` are records of the batch that are at fault for the same reason.
    """

    def __init__(self, index: int, reason: str, others: Sequence[int] = ()) -> None:
        super().__init__(f"record {index}: {reason}")
        self.index = index
        self.reason = reason
        self.others = tuple(others)


class Destination(Protocol):
    """What the worker loop needs of a sink.

    `open` raises CannotStartError (locked, not ours, not reachable, extra missing); `commit` raises DtolSinkWriteError
    when the outside failed (the worker tries again), RecordRefusedError for a record at fault. A commit is all or
    nothing, also when the process is killed in it: after the next `open` the positions say what is stored.
    """

    kind: str
    """The sink's name in SINKS."""
    destination_id: str
    """A UUID kept in the destination; known once it is open."""

    async def open(self) -> Positions:
        """Lock the destination, bring it back to its last commit, return its positions."""

    async def commit(self, batch: RunBatch) -> None:
        """Store the batch and the position after it, durably."""

    async def finalize(self, run: RunInfo) -> None:
        """Complete the run's data; called when the run is over, behind the commit of its last records.

        Where a worker was killed in between, nobody calls it: `open` and `close` must do without.
        """

    async def close(self) -> None:
        """Release the destination. Does nothing when it is closed."""


class SampleTexts(NamedTuple):
    """The texts of a row in `samples`."""

    run_id: str | None
    device: str | None
    task: str | None
    channel: str | None
    unit: str | None
    error_type: str | None
    error_message: str | None


class SampleRun(NamedTuple):
    """Rows of one block that follow one another in a sink and have the same texts: one channel's, if all is well.

    A column is an array or a list, each of shape (rows,).
    """

    block_index: int
    texts: SampleTexts
    sample_index: NDArray[np.int64] | list[Any]
    t_mono_ns: NDArray[np.int64] | list[Any]
    t_utc: NDArray[np.int64] | list[Any]
    """Array: ns since 1970; list: ISO 8601."""
    values: NDArray[np.float64]
    status: list[Any] | None
    """None: no row has any."""


class StoredBlock(NamedTuple):
    """One block as a sink gives it back: its values, its summary, or both; for `verify`."""

    block_index: int
    first_sample_index: int
    values: NDArray[np.float64] | None
    """Shape (channels, samples), or None where the sink holds summaries only."""
    summary: Mapping[str, Any] | None
    runs: Sequence[SampleRun] = ()
    """The rows of samples that the values come from."""
    error: ErrorInfo | None = None
    """Of a block without samples, where the sink has no summary of it."""
    codes: NDArray[Any] | None = None
    """What the values were computed from, where the sink holds codes; shape (channels, samples)."""
    is_float32: bool = False
    """Whether the sink holds the values as float32: the nearest that there is."""


class StoredReading(NamedTuple):
    """One reading as a sink gives it back, for `verify`."""

    reading_index: int
    values: Mapping[str, Any]
    """By channel."""
    units: Mapping[str, Any] = {}
    """By channel."""
    row: Mapping[str, Any] | None = None
    """`run_id`, READING_KEYS and `sensor_status`; instants as datetime, as ISO 8601 or as ns since 1970."""


class StoredEvent(NamedTuple):
    """One event as a sink gives it back, for `verify`."""

    record_index: int
    sample_index: int
    t_utc: str
    """ISO 8601."""
    kind: str
    message: str


class StoredAside(NamedTuple):
    """One record put aside as a sink gives it back, for `verify`."""

    record_index: int
    reason: str
    frames: bytes
    """A msgpack array of its wire frames."""


@dataclass(frozen=True)
class Stored:
    """What a destination holds of one run; for `verify`. Iterators yield by index, doubled rows doubled."""

    position: Position
    gaps: list[Gap]
    events: list[StoredEvent]
    put_aside: list[StoredAside]
    blocks: Iterator[StoredBlock]
    readings: Iterator[StoredReading]
    checksums: Literal["exact", "summary", "none"] = "exact"
    destination_id: str | None = None
    """The id kept in the destination; None where it cannot be told."""
    remarks: list[str] = field(default_factory=list)
    """What is wrong with the destination itself; complete once the iterators are drawn."""
    surplus: list[str] = field(default_factory=list)
    """What lies behind all that counts: of a commit under way, where the run is still recorded."""


class OneThread:
    """The thread that belongs to a sink: blocking writes run there, in order, off the event loop."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the call on the thread and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """End the thread once its work is done."""
        self._pool.shutdown(wait=True)
