"""When to commit what. Pure: items and the time in, batches out."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dtolbus.records import Gap, Record, RunInfo
from dtolbus.sequencer import Arrived, Ended, Item, Missing, size_of
from dtolbus_workers.destination import RunBatch


@dataclass(frozen=True)
class BatchPolicy:
    """A run's batch is due when it holds this much, is this old, or when its run is over.

    All are due when together they hold twice the bytes.
    """

    records: int = 4096
    bytes: int = 16 << 20
    age_s: float = 1.0


@dataclass
class _Open:
    run: RunInfo
    from_index: int
    to_index: int
    since_s: float
    records: list[Record] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    bytes: int = 0
    backfilled: int = 0
    over: bool = False

    def add(self, item: Item) -> None:
        match item:
            case Arrived(record=record, fetched=fetched):
                self.records.append(record)
                self.to_index = record.index + 1
                self.bytes += size_of(record)
                self.backfilled += fetched
            case Missing(gap=gap):
                self.gaps.append(gap)
                self.to_index = gap.to_index
            case Ended():
                self.over = True

    def closed(self) -> RunBatch:
        return RunBatch(
            run=self.run,
            from_index=self.from_index,
            to_index=self.to_index,
            records=tuple(self.records),
            gaps=tuple(self.gaps),
            backfilled=self.backfilled,
        )


class Due(NamedTuple):
    """A batch to commit now; `over`: the run is complete with it."""

    batch: RunBatch
    over: bool


class Batcher:
    """Collects each run's items into its next batch."""

    def __init__(self, policy: BatchPolicy, positions: dict[str, int]) -> None:
        self._policy = policy
        self._positions = dict(positions)
        self._open: dict[str, _Open] = {}

    def add(self, item: Item, now_s: float) -> None:
        """Take the next item of a run."""
        run = item.run
        batch = self._open.get(run.run_id)
        if batch is None:
            start = self._positions.get(run.run_id, 0)
            batch = self._open[run.run_id] = _Open(run, start, start, now_s)
        batch.add(item)

    def due(self, now_s: float, *, everything: bool = False) -> list[Due]:
        """Return the batches that are due at `now_s`, or all that hold anything, and begin new ones."""
        due = []
        everything = everything or sum(batch.bytes for batch in self._open.values()) >= 2 * self._policy.bytes
        for run_id, batch in list(self._open.items()):
            if everything or self._is_due(batch, now_s):
                del self._open[run_id]
                self._positions[run_id] = batch.to_index
                due.append(Due(batch.closed(), batch.over))
        return due

    def wait_s(self, now_s: float) -> float:
        """Return how long until the oldest batch is due by age; at most its policy's age."""
        ages = [now_s - batch.since_s for batch in self._open.values()]
        return max(0.0, self._policy.age_s - max(ages, default=0.0))

    def is_empty(self) -> bool:
        """Return whether nothing waits to be committed."""
        return not self._open

    def _is_due(self, batch: _Open, now_s: float) -> bool:
        return (
            batch.over
            or len(batch.records) >= self._policy.records
            or batch.bytes >= self._policy.bytes
            or now_s - batch.since_s >= self._policy.age_s
        )
