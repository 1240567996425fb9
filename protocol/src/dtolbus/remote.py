"""A journal on another machine, read through its gateway's catch-up socket as if it were a folder. It blocks."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import msgspec
import zmq

from dtolbus.errors import CannotStartError, UsageError, WireError
from dtolbus.handshakes import followed
from dtolbus.keys import Keys
from dtolbus.manifest import Manifest
from dtolbus.records import Gap, Record, RunInfo, RunStatus
from dtolbus.wire import (
    Credit,
    Done,
    Fetch,
    Hello,
    Message,
    Refused,
    RunGap,
    RunRecord,
    Welcome,
    decode,
    encode,
)

_CREDIT = 128
_LOOK_MS = 200
_DAMAGED = 20
"""Damaged answers in a row after which it is no use asking again."""


class RemoteJournal:
    """The runs that a gateway serves; `runs` are those of its Welcome. What was damaged on its way is asked for again.

    `keys` are those of this client, where the gateway asks for some.

    Raises CannotStartError where no gateway answers, or lets it in, WireError where what comes cannot be read, both
    here and while reading, and UsageError where `url` is no address.
    """

    def __init__(self, url: str, timeout_s: float = 3.0, keys: Keys | None = None) -> None:
        self._url = url
        self._keys = keys
        self._timeout_s = timeout_s
        self._number = 0
        self._unanswered = 0
        """The number of the Fetch that is on its way."""
        self._context = zmq.Context()
        try:
            self._connect()
        except UsageError:
            self._context.term()
            raise
        self._damaged = 0
        self.runs: list[RemoteRun] = []
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def refresh(self) -> None:
        """Ask how far the runs are now. Raises CannotStartError, WireError."""
        self.runs = [RemoteRun(self, status) for status in self._statuses()]

    def status(self, before: RunStatus) -> RunStatus:
        """Return how far the run is of which this was told before; the same where it is gone.

        Raises CannotStartError, WireError.
        """
        told = (status for status in self._statuses() if status.info.run_id == before.info.run_id)
        return next(told, before)

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
        self._context.term()

    def records(self, run: RunInfo, from_index: int, to_index: int) -> Iterator[Record | Gap]:
        """Yield the records [from_index, to_index) in order, and a Gap for each range that the journal does not have.

        One iterator at a time: beginning another ends it.
        """
        position = from_index
        while position < to_index:
            began = position
            try:
                for found in self._fetched(Fetch(run.device, run.task, run.run_id, position, to_index)):
                    position = found.to_index if isinstance(found, Gap) else found.index + 1
                    yield found
            except WireError as error:
                self._connect_anew(error)
                continue
            if position == began:
                raise CannotStartError(f"{self._url}: run {run.run_id} has {position} records now, not {to_index}")

    def _fetched(self, fetch: Fetch) -> Iterator[Record | Gap]:
        """Yield what one Fetch gives; the gateway may stop before its end."""
        if self._unanswered:  # an iterator was left in the middle
            self._send(Credit(1 << 20, self._unanswered))
            self._answer(lambda message: _ends(message, self._unanswered))
        self._number += 1
        number = self._unanswered = self._number
        self._send(msgspec.structs.replace(fetch, number=number))
        credit = 0
        while True:
            if credit <= _CREDIT // 2:
                self._send(Credit(_CREDIT - credit, number))
                credit = _CREDIT
            answer = self._answer(lambda message: isinstance(message, RunRecord | RunGap) or _ends(message, number))
            if isinstance(answer, RunRecord | RunGap):
                credit -= 1
                yield _found(answer)
                continue
            self._unanswered = 0
            if isinstance(answer, Refused):
                raise CannotStartError(f"{self._url}: the gateway does not serve run {fetch.run_id}: {answer.why}")
            return

    def _statuses(self) -> list[RunStatus]:
        while True:
            try:
                return list(self._welcomed())
            except WireError as error:
                self._connect_anew(error)

    def _welcomed(self) -> Iterator[RunStatus]:
        self._send(Hello(worker=""))
        while True:
            welcome = self._answer(lambda message: isinstance(message, Welcome))
            assert isinstance(welcome, Welcome)  # noqa: S101  # narrows the type, nothing rests on it
            yield from welcome.runs
            if not welcome.more:
                return

    def _connect_anew(self, error: WireError) -> None:
        """Leave behind what still comes of what was asked. Raises the error after too many in a row."""
        self._damaged += 1
        if self._damaged > _DAMAGED:
            raise error
        self._disconnect()
        self._connect()
        self._unanswered = 0

    def _connect(self) -> None:
        self._socket, self._handshakes = followed(self._context, zmq.DEALER, self._url, keys=self._keys)

    def _disconnect(self) -> None:
        self._handshakes.close()
        self._socket.close(linger=0)

    def _send(self, message: Message) -> None:
        self._socket.send_multipart(encode(message))

    def _has_answer(self) -> bool:
        """Wait for what comes next; False where nothing does. Raises CannotStartError where it is not let in."""
        end = time.monotonic() + self._timeout_s
        while not self._socket.poll(_LOOK_MS):
            self._handshakes.look()
            if words := self._handshakes.words():
                raise CannotStartError(words)
            if time.monotonic() > end:
                return False
        return True

    def _answer(self, is_it: Callable[[Message], bool]) -> Message:
        while self._has_answer():
            message = decode(self._socket.recv_multipart())
            if isinstance(message, Refused) and message.was_damaged:
                raise WireError(f"{self._url} could not read what was asked: {message.why}")
            self._damaged = 0
            if is_it(message):
                return message
        raise CannotStartError(
            f"no gateway answers at {self._url}: start it (dtolbus-gateway serve DIR), or give its catch-up port"
        )


class RemoteRun:
    """One run of a remote journal, to be read like a RunFolder."""

    def __init__(self, journal: RemoteJournal, status: RunStatus) -> None:
        self._journal = journal
        self.told = status
        """How far it was when the gateway last told."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def info(self) -> RunInfo:
        """The run header."""
        return self.told.info

    def status(self) -> RunStatus:
        """Return how far the run is; one that was still recorded when the gateway told is asked for again.

        Raises CannotStartError, WireError.
        """
        if self.told.state == "running":
            self.told = self._journal.status(self.told)
        return self.told

    def records(self, from_index: int, to_index: int) -> Iterator[Record | Gap]:
        """Yield the records [from_index, to_index) in order, and a Gap for each range that cannot be read."""
        return self._journal.records(self.info, from_index, to_index)

    def manifest(self) -> Manifest:
        """Return an empty one: what was deleted is told by the gaps, all but the samples that never were journaled."""
        return Manifest()


def _ends(message: Message, number: int) -> bool:
    return isinstance(message, Done | Refused) and message.number == number


def _found(message: RunRecord | RunGap) -> Record | Gap:
    if isinstance(message, RunGap):
        return Gap(message.from_index, message.to_index, message.cause, message.first_sample, message.end_sample)
    return message.record
