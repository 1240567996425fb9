"""Writing a run's journal: one append call a record, group commit on a thread of its own, then the head."""

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from filelock import FileLock

from dtolbus import files
from dtolbus.bounds import check_run
from dtolbus.errors import CannotStartError, DtolbusError
from dtolbus.metrics import Durations
from dtolbus.records import DaqBlock, DaqReading, Record, RunEnd, RunInfo
from dtolbus.runs import HEAD_FILE, LOCK_FILE, RUN_FILE, Head, RunClock, RunFile, encode_head, run_path
from dtolbus_producer.recovery import recover_run
from dtolbus_producer.segment import Segment
from dtolbus_producer.storable import storable

__all__ = ["JournalError", "JournalFullError", "RunWriter", "recover_run"]

log = logging.getLogger(__name__)

UNSYNCED_BYTES = 64 * 1024 * 1024
"""So much may wait for its sync in memory; beyond it, append waits."""

_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_RESERVE_FILE = ".reserve"
_RESERVE_BYTES = 64 * 1024
_TRIES = 3


class JournalError(DtolbusError):
    """The journal cannot be written any more; what is below the head stays readable."""


class JournalFullError(JournalError):
    """There is no room: starting again helps only once somebody made some."""

    exit_code = 4


class RunWriter:
    """Writes one run: makes its folder, which must be new, and holds its lock until it is closed.

    `append` is for one thread; `rolled` is called at each new segment, and must not wait. Records are durable `sync_ms`
    later (0: when append returns); `head` tells how many.
    Raises CannotStartError where the folder cannot be made or is there already, UsageError for a header that no message
    can hold.
    """

    def __init__(
        self,
        journal: Path,
        info: RunInfo,
        *,
        sync_ms: float = 20.0,
        segment_bytes: int = 256 * 1024 * 1024,
        segment_s: float = 3600.0,
        rolled: Callable[[], None] = lambda: None,
    ) -> None:
        check_run(info)
        self.info = info
        self.path = run_path(journal, info.device, info.task, info.run_id)
        self.sync_s = sync_ms / 1000
        """So often what is appended is made durable; 0: at each append."""
        self._segment_bytes = segment_bytes
        self._segment_ns = round(segment_s * 1e9)
        self._rolled = rolled
        self._turn = threading.RLock()
        self._state = threading.Condition(self._turn)
        self._stop = threading.Event()
        self._next = self._durable = 0
        self._unsynced: deque[tuple[Record, int]] = deque()
        self._unsynced_bytes = 0
        self._full: list[Segment] = []
        self._closed_bytes = self._appended_bytes = 0
        self._samples = 0
        self._files_left = 0
        self._is_untrusted = False
        self._error: Exception | None = None
        self._is_closed = False
        self.syncs = Durations()
        self.synced_at = self.opened_at = time.monotonic()
        """When all was last durable that had been appended before, monotonic s."""
        self.ended: RunEnd | None = None
        """How the run ended; None: it goes on."""
        self._run_lock = FileLock(str(self.path / LOCK_FILE), thread_local=False)
        self._head_fd = -1
        try:
            self._make_folder()
            self._segment = self._new_segment(0)
            self._head_fd = files.open_in_place(self.path / HEAD_FILE)
            self._write_head(Head(0, self._segment.size))
        except OSError as error:
            self._release()
            raise CannotStartError(
                f"the journal {self.path} cannot be written: {error.strerror or error}; free the place, or choose "
                f"another data folder"
            ) from error
        self._thread = threading.Thread(target=self._sync_always, name=f"sync {info.device}/{info.task}", daemon=True)
        if self.sync_s > 0:
            self._thread.start()

    @property
    def next_index(self) -> int:
        """The index that the next record must have."""
        return self._next

    @property
    def head(self) -> int:
        """Number of durable records."""
        return self._durable

    @property
    def samples(self) -> int:
        """Samples a channel, or polls, that were appended."""
        return self._samples

    @property
    def appended_bytes(self) -> int:
        """Bytes of what was appended, and of the segments' headers; asking waits for no disk, as `size` does."""
        return self._appended_bytes

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        with self._state:
            return self._closed_bytes + sum(segment.size for segment in (*self._full, self._segment))

    def append(self, record: Record) -> None:
        """Append the next record, as `storable` gives it, with one call.

        Raises JournalError where the disk refuses for good.
        """
        if record.index != self._next:
            raise ValueError(f"record {record.index} appended where {self._next} is next")
        record = storable(record)
        if self.sync_s <= 0 and self._durable == self._next:
            self.synced_at = time.monotonic()
        with self._turn:  # as `_state` has it, at half the time
            while self._unsynced_bytes > UNSYNCED_BYTES and self._error is None:
                self._state.wait()
            if self._error is not None:
                self._raise_error()
            self._roll()
            try:
                self._put(record)
            except OSError as error:
                self._write_failed(error, record)
        if self.sync_s <= 0:
            try:
                self._sync()
            except OSError as error:
                self._fail(error)
            self._raise_error()

    def close(self, state: RunEnd = "ended", clock: RunClock | None = None) -> None:
        """Make all durable and write how the run ended. Does nothing when it is closed.

        Raises JournalError where that fails; then the run is recovered at the next start.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._sync()
            ended: RunEnd = state if self._error is None else "interrupted"
            self._write_run_file(RunFile(self.info, ended, self._durable, self._samples, self.size, clock))
        except OSError as error:
            self._error = self._error or error
            log.warning("run left open", extra={"run": str(self.path), "error": str(error)})
        finally:
            self.ended = state if self._error is None else "interrupted"
            self._release()
        self._raise_error()

    def _make_folder(self) -> None:
        files.make_folder(self.path.parent)
        try:
            self.path.mkdir()
        except FileExistsError as error:
            raise CannotStartError(f"{self.path} exists: no run is written twice") from error
        files.sync_dir(self.path.parent)
        self._run_lock.acquire(timeout=0)
        reserve = files.open_new(self.path / _RESERVE_FILE)
        try:
            files.append(reserve, [bytes(_RESERVE_BYTES)])
        finally:
            os.close(reserve)
        files.replace(self.path / RUN_FILE, msgspec.json.encode(RunFile(self.info)))

    def _write_run_file(self, file: RunFile) -> None:
        # what was set aside at the start is given back first, so that a full disk does not leave the run open
        (self.path / _RESERVE_FILE).unlink(missing_ok=True)
        files.replace(self.path / RUN_FILE, msgspec.json.encode(file))

    def _new_segment(self, first_index: int) -> Segment:
        segment = Segment(self.path, self.info, first_index)
        self._appended_bytes += segment.size
        return segment

    def _roll(self) -> None:
        """Begin a new segment where the current one is full or old, and holds anything."""
        segment = self._segment
        age_ns = time.perf_counter_ns() - segment.opened_mono_ns
        if segment.records and (segment.size >= self._segment_bytes or age_ns >= self._segment_ns):
            try:
                self._segment = self._new_segment(self._next)
            except OSError as error:
                self._fail(error)
                self._raise_error()
            self._full.append(segment)
            self._rolled()

    def _put(self, record: Record) -> None:
        size = self._segment.append(record)
        self._next = record.index + 1
        if isinstance(record, DaqBlock):
            self._samples += record.samples_per_channel
        elif isinstance(record, DaqReading):
            self._samples += 1
        self._unsynced.append((record, size))
        self._unsynced_bytes += size
        self._appended_bytes += size

    def _write_failed(self, error: OSError, record: Record) -> None:
        """Cut off what was half-written; go on in a new segment, unless the disk is full."""
        self._segment.cut_back()
        if error.errno in _DISK_FULL:
            self._fail(error)
        else:
            try:
                self._start_over(error)
                if self._error is None:
                    self._put(record)
            except OSError as again:
                self._segment.cut_back()
                self._fail(again)
        self._raise_error()

    def _sync_always(self) -> None:
        while not self._stop.wait(self.sync_s):
            try:
                self._sync()
            except Exception as error:
                log.exception("the journal's sync thread ends")
                self._fail(error)
                return

    def _sync(self) -> None:
        """Make durable what is appended so far, then write the head."""
        with self._state:
            full, current, target = list(self._full), self._segment, self._next
            head, files_then = Head(target, current.size), self._files_left
        began_at = time.monotonic()
        if target == self._durable:
            self.synced_at = began_at
        if target == self._durable or self._is_untrusted:
            return
        failed: OSError | None = None
        try:
            for segment in (*full, current):
                segment.sync()
            if not all(segment.is_entry_durable for segment in (*full, current)):
                files.sync_dir(self.path)
        except OSError as error:
            failed = error
        with self._state:
            if files_then != self._files_left:  # append has left these files meanwhile, and synced the new one
                return
            if failed is not None:
                self._start_over(failed)
                return
            for segment in (*full, current):
                segment.is_entry_durable = True
            for segment in full:
                self._full.remove(segment)
                self._closed_bytes += segment.size
                segment.close()
            self._now_durable(target)
            self._write_head(head)
        self.synced_at = time.monotonic()
        self.syncs.add(self.synced_at - began_at)

    def _now_durable(self, target: int) -> None:
        self._durable = target
        while self._unsynced and self._unsynced[0][0].index < target:
            self._unsynced_bytes -= self._unsynced.popleft()[1]
        self._state.notify_all()

    def _start_over(self, error: OSError) -> None:
        """Leave the files that could not be synced; write the unsynced records into a new segment, and sync that.

        After a failed sync nobody knows what of a file is on the medium, and a second sync tells nothing.
        """
        self._is_untrusted = True
        for _ in range(_TRIES):
            if error.errno in _DISK_FULL or self._error is not None:
                break
            log.warning("new segment after an error", extra={"run": str(self.path), "error": str(error)})
            try:
                self._set_aside([*self._full, self._segment])
                self._segment = self._new_segment(self._durable)
                for record, _ in self._unsynced:
                    self._segment.append(record)
                self._segment.sync()
                files.sync_dir(self.path)
            except OSError as again:
                error = again
                continue
            self._is_untrusted = False
            self._segment.is_entry_durable = True
            self._now_durable(self._next)
            self._write_head(Head(self._durable, self._segment.size))
            return
        self._fail(error)

    def _set_aside(self, segments: Sequence[Segment]) -> None:
        """Close the segments; those without a durable record lose their name, so that nobody takes them for good."""
        self._files_left += 1
        for segment in segments:
            if segment.leave(self._durable):
                self._closed_bytes += segment.size
        self._full.clear()

    def _write_head(self, head: Head) -> None:
        files.write_at_start(self._head_fd, encode_head(head))

    def _fail(self, error: Exception) -> None:
        with self._state:
            self._error = self._error or error
            self._state.notify_all()
        log.error("the journal cannot be written", extra={"run": str(self.path), "error": str(error)})

    def _raise_error(self) -> None:
        if self._error is None:
            return
        if isinstance(self._error, FileNotFoundError) and not self.path.exists():
            raise JournalError(
                f"{self.path} is not there any more: it was renamed, moved or deleted while its run was written, after "
                f"{self._durable} records; put it back under that name"
            ) from self._error
        reason = getattr(self._error, "strerror", None) or str(self._error)
        kind = JournalFullError if getattr(self._error, "errno", None) in _DISK_FULL else JournalError
        raise kind(
            f"the journal {self.path} cannot be written: {reason}; {self._durable} records of it are safe: make room, "
            f"or choose another data folder, and start again"
        ) from self._error

    def _release(self) -> None:
        for segment in (*self._full, *([self._segment] if hasattr(self, "_segment") else [])):
            segment.close()
        if self._head_fd >= 0:
            os.close(self._head_fd)
            self._head_fd = -1
        self._run_lock.release()
