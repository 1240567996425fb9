"""Serving what was before: Fetch → records, gaps, Done. In slices, the clients taking turns. Opens no socket."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dtolbus.bounds import fits
from dtolbus.errors import RawFormatError
from dtolbus.records import Gap, Record, RunInfo
from dtolbus.runs import RunFolder
from dtolbus.wire import (
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    Credit,
    Done,
    Fetch,
    Frame,
    Refused,
    RunGap,
    RunRecord,
    encode,
)
from dtolbus_producer.bucket import TokenBucket

log = logging.getLogger(__name__)

CATCHUP_MB_S = 200.0
"""What all clients together are served at most, MB a second, where nothing else is configured."""
FETCH_RECORDS = 256
"""Records served for one Fetch at most."""
FETCH_BYTES = 8 << 20
_SLICE_RECORDS = 16
_SLICE_BYTES = 256 << 10
"""What is read and sent before publishing goes on."""
_CLIENTS = 256
_OPEN_RUNS = 32
"""Runs kept open, so that reading goes on where it stopped."""
_IDLE_S = 5.0
"""When nobody was served for this long, no run is kept open."""
_FULL_WAIT_S = 0.01
"""A client whose queue is full is tried again after this long."""

TOO_LARGE = (
    f"the record is larger than a message, which has {MAX_HEADER_BYTES >> 20} MiB beside the samples and "
    f"{MAX_MESSAGE_BYTES >> 20} MiB for these; the journal has it"
)

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
class _Client:
    """A client's Fetch and how far it is served. One without credit costs no more than this."""

    fetch: Fetch
    next: int
    credit: int = 0
    count: int = 0
    size: int = 0
    records: Iterator[Record | Gap] | None = None
    """What is read on; None: to be sought again."""
    full_until: float = 0.0

    @property
    def is_at_end(self) -> bool:
        return self.next >= self.fetch.to_index or self.count >= FETCH_RECORDS or self.size >= FETCH_BYTES

    @property
    def may_be_sent(self) -> bool:
        return self.credit > 0 or self.is_at_end


class FetchService:
    """Answers the fetches of all clients; `find` tells how far a run can be served, None where it is unknown."""

    def __init__(self, find: Callable[[str], Held | None], catchup_mb_s: float = CATCHUP_MB_S) -> None:
        self._find = find
        self._bucket = TokenBucket(catchup_mb_s * 1e6)
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()
        """Who was served longest ago comes first."""
        self._folders: OrderedDict[tuple[bytes, str], RunFolder] = OrderedDict()
        self._served_at = 0.0
        self.records = self.bytes = 0
        """Of all that was served, whole messages. May be read from any thread."""

    @property
    def clients(self) -> int:
        """How many fetch. May be asked from any thread."""
        return len(self._clients)

    def ask(self, key: bytes, fetch: Fetch) -> Refused | None:
        """Take a Fetch; return why not, where it is not served."""
        if key in self._clients:
            return refused(fetch, "one fetch at a time: wait for Done")
        if len(self._clients) >= _CLIENTS and not self._forget_one():
            return refused(fetch, f"{_CLIENTS} clients are being served: ask again later")
        held = self._find(fetch.run_id)
        if held is None or (held.info.device, held.info.task) != (fetch.device, fetch.task):
            return refused(fetch, f"the journal holds no run {fetch.run_id!r} of {fetch.device}/{fetch.task}")
        start, end = fetch.from_index, fetch.to_index
        if not 0 <= start <= end or start > held.head:
            return refused(fetch, f"records [{start}, {end}) of a run whose head is {held.head}")
        fetch = msgspec.structs.replace(fetch, to_index=min(end, held.head))
        self._clients[key] = _Client(fetch, start)
        return None

    def grant(self, key: bytes, credit: Credit) -> None:
        """Let the client's Fetch of that number go on. Credit for another one is of no use, and ignored."""
        client = self._clients.get(key)
        if client is not None and client.fetch.number == credit.number and credit.records > 0:
            client.credit = min(client.credit + credit.records, FETCH_RECORDS)

    def wait_s(self, now: float) -> float | None:
        """Return after how long there is something to send, s; None where nobody may be sent anything."""
        waits = [max(0.0, c.full_until - now) for c in self._clients.values() if c.may_be_sent]
        return max(min(waits), self._bucket.wait_s(now)) if waits else None

    def serve(self, send: Send, now: float) -> None:
        """Send a slice to the client whose turn it is, if the rate allows; `now` is monotonic, s."""
        due = (key for key, client in self._clients.items() if client.may_be_sent and now >= client.full_until)
        key = next(due, None)
        if key is None or self._bucket.wait_s(now) > 0:
            self._close_unused(now)
            return
        self._served_at = now
        client = self._clients[key]
        try:
            goes_on = self._serve_slice(key, client, send, now)
        except ClientGoneError:
            goes_on = False
        if goes_on:
            self._clients.move_to_end(key)
        else:
            del self._clients[key]

    def close(self) -> None:
        """Close what is open."""
        self._clients.clear()
        while self._folders:
            self._folders.popitem()[1].close()

    def _serve_slice(self, key: bytes, client: _Client, send: Send, now: float) -> bool:
        """Send up to a slice; return whether the client has more to get."""
        size = 0
        for _ in range(_SLICE_RECORDS):
            if size >= _SLICE_BYTES or not client.may_be_sent:
                break
            before = client.next
            frames, is_last = self._next_frames(key, client)
            if not send(key, frames):
                client.next, client.records = before, None
                client.full_until = now + _FULL_WAIT_S
                break
            if is_last:
                return False
            sent = sum(len(frame) for frame in frames)
            self._bucket.take(sent)
            size += sent
            client.size += sent
            client.count += 1
            self.records += 1
            self.bytes += sent
            client.credit -= 1
        return True

    def _next_frames(self, key: bytes, client: _Client) -> tuple[list[Frame], bool]:
        """Return the next message for the client, and whether it is the last for its Fetch."""
        fetch = client.fetch
        if client.is_at_end:
            return encode(Done(fetch.run_id, client.next, fetch.number)), True
        held = self._find(fetch.run_id)
        if held is None:
            return self._failed(fetch, f"run {fetch.run_id} is gone")
        try:
            if client.records is None:
                client.records = self._folder(key, held).records(client.next, fetch.to_index)
            found = next(client.records, None)
        except (RawFormatError, OSError) as error:
            return self._failed(fetch, str(error))
        if found is None:
            return self._failed(fetch, f"nothing where record {client.next} should be")
        client.next = found.to_index if isinstance(found, Gap) else found.index + 1
        return _answer(fetch, held.info, found), False

    def _folder(self, key: bytes, held: Held) -> RunFolder:
        """Return the run's folder, open for this client; the one used longest ago is closed instead."""
        folder = self._folders.pop((key, held.info.run_id), None) or RunFolder(held.path)
        self._folders[key, held.info.run_id] = folder
        while len(self._folders) > _OPEN_RUNS:
            (other, _), unused = self._folders.popitem(last=False)
            if other in self._clients:
                self._clients[other].records = None
            unused.close()
        return folder

    def _close_unused(self, now: float) -> None:
        """Close the runs when nobody was served for a while: a file that is open keeps its room on the disk."""
        if now - self._served_at < _IDLE_S:
            return
        for client in self._clients.values():
            client.records = None
        while self._folders:
            self._folders.popitem()[1].close()

    def _forget_one(self) -> bool:
        """Forget the fetch of the client that has granted nothing for longest; return whether there was one."""
        for key, client in self._clients.items():
            if not client.may_be_sent:
                del self._clients[key]
                return True
        return False

    def _failed(self, fetch: Fetch, cause: str) -> tuple[list[Frame], bool]:
        log.warning("fetch failed", extra={"run": fetch.run_id, "cause": cause})
        return encode(refused(fetch, f"the journal cannot be read: {cause}")), True


def refused(fetch: Fetch, why: str) -> Refused:
    """Return the refusal of a Fetch."""
    return Refused(why, fetch.run_id, fetch.number)


def _answer(fetch: Fetch, info: RunInfo, found: Record | Gap) -> list[Frame]:
    """Return the message for what the journal has next."""
    if isinstance(found, Gap):
        samples = (found.first_sample, found.end_sample)
        gap = RunGap(fetch.run_id, found.from_index, found.to_index, found.cause, *samples, number=fetch.number)
        return encode(gap)
    frames = encode(RunRecord(info, found))
    if fits(frames):
        return frames
    return encode(RunGap(fetch.run_id, found.index, found.index + 1, TOO_LARGE, number=fetch.number))
