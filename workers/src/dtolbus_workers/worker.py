"""The worker: receive, order, batch, commit, acknowledge."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dtolbus.client import Client, Endpoints
from dtolbus.errors import DtolbusError, DtolSinkWriteError
from dtolbus.identity import ANY, Identity
from dtolbus.metrics import Told
from dtolbus.records import RunInfo
from dtolbus.wire import Ack, Hello, RunPosition
from dtolbus_workers.batch import Batcher, BatchPolicy, Due
from dtolbus_workers.destination import Destination, Position, Positions, RecordRefusedError, RunBatch
from dtolbus_workers.inbox import Inbox
from dtolbus_workers.tally import Tally

log = logging.getLogger(__name__)

_RETRY_S = (0.2, 30.0)
"""First and longest wait before a commit is tried again."""
_IDLE_S = 0.1
_NEWS_S = 1.0
"""Within this time of a run's end a gateway has told it, several times over."""


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is told."""

    name: str
    at: Endpoints
    place: str
    """Where the destination is, for people and for `verify`; without a password."""
    options: dict[str, str] = field(default_factory=dict)
    """What `verify` must know to read the destination back."""
    since_utc_ns: int | None = None
    """Runs that began before this instant are left out."""
    until_end: bool = False
    """Whether to end once every run is over and stored."""
    drain_s: float = 0.0
    """How long at most to go on when told to stop, for what is lacking of runs that are over."""
    policy: BatchPolicy = field(default_factory=BatchPolicy)
    expects: Identity = ANY
    """Whose gateway it must be; of any other nothing is stored."""


async def run_worker(
    destination: Destination, config: WorkerConfig, stop: threading.Event, tell: Callable[[Told], None] = lambda _: None
) -> None:
    """Store everything that the journal holds and will hold, until `stop` is set or, if asked, all is stored.

    With a `drain_s` it goes on that long after `stop` for runs that are over, as long as the destination takes them.

    Raises CannotStartError where the destination cannot be opened, the gateway is another or refuses this worker's name
    or, if it is to end by itself, its key, and DtolbusError at the
    end where runs went from the journal before they were stored; failures of the outside are tried again for ever.
    What it has to tell of itself is given to `tell`.
    """
    positions = await destination.open()
    try:
        worker = _Worker(destination, config, positions, stop)
        tell(worker.tally)
        await worker.run()
    finally:
        await destination.close()


class _Worker:
    def __init__(
        self, destination: Destination, config: WorkerConfig, positions: Positions, stop: threading.Event
    ) -> None:
        self._destination = destination
        self._config = config
        self._stop = stop
        self._positions = positions
        self.tally = Tally(config.name, positions)
        """What it tells of itself."""
        self._untouched = set(positions)
        """Runs that were here at the start, and of which nothing was stored since: an end of theirs is no news."""
        self._stopped_at: float | None = None
        """When it was first seen that `stop` is set, monotonic s."""
        self._refusals: dict[str, str] = {}
        """By run: why a record of it was last put aside."""
        starts = {run_id: position.next for run_id, position in positions.items()}
        self._batcher = Batcher(config.policy, starts)
        hello = Hello(
            worker=config.name,
            sink=destination.kind,
            place=config.place,
            destination_id=destination.destination_id,
            topics=config.at.topics,
            options=config.options,
            positions=tuple(RunPosition("", "", run_id, start) for run_id, start in starts.items()),
            expects=config.expects,
        )
        self._client = Client(config.at, hello, starts, wanted=self._wants, enters_or_ends=config.until_end)
        self.tally.follow(self._client)
        self._inbox = Inbox(self._client)

    async def run(self) -> None:
        try:
            while not self._is_told_to_end() and not self._finished():
                for item in await self._inbox.take(min(_IDLE_S, self._batcher.wait_s(time.monotonic()))):
                    self._batcher.add(item, time.monotonic())
                if not await self._commit(self._batcher.due(time.monotonic())):
                    return
            await self._commit(self._batcher.due(time.monotonic(), everything=True))
            if self._config.until_end and not self._stop.is_set():
                self._tell_gone()
        finally:
            await asyncio.to_thread(self._inbox.close)

    def _wants(self, run: RunInfo) -> bool:
        """Return whether the run is to be stored: one that was begun stays so when an age like 7d has passed it by."""
        since_ns = self._config.since_utc_ns
        is_wanted = since_ns is None or run.started_utc_ns >= since_ns or run.run_id in self._positions
        if is_wanted:
            self.tally.heard(run)
        return is_wanted

    def _is_told_to_end(self) -> bool:
        """Return whether it was told to stop, and has stored what is left of ended runs, or had its time for that."""
        if not self._stop.is_set():
            return False
        now = time.monotonic()
        if self._stopped_at is None:
            self._stopped_at = now
        spent_s = now - self._stopped_at
        least_s = min(_NEWS_S, self._config.drain_s)
        return spent_s >= (self._config.drain_s if self._inbox.lacks_ended() else least_s)

    def _finished(self) -> bool:
        return self._config.until_end and self._inbox.is_over() and self._batcher.is_empty()

    def _tell_gone(self) -> None:
        gone = self._client.gone
        if gone:
            runs = ", ".join(f"{run.run_id} ({head - position} records)" for run, position, head in gone)
            raise DtolbusError(
                f"not all is stored: the journal does not hold any more what this sink lacks of {runs}; put the "
                f"folders back, and start it again"
            )

    async def _commit(self, due: list[Due]) -> bool:
        """Commit the batches; return False where one could not be, and it was told to stop."""
        for batch, over in due:
            if batch.to_index > batch.from_index:
                if not await self._stored(batch):
                    return False
                self._acknowledge(batch)
            if over and batch.run.run_id not in self._untouched:
                self.tally.begins()
                await self._destination.finalize(batch.run)
                self.tally.finalized()
        return True

    async def _stored(self, batch: RunBatch) -> bool:
        """Commit the batch, however long the outside fails; False if the worker was told to stop meanwhile."""
        wait_s = _RETRY_S[0]
        while True:
            try:
                self.tally.begins()
                await self._destination.commit(batch)
                self.tally.stored(batch)
                return True
            except RecordRefusedError as refused:
                if refused.index in batch.put_aside:
                    raise
                batch = self._put_aside(batch, refused)
            except DtolSinkWriteError as error:
                self.tally.failed(error)
                log.warning("commit failed, trying again", extra={"error": str(error), "wait_s": wait_s})
                if await asyncio.to_thread(self._stop.wait, wait_s):
                    return False
                wait_s = min(2 * wait_s, _RETRY_S[1])

    def _put_aside(self, batch: RunBatch, refused: RecordRefusedError) -> RunBatch:
        """Return the batch with what is refused put aside; each cause is told once until a run has another."""
        run_id, indexes = batch.run.run_id, (refused.index, *refused.others)
        is_news = self._refusals.get(run_id) != refused.reason
        self._refusals[run_id] = refused.reason
        facts = {"run": run_id, "index": refused.index, "records": len(indexes), "why": refused.reason}
        log.log(logging.WARNING if is_news else logging.DEBUG, "record put aside", extra=facts)
        return replace(batch, put_aside={**batch.put_aside, **dict.fromkeys(indexes, refused.reason)})

    def _acknowledge(self, batch: RunBatch) -> None:
        run = batch.run
        self._untouched.discard(run.run_id)
        before = self._positions.get(run.run_id, Position(0, 0))
        after = self._positions[run.run_id] = Position(batch.to_index, before.backfilled + batch.backfilled)
        self._client.acknowledge(Ack(self._config.name, run.device, run.task, run.run_id, after.next, after.backfilled))
        for gap in batch.gaps:
            facts = {"run": run.run_id, "from_index": gap.from_index, "to_index": gap.to_index, "cause": gap.cause}
            log.warning("gap stored: the journal cannot give these records any more", extra=facts)
        log.debug("committed", extra={"run": run.run_id, "position": after.next, "records": len(batch.records)})
