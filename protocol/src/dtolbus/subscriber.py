"""`Subscriber`: the records of a running producer, as a Python iterator, on any machine of the network."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from dtolbus.client import Client, Endpoints
from dtolbus.errors import UsageError
from dtolbus.keys import load_keys
from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record
from dtolbus.sequencer import Arrived, Item, Missing
from dtolbus.topics import prefix

log = logging.getLogger(__name__)

_POLL_S = 0.2


class Subscriber:
    """Iterates over blocks and readings, `for` or `async for`, until the loop is left.

    Live only by default: it begins with the next record, and what the network drops is counted in `gaps` and logged.
    With `catchup` it begins with the oldest record that the journal holds, and is complete and in order.

    Arguments:
        connect: where the producer publishes, `tcp://daq-pc:5601`.
        topics: prefixes to take, such as `block/sim0/` or `reading/`; none: everything.
        catchup: where the producer answers, `tcp://daq-pc:5602`.
        events: also give DaqEvent records (overruns, a lost device), which are only logged otherwise.
        key: this machine's key file, where the producer asks for one.
        server_key: the producer's public key, or a file with it, where the key file has none.

    Raises UsageError for a topic that can match nothing, CannotStartError for a key file that cannot be used. Iterating
    raises CannotStartError where the producer does not let this key in; once it did, that is only logged, and tried on.
    """

    def __init__(
        self,
        connect: str,
        *,
        topics: tuple[str, ...] | list[str] = (),
        catchup: str | None = None,
        events: bool = False,
        key: str | Path | None = None,
        server_key: str | None = None,
    ) -> None:
        if key is None and server_key is not None:
            raise UsageError("server_key goes with key, the file of this machine's own pair")
        keys = None if key is None else load_keys(Path(key), server_key)
        try:
            self._at = Endpoints(connect, catchup, tuple(map(prefix, topics)), keys)
        except ValueError as error:
            raise UsageError(f"topics: {error}") from error
        self._events = events
        self._client: Client | None = None
        self._ready: deque[Record] = deque()
        self.gaps: list[Gap] = []
        """What was not received, or is no longer in the journal."""

    @property
    def connect(self) -> str:
        """Where the producer publishes."""
        return self._at.connect

    @property
    def heard_at(self) -> float | None:
        """When anything last came from there, monotonic s; None: nothing has since the connection was made."""
        return None if self._client is None else self._client.heard_at

    @property
    def trouble(self) -> str:
        """Why the producer does not let this subscriber in; empty where it does."""
        return "" if self._client is None else self._client.trouble

    @property
    def endpoints(self) -> Endpoints:
        """Where the producer is, and with which keys it is asked."""
        return self._at

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Does nothing when there is none; iterating again connects again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def receive(self, timeout_s: float) -> list[Item]:
        """Return what arrived within `timeout_s`, with run headers, gaps and ends of runs; it may be nothing.

        Raises CannotStartError where the producer does not let this subscriber in, and never did.
        """
        return self._connected().receive(timeout_s)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client(self._at, enters_or_ends=True)
        return self._client

    def __iter__(self) -> Iterator[DaqBlock | DaqReading | DaqEvent]:
        try:
            while True:
                yield from self._records(self._connected().arriving(_POLL_S))
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator[DaqBlock | DaqReading | DaqEvent]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="subscriber") as thread:
            try:
                while True:
                    for record in self._records(await loop.run_in_executor(thread, self.receive, _POLL_S)):
                        yield record
            finally:
                await asyncio.shield(loop.run_in_executor(thread, self.close))

    def _records(self, items: Iterable[Item]) -> Iterator[Record]:
        for item in items:
            if isinstance(item, Arrived):
                if not isinstance(item.record, DaqEvent):
                    yield item.record
                    continue
                log.warning("event", extra={"kind": item.record.kind, "what": item.record.message})
                if self._events:
                    yield item.record
            elif isinstance(item, Missing):
                self.gaps.append(item.gap)
                log.warning("gap", extra={"run": item.run.run_id, "from": item.gap.from_index, "to": item.gap.to_index})
