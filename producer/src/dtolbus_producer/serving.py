"""Serving what was before: Fetch → records, gaps, Done. In slices, the clients taking turns. Opens no socket."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dtolbus.errors import RawFormatError
from dtolbus.records import Gap, Record, RunInfo
from dtolbus.runs import RunFolder
from dtolbus.wire import MAX_MESSAGE_BYTES, Control, Done, Fetch, Frame, Refused, RunGap, RunRecord, encode

log = logging.getLogger(__name__)

FETCH_RECORDS = 256
"""Records served for one Fetch at most."""
FETCH_BYTES = 8 << 20
_SLICE_RECORDS = 16
_SLICE_BYTES = 1 << 20
_WAITING_FETCHES = 4
_CLIENTS = 256
_JOBS = 16
"""Fetches being served at the same time; others wait their turn."""
_OPEN_FOLDERS = 32
"""Runs kept open for the next Fetch of the same client, so that reading goes on where it stopped."""
_STUCK_S = 10.0
"""A client that takes nothing for this long has lost its fetches."""

TOO_LARGE = f"the record is larger than a message, {MAX_MESSAGE_BYTES >> 20} MiB; the journal has it"

Send = Callable[[bytes, list[Frame]], bool]
"""Sends frames to a client, given its routing id; False: not now. Raises ClientGoneError."""


class ClientGoneError(Exception):
    """The client has disconnected."""


@dataclass(frozen=True)
class Held:
    """A run as far as it can be served."""

    info: RunInfo
    path: Path
    head: int


@dataclass
class _Job:
    """One Fetch being served."""

    fetch: Fetch
    info: RunInfo
    records: Iterator[Record | Gap]
    next: int
    count: int = 0
    size: int = 0
    done: bool = False


@dataclass
class _Client:
    waiting: deque[Fetch] = field(default_factory=deque)
    job: _Job | None = None
    unsent: list[Frame] | None = None
    moved_at: float = 0.0


class FetchService:
    """Answers the fetches of all clients; `find` tells how far a run can be served, None where it is unknown."""

    def __init__(self, find: Callable[[str], Held | None]) -> None:
        self._find = find
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()
        self._folders: OrderedDict[tuple[bytes, str], RunFolder] = OrderedDict()

    def ask(self, client: bytes, fetch: Fetch) -> Refused | None:
        """Take a Fetch; return why not, where it is not served."""
        known = self._clients.get(client)
        if known is None and len(self._clients) >= _CLIENTS:
            return refused(fetch, f"{_CLIENTS} clients are being served: ask again later")
        if known is not None and len(known.waiting) >= _WAITING_FETCHES:
            return refused(fetch, "one fetch at a time: wait for Done")
        why = self._wrong(fetch)
        if why is not None:
            return refused(fetch, why)
        if known is None:
            known = self._clients[client] = _Client(moved_at=time.monotonic())
        known.waiting.append(fetch)
        return None

    @property
    def is_busy(self) -> bool:
        """Whether a slice could be sent now."""
        return any(client.unsent is None for client in self._clients.values())

    def serve(self, send: Send) -> None:
        """Send a slice to the client whose turn it is."""
        if not self._clients:
            return
        key, client = self._clients.popitem(last=False)
        try:
            goes_on = self._serve_slice(key, client, send)
        except ClientGoneError:
            goes_on = False
        if goes_on:
            self._clients[key] = client

    def close(self) -> None:
        """Close what is open."""
        self._clients.clear()
        while self._folders:
            self._folders.popitem()[1].close()

    def _wrong(self, fetch: Fetch) -> str | None:
        held = self._find(fetch.run_id)
        if held is None or (held.info.device, held.info.task) != (fetch.device, fetch.task):
            return f"the journal holds no run {fetch.run_id!r} of {fetch.device}/{fetch.task}"
        if not 0 <= fetch.from_index <= fetch.to_index or fetch.from_index > held.head:
            return f"records [{fetch.from_index}, {fetch.to_index}) of a run whose head is {held.head}"
        return None

    def _serve_slice(self, key: bytes, client: _Client, send: Send) -> bool:
        """Send up to a slice; return whether the client has more to get."""
        if client.job is None and client.unsent is None and self._jobs() >= _JOBS:
            return True
        size = 0
        for _ in range(_SLICE_RECORDS):
            frames = client.unsent or self._next_frames(key, client)
            if frames is None:
                return False
            client.unsent = frames
            if not send(key, frames):
                return time.monotonic() - client.moved_at < _STUCK_S
            client.unsent = None
            client.moved_at = time.monotonic()
            size += sum(len(frame) for frame in frames)
            if size >= _SLICE_BYTES:
                break
        return True

    def _next_frames(self, key: bytes, client: _Client) -> list[Frame] | None:
        """Return the next message for the client; None where nothing is left to answer."""
        if client.job is None:
            if not client.waiting:
                return None
            fetch = client.waiting.popleft()
            try:
                client.job = self._begin(key, fetch)
            except (RawFormatError, OSError, LookupError) as error:
                return self._failed(fetch, error)
        try:
            frames = _advance(client.job)
        except (RawFormatError, OSError) as error:
            frames = self._failed(client.job.fetch, error)
            client.job = None
            return frames
        if client.job.done:
            client.job = None
        return frames

    def _begin(self, key: bytes, fetch: Fetch) -> _Job:
        held = self._find(fetch.run_id)
        if held is None:
            raise LookupError(f"run {fetch.run_id} is gone")
        folder = self._folders.pop((key, fetch.run_id), None) or RunFolder(held.path)
        self._folders[key, fetch.run_id] = folder
        self._close_unused()
        to_index = min(fetch.to_index, held.head)
        return _Job(fetch, held.info, folder.records(fetch.from_index, to_index), fetch.from_index)

    def _jobs(self) -> int:
        return sum(client.job is not None for client in self._clients.values())

    def _close_unused(self) -> None:
        """Close the runs used longest ago, but none that a client is reading."""
        for key in list(self._folders)[:-_OPEN_FOLDERS]:
            client = self._clients.get(key[0])
            if client is None or client.job is None:
                self._folders.pop(key).close()

    def _failed(self, fetch: Fetch, error: Exception) -> list[Frame]:
        log.warning("fetch failed", extra={"run": fetch.run_id, "cause": str(error)})
        return encode(refused(fetch, f"the journal cannot be read: {error}"))


def fits(frames: list[Frame]) -> bool:
    """Return whether a receiver takes the message."""
    return all(len(frame) <= MAX_MESSAGE_BYTES for frame in frames)


def refused(fetch: Fetch, why: str) -> Refused:
    """Return the refusal of a Fetch."""
    return Refused(why, fetch.run_id, fetch.number)


def _advance(job: _Job) -> list[Frame]:
    """Return the job's next message: a record, a gap, and Done after the last or at the limits."""
    found = None if job.count >= FETCH_RECORDS or job.size >= FETCH_BYTES else next(job.records, None)
    if found is None:
        job.done = True
        answer: Control = Done(job.fetch.run_id, job.next, job.fetch.number)
        return encode(answer)
    job.count += 1
    if isinstance(found, Gap):
        job.next = found.to_index
        return encode(RunGap(job.fetch.run_id, found.from_index, found.to_index, found.cause))
    job.next = found.index + 1
    frames = encode(RunRecord(job.info, found))
    if not fits(frames):
        return encode(RunGap(job.fetch.run_id, found.index, job.next, TOO_LARGE))
    job.size += sum(len(frame) for frame in frames)
    return frames
