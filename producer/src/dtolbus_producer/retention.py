"""What of a journal may be deleted, and what must go. Pure: facts in, a plan out.

Only whole segments go, of each run the oldest first, so that what is left of a run has no holes. A segment goes for
free once every registered sink that takes its run has acknowledged all of it, and one of them keeps its samples;
without such a sink nobody has it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from dtolbus.records import RunEnd, RunInfo
from dtolbus.registrations import Registration


@dataclass(frozen=True)
class SegmentFacts:
    """One file of a run."""

    first_index: int
    end_index: int
    """Its records are [first_index, end_index)."""
    bytes: int
    changed_utc_ns: int
    """When its last record was written."""
    is_sealed: bool
    """No record will be added, and all of it is durable."""
    is_condemned: bool = False
    """A manifest names it already: its deletion was cut short."""


@dataclass(frozen=True)
class RunFacts:
    """One run."""

    info: RunInfo
    state: RunEnd
    head: int
    segments: tuple[SegmentFacts, ...]
    """In order."""

    @property
    def bytes(self) -> int:
        """Bytes of all its segments."""
        return sum(segment.bytes for segment in self.segments)


@dataclass(frozen=True)
class Policy:
    """How much of the journal is kept."""

    keep_s: float | None = None
    """Segments older than this go."""
    max_bytes: int | None = None
    """While the journal is larger, the oldest segments go, however young they are."""
    free_bytes: int = 0
    """So much more must go, whatever its age: the disk lacks it."""
    unacknowledged: bool = False
    """Whether, for the sake of the size, segments go that a sink does not have yet."""
    summaries_suffice: bool = False
    """Whether blocks go of which the sinks keep only summaries."""


class Holder(NamedTuple):
    """A sink for whose sake something stays."""

    name: str
    lag: int
    """Records of the run that it does not have yet."""


class Removal(NamedTuple):
    """A segment that is to go."""

    run: RunInfo
    segment: SegmentFacts
    lost_to: tuple[Holder, ...]
    """Sinks that had not acknowledged it, and lose it."""
    is_unclaimed: bool
    """Whether no registered sink takes its run."""
    is_summarised: bool
    """Whether no sink that has it keeps its samples."""


@dataclass(frozen=True)
class Stay:
    """What of a run should go and cannot."""

    run: RunInfo
    segments: int
    bytes: int
    holders: tuple[Holder, ...] = ()
    """For whose sake."""
    is_unclaimed: bool = False
    """Whether no registered sink takes the run."""
    is_summarised: bool = False
    """Whether every sink has it, and none keeps its samples."""
    is_running: bool = False
    """Whether the segment is being written."""


@dataclass(frozen=True)
class Plan:
    """What goes, in this order, and what stays against the policy."""

    removals: tuple[Removal, ...] = ()
    stays: tuple[Stay, ...] = ()
    excess_bytes: int = 0
    """What is over the size even when all of it is gone."""


@dataclass
class _Account:
    """What is planned so far."""

    removals: list[Removal] = field(default_factory=list)
    next_of: dict[str, int] = field(default_factory=dict)
    """By run: how many of its segments are to go."""

    def take(self, run: RunFacts, removal: Removal) -> None:
        self.removals.append(removal)
        self.next_of[run.info.run_id] = self.next_of.get(run.info.run_id, 0) + 1

    def oldest(self, run: RunFacts) -> SegmentFacts | None:
        """Return the run's oldest segment that is not to go yet."""
        place = self.next_of.get(run.info.run_id, 0)
        return run.segments[place] if place < len(run.segments) else None


def plan(runs: Sequence[RunFacts], sinks: Sequence[Registration], policy: Policy, now_utc_ns: int) -> Plan:
    """Return what is to be deleted of these runs, by age, then by size, and what stays although it should go."""
    account = _Account()
    total = sum(run.bytes for run in runs)
    for run in runs:
        while (segment := account.oldest(run)) is not None and segment.is_condemned:
            account.take(run, _removal(run, segment, sinks))
    if policy.keep_s is not None:
        for run in runs:
            while (segment := account.oldest(run)) is not None:
                if not _is_old(segment, policy.keep_s, now_utc_ns) or not _is_free(run, segment, sinks, policy):
                    break
                account.take(run, _removal(run, segment, sinks))
    excess = max(policy.free_bytes, 0 if policy.max_bytes is None else total - policy.max_bytes)
    _shrink(account, runs, excess, lambda run, segment: _is_free(run, segment, sinks, policy), sinks)
    if policy.unacknowledged:
        _shrink(account, runs, excess, lambda _, segment: segment.is_sealed, sinks)
    left = excess - _bytes_of(account)
    stays = [stay for run in runs if (stay := _stay(account, run, sinks, policy, now_utc_ns, left > 0)) is not None]
    return Plan(tuple(account.removals), tuple(stays), max(0, left))


def holders(run: RunInfo, head: int, end_index: int, sinks: Iterable[Registration]) -> tuple[Holder, ...]:
    """Return the sinks that take the run and have not acknowledged all below `end_index`."""
    found = []
    for sink in sinks:
        known = sink.positions.get(run.run_id)
        position = 0 if known is None else known.position
        if sink.takes(run) and position < end_index:
            found.append(Holder(sink.name, head - position))
    return tuple(found)


def _bytes_of(account: _Account) -> int:
    return sum(removal.segment.bytes for removal in account.removals)


def _shrink(
    account: _Account,
    runs: Sequence[RunFacts],
    excess: int,
    may_go: Callable[[RunFacts, SegmentFacts], bool],
    sinks: Sequence[Registration],
) -> None:
    """Plan the oldest segments of all runs away until `excess` bytes are."""
    left = excess - _bytes_of(account)
    if left <= 0:
        return
    oldest: list[tuple[int, str, RunFacts]] = []

    def offer(run: RunFacts) -> None:
        segment = account.oldest(run)
        if segment is not None and may_go(run, segment):
            heappush(oldest, (segment.changed_utc_ns, run.info.run_id, run))

    for run in runs:
        offer(run)
    while left > 0 and oldest:
        run = heappop(oldest)[2]
        segment = account.oldest(run)
        assert segment is not None  # noqa: S101  # narrows the type, nothing rests on it
        account.take(run, _removal(run, segment, sinks))
        left -= segment.bytes
        offer(run)


def _is_old(segment: SegmentFacts, keep_s: float, now_utc_ns: int) -> bool:
    return now_utc_ns - segment.changed_utc_ns >= keep_s * 1e9


def _is_free(run: RunFacts, segment: SegmentFacts, sinks: Sequence[Registration], policy: Policy) -> bool:
    """Return whether every sink that takes the run has all of the segment, and one of them its samples."""
    if not segment.is_sealed or not any(sink.takes(run.info) for sink in sinks):
        return False
    if holders(run.info, run.head, segment.end_index, sinks):
        return False
    return policy.summaries_suffice or not _is_summarised(run.info, segment, sinks)


def _is_summarised(run: RunInfo, segment: SegmentFacts, sinks: Sequence[Registration]) -> bool:
    """Return whether no sink that has the segment keeps its samples."""
    lacking = {holder.name for holder in holders(run, 0, segment.end_index, sinks)}
    having = [sink for sink in sinks if sink.takes(run) and sink.name not in lacking]
    return bool(having) and not any(sink.has_samples(run, segment.first_index) for sink in having)


def _removal(run: RunFacts, segment: SegmentFacts, sinks: Sequence[Registration]) -> Removal:
    losing = holders(run.info, run.head, segment.end_index, sinks)
    is_unclaimed = not any(sink.takes(run.info) for sink in sinks)
    return Removal(run.info, segment, losing, is_unclaimed, _is_summarised(run.info, segment, sinks))


def _stay(
    account: _Account, run: RunFacts, sinks: Sequence[Registration], policy: Policy, now_utc_ns: int, is_over: bool
) -> Stay | None:
    """Return what of the run should go, by its age or because the journal is too large, and why it stays."""
    left = run.segments[account.next_of.get(run.info.run_id, 0) :]
    due = [s for s in left if is_over or (policy.keep_s is not None and _is_old(s, policy.keep_s, now_utc_ns))]
    if not due:
        return None
    is_unclaimed = not any(sink.takes(run.info) for sink in sinks)
    return Stay(
        run.info,
        len(due),
        sum(segment.bytes for segment in due),
        holders(run.info, run.head, due[0].end_index, sinks),
        is_unclaimed,
        is_summarised=not policy.summaries_suffice and _is_summarised(run.info, due[0], sinks),
        is_running=not due[0].is_sealed,
    )
