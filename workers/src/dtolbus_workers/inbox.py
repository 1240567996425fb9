"""Between the thread that receives and the event loop that commits: a queue that is bounded in bytes."""

import asyncio
import contextlib
import logging
import threading
from collections import deque

from dtolbus.client import Client
from dtolbus.sequencer import Arrived, Item, size_of

log = logging.getLogger(__name__)

_POLL_S = 0.1


class Inbox:
    """Runs a client on a thread of its own, and holds what it receives until it is taken.

    When `max_bytes` wait, the thread lets live records pass and grants no more of what it fetches: the journal fills in
    once there is room again.
    """

    def __init__(self, client: Client, max_bytes: int = 32 << 20) -> None:
        self._client = client
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._is_complete = False
        self._lacks_ended = True
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._receive, name="receive", daemon=True)
        self._thread.start()

    async def take(self, timeout_s: float, max_bytes: int = 16 << 20) -> list[Item]:
        """Return what waits, up to about `max_bytes`; wait up to `timeout_s` where nothing does.

        Raises what ended the thread.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout_s)
        items: list[Item] = []
        with self._lock:
            size = 0
            while self._items and size < max_bytes:
                items.append(self._items.popleft())
                size += _size_of(items[-1])
            self._bytes -= size
            if not self._items:
                self._arrived.clear()
        if self._failure is not None:
            raise self._failure
        return items

    @property
    def waiting_bytes(self) -> int:
        """About how many bytes of records wait to be taken."""
        return self._bytes

    def is_over(self) -> bool:
        """Return whether every run is over and all that came of them was taken."""
        with self._lock:
            return self._is_complete and not self._items

    def lacks_ended(self) -> bool:
        """Return whether there may be something of runs that are over which was not taken yet."""
        with self._lock:
            return self._lacks_ended or bool(self._items)

    def close(self) -> None:
        """Stop receiving and close the client, once what is acknowledged so far is on its way."""
        self._stop.set()
        self._thread.join()

    def _receive(self) -> None:
        try:
            while not self._stop.is_set():
                has_room = self._bytes < self._max_bytes
                items = self._client.receive(_POLL_S) if has_room else self._client.pass_over(_POLL_S)
                sequencer = self._client.sequencer
                is_complete = self._client.welcomed and sequencer.complete()
                self._put(
                    items, is_complete=is_complete, lacks_ended=not self._client.welcomed or sequencer.lacks_ended()
                )
        except BaseException as error:  # the loop must learn of whatever ended the thread
            self._failure = error
            self._loop.call_soon_threadsafe(self._arrived.set)
        finally:
            self._client.close()

    def _put(self, items: list[Item], *, is_complete: bool, lacks_ended: bool) -> None:
        """Hand over the items, and with them, never before, that they are the last."""
        with self._lock:
            self._is_complete = is_complete
            self._lacks_ended = lacks_ended
            self._items.extend(items)
            self._bytes += sum(map(_size_of, items))
        if items:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._arrived.set)


def _size_of(item: Item) -> int:
    return size_of(item.record) if isinstance(item, Arrived) else 1000
