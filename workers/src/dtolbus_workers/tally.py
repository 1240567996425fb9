"""What a worker tells of itself: what it stored, how far behind it is, whether its sink stores."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dtolbus.client import Client
from dtolbus.metrics import Durations, Histogram, Metric, by_stream, counter, gauge, since_epoch
from dtolbus.records import RunInfo
from dtolbus.topics import stream_name
from dtolbus_workers.destination import Position, RunBatch

FAILING_S = 5.0
"""A sink that could not store for so long is not healthy."""
HANGING_S = 60.0
"""Nor is one whose commit takes so long."""
_SILENT_S = 15.0
"""A gateway that has runs under way is heard ten times a second."""
_IDLE_S = 90.0
"""Any answers a Hello, which is said once a minute; the first one within the 15 s."""
_RUNS = 1000


@dataclass
class Behind:
    """Of one stream, over all its runs."""

    head: int = 0
    position: int = 0


@dataclass
class Tally:
    """Counts for the loop of one worker, read by any thread: numbers, bumped at each commit, never at each record."""

    sink: str
    positions: Mapping[str, Position]
    """By run: what is committed; the loop's own."""
    records: Counter[str] = field(default_factory=Counter)
    """By stream, as the following."""
    backfilled: Counter[str] = field(default_factory=Counter)
    put_aside: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    gap_records: Counter[str] = field(default_factory=Counter)
    durations: Durations = field(default_factory=Durations)
    failures: int = 0
    last_failure_at: float = 0.0
    """Monotonic s; 0: there was none."""
    failure: str = ""
    _failing_since: float = 0.0
    _committing_since: float = 0.0
    _heard: dict[str, str] = field(default_factory=dict)
    """The stream of each run that was heard of, until all of it is committed."""
    _most_heard: int = _RUNS
    _whole: dict[str, Behind] = field(default_factory=dict)
    """By stream: the runs of which all is committed."""
    _client: Client | None = None
    _started_at: float = field(default_factory=time.monotonic)

    def follow(self, client: Client) -> None:
        """Take what is told of the bus from this client."""
        self._client = client

    def heard(self, run: RunInfo) -> None:
        """Note a run that is to be stored; those that are whole by now are not kept one by one."""
        if len(self._heard) >= self._most_heard:
            self.behind()
            self._most_heard = len(self._heard) + _RUNS
        self._heard[run.run_id] = stream_name(run.device, run.task)

    def begins(self) -> None:
        """Note that a commit begins, or what a sink does at the end of a run."""
        self._committing_since = time.monotonic()

    def failed(self, error: Exception) -> None:
        """Note that the outside failed."""
        self.failures += 1
        self.failure = str(error)
        self.last_failure_at = time.monotonic()
        self._failing_since = self._failing_since or self.last_failure_at
        self._committing_since = 0.0

    def finalized(self) -> None:
        """Note that what began was the end of a run, and is done."""
        self._committing_since = 0.0

    def stored(self, batch: RunBatch) -> None:
        """Note that a commit is done."""
        self.durations.add(time.monotonic() - self._committing_since)
        self._failing_since = self._committing_since = 0.0
        stream = stream_name(batch.run.device, batch.run.task)
        self.records[stream] += len(batch.records) - len(batch.put_aside)
        for counted, number in (
            (self.backfilled, batch.backfilled),
            (self.put_aside, len(batch.put_aside)),
            (self.gaps, len(batch.gaps)),
            (self.gap_records, sum(gap.to_index - gap.from_index for gap in batch.gaps)),
        ):
            if number:
                counted[stream] += number

    def behind(self) -> dict[str, Behind]:
        """Return how far each stream is, and how far the sink is in it."""
        client = self._client
        heads = {} if client is None else client.sequencer.heads(self._heard.copy())
        found = {stream: Behind(whole.head, whole.position) for stream, whole in self._whole.copy().items()}
        for run_id, stream in self._heard.copy().items():
            head, is_over = heads.get(run_id, (None, False))
            if head is None:  # it is just being heard of, or went from the journal
                continue
            position = self.positions.get(run_id, Position(0, 0)).next
            if is_over and position >= head and self._heard.pop(run_id, None) is not None:
                whole = self._whole.setdefault(stream, Behind())
                whole.head, whole.position = whole.head + head, whole.position + head
            behind = found.setdefault(stream, Behind())
            behind.head, behind.position = behind.head + max(head, position), behind.position + position
        return found

    def problems(self) -> list[str]:
        """Return why it does not store what there is."""
        now, found = time.monotonic(), []
        failing_since, committing_since = self._failing_since, self._committing_since  # the loop may end them meanwhile
        if failing_since and now - failing_since > FAILING_S:
            found.append(f"the sink has not stored for {now - failing_since:.0f} s: {self.failure}")
        if committing_since and now - committing_since > HANGING_S:
            found.append(f"a commit has taken {now - committing_since:.0f} s until now")
        return found + self._bus_problems(now)

    def facts(self) -> list[str]:
        """Return what it did."""
        behind = self.behind().values()
        lag = sum(max(0, one.head - one.position) for one in behind)
        return [f"stores; {sum(self.records.copy().values())} records since its start, {lag} behind"]

    def metrics(self) -> Iterable[Metric | Histogram]:
        """Yield all of it."""
        behind, sink = self.behind(), {"sink": self.sink}
        yield from self._counts({*behind, *self.records.copy()})
        for name, about, values in (
            ("head_records", "Records that the journal has, as far as heard.", {s: b.head for s, b in behind.items()}),
            ("position_records", "Records that are committed.", {s: b.position for s, b in behind.items()}),
            ("lag_records", "Records not stored yet.", {s: max(0, b.head - b.position) for s, b in behind.items()}),
        ):
            yield gauge(f"dtolbus_worker_{name}", about, by_stream(values, **sink))
        took = [self.durations.series(sink)]
        yield Histogram("dtolbus_worker_commit_seconds", "How long commits took.", took)
        yield counter(
            "dtolbus_worker_commit_failures_total", "Commits that the outside failed.", [(sink, self.failures)]
        )
        failing_since = self._failing_since
        failing_s = time.monotonic() - failing_since if failing_since else 0.0
        yield gauge(
            "dtolbus_worker_failing_seconds", "How long nothing could be stored; 0: it can.", [(sink, failing_s)]
        )
        if self.last_failure_at:
            at = [(sink, since_epoch(self.last_failure_at))]
            yield gauge("dtolbus_worker_last_failure_timestamp_seconds", "When a commit last failed, since 1970.", at)

    def _counts(self, heard: Iterable[str]) -> Iterable[Metric]:
        client, known = self._client, sorted(heard)
        for name, about, counted in (
            ("records", "Records stored as what they are.", self.records),
            ("backfilled_records", "Of the committed records: fetched from the journal.", self.backfilled),
            ("put_aside_records", "Records that the sink refuses, kept aside with the reason.", self.put_aside),
            ("gaps", "Gaps stored.", self.gaps),
            ("gap_records", "Records in them, which cannot be had any more.", self.gap_records),
        ):
            streams = {stream: counted[stream] for stream in known}
            yield counter(f"dtolbus_worker_{name}_total", about, by_stream(streams, sink=self.sink))
        sink = {"sink": self.sink}
        if client is not None:
            for name, about, number in (
                ("duplicates_dropped", "Records that came again.", client.sequencer.duplicates),
                ("reconnects", "Times that the catch-up connection was made anew.", max(0, client.reconnects)),
                ("foreign_messages", "Messages that cannot be read.", sum(client.foreign.copy().values())),
                ("runs_lost", "Runs that went from the journal before they were stored.", len(client.gone)),
            ):
                yield counter(f"dtolbus_worker_{name}_total", about, [(sink, number)])
            heard_at = client.heard_at
            if heard_at is not None:
                at = [(sink, since_epoch(heard_at))]
                yield gauge("dtolbus_worker_last_heard_timestamp_seconds", "When the gateway was last heard.", at)

    def _bus_problems(self, now: float) -> list[str]:
        """Return why nothing comes."""
        client = self._client
        if client is None:
            return ["starting"]
        if client.trouble:
            return [client.trouble]
        heard_at, where = client.heard_at, client.at.connect
        if heard_at is None:
            return [f"the gateway at {where} has not been heard since the start, {now - self._started_at:.0f} s ago"]
        if now - heard_at > (_SILENT_S if client.sequencer.records() else _IDLE_S):
            return [f"the gateway at {where} has not been heard for {now - heard_at:.0f} s"]
        return [] if client.at.catchup is None else self._catchup_problems(client, now)

    def _catchup_problems(self, client: Client, now: float) -> list[str]:
        """Return why what is missed cannot be fetched: live records come from another port."""
        answered_at, started_s = client.answered_at, now - self._started_at
        what = f"the gateway's catch-up at {client.at.catchup}"
        if not client.welcomed and started_s > _SILENT_S:
            return [f"{what} has not told its runs since the start, {started_s:.0f} s ago"]
        if answered_at is not None and now - answered_at > _IDLE_S:
            return [f"{what} has not answered for {now - answered_at:.0f} s"]
        return []
