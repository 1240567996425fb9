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

    When `max_bytes` wait, the thread stops reading: the live path then drops, and the journal fills in later.
    """

    def __init__(self, client: Client, max_bytes: int = 64 << 20) -> None:
        self._client = client
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._room = threading.Event()
        self._room.set()
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._receive, name="receive", daemon=True)
        self._thread.start()

    async def take(self, timeout_s: float) -> list[Item]:
        """Return everything that waits; wait up to `timeout_s` where nothing does. Raises what ended the thread."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout_s)
        with self._lock:
            items = list(self._items)
            self._items.clear()
            self._bytes = 0
            self._arrived.clear()
        self._room.set()
        if self._failure is not None:
            raise self._failure
        return items

    def is_empty(self) -> bool:
        """Return whether nothing waits to be taken."""
        return not self._items

    def close(self) -> None:
        """Stop receiving and close the client, once what is acknowledged so far is on its way."""
        self._stop.set()
        self._room.set()
        self._thread.join()

    def _receive(self) -> None:
        try:
            while not self._stop.is_set():
                items = self._client.receive(_POLL_S) if self._room.wait(_POLL_S) else []
                if items:
                    self._put(items)
        except BaseException as error:  # the loop must learn of whatever ended the thread
            self._failure = error
            self._loop.call_soon_threadsafe(self._arrived.set)
        finally:
            self._client.close()

    def _put(self, items: list[Item]) -> None:
        with self._lock:
            self._items.extend(items)
            self._bytes += sum(size_of(item.record) for item in items if isinstance(item, Arrived))
            if self._bytes >= self._max_bytes:
                self._room.clear()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._arrived.set)
