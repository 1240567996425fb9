"""The acquisition of one device: its tasks from the board into the journal. It opens no socket and waits for nobody."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dtolbus.bounds import check_run
from dtolbus.cli import StopEvent
from dtolbus.errors import BoardError, CannotStartError, UsageError
from dtolbus.metrics import Told
from dtolbus.records import RunInfo
from dtolbus.topics import quote, stream_name
from dtolbus_producer.acquisitionfacts import AcquisitionFacts
from dtolbus_producer.attending import Attendance
from dtolbus_producer.boards import Seekable
from dtolbus_producer.boards.guarding import GuardedBoard
from dtolbus_producer.config import Config
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.locking import locked
from dtolbus_producer.opening import open_writer
from dtolbus_producer.prepared import Prepared
from dtolbus_producer.quota import Quota
from dtolbus_producer.recovery import recover_device
from dtolbus_producer.resuming import Before, earlier_runs, rest_of
from dtolbus_producer.taskrun import Outcome, RunRequest, run_info
from dtolbus_producer.tasks import DeviceConfig, TaskConfig, WrongKeyError

log = logging.getLogger(__name__)

_POLL_S = 0.05
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 10.0
_CLOSE_S = 2.0
"""How long a board whose code hangs may take to be closed."""


def acquire(
    config: Config,
    device_name: str,
    data_dir: Path,
    stop: threading.Event,
    goes_on_from: Sequence[str] = (),
    tell: Callable[[Told], None] = lambda _: None,
) -> None:
    """Acquire a device's tasks until all are done or `stop` is set; runs that a killed producer left are ended first.

    A board that goes away is waited for; what follows are new runs. Of a task one of whose runs is in `goes_on_from`,
    only what that run and those before it did not get is acquired; where nothing is left, nothing is started. What
    there is to tell of it is given to `tell`.

    Raises:
        UsageError: there is no such device or run, or the board cannot do what is asked of it.
        CannotStartError: no board, no journal, or no room for one; another process records this device here.
        JournalError: the disk is full, or the journal has reached its quota.
        BoardError: the board did not come back, or a poll failed where the config says `on_error = "raise"`.
    """
    device = config.device(device_name)
    taken = f"device {device.name!r} is recorded into {data_dir} already: stop that producer first"
    with locked(data_dir / f".producer.{quote(device.name)}.lock", taken):
        _acquire(config, device, data_dir, stop, goes_on_from, tell)


def _acquire(
    config: Config,
    device: DeviceConfig,
    data_dir: Path,
    stop: threading.Event,
    goes_on_from: Sequence[str],
    tell: Callable[[Told], None],
) -> None:
    journal = data_dir / "journal"
    recover_device(journal, device.name)
    before = earlier_runs(journal, device.name, goes_on_from)
    if not any(rest_of(task, before.get(task.name)) for task in device.tasks):
        log.info("nothing is left to acquire", extra={"device": device.name})
        return
    with Quota(data_dir, config.journal) as quota:
        board = GuardedBoard(device)
        try:
            board.open()
        except BoardError as error:
            raise CannotStartError(f"device {device.name!r}: {error}; connect the board and start again") from error
        facts = AcquisitionFacts(
            device.name, [task.name for task in device.tasks], data_dir, config.journal, quota.full
        )
        tell(facts)
        _Acquisition(config, device, board, journal, quota, stop, before, facts).run()


class BoardHangsError(BoardError):
    """The board's code does not come back; what it had given is journaled, and its process is to be left."""


class _Acquisition:
    """Sessions of an open board, one after another, until nothing is left to do."""

    def __init__(
        self,
        config: Config,
        device: DeviceConfig,
        board: GuardedBoard,
        journal: Path,
        quota: Quota,
        stop: threading.Event,
        before: dict[str, Before],
        facts: AcquisitionFacts,
    ) -> None:
        self._config = config
        self._device = device
        self._board = board
        self._journal = journal
        self._quota = quota
        self._stop = stop
        self._before = before
        """By task: what earlier runs have."""
        self._facts = facts
        self._newest: dict[str, RunInfo] = {}
        """By task: the run that this process made last."""

    def run(self) -> None:
        """Run what is left of the tasks; after each loss of the board what is left then."""
        tasks = self._rests(self._device.tasks)
        away_s = 0.0
        while tasks and not self._stop.is_set():
            try:
                outcomes = _Session(self, tasks).run()
            except BoardHangsError:
                closing = threading.Thread(target=self._board.close, name="close", daemon=True)
                closing.start()
                closing.join(_CLOSE_S)
                raise
            except BaseException:
                self._board.close()
                raise
            self._board.close()
            for task in tasks:
                if outcomes[task.name].end == "failed":
                    reason = outcomes[task.name].reason
                    raise BoardError(f"device {self._device.name!r}, task {task.name!r}: {reason} (on_error = 'raise')")
            lost = [task for task in self._device.tasks if task.name in outcomes and outcomes[task.name].end == "lost"]
            for task in lost:
                self._note(task.name, outcomes[task.name].samples)
            tasks = self._rests(lost)
            if not tasks or self._stop.is_set():
                return
            reason = "; ".join(outcomes[task.name].reason for task in tasks)
            log.warning("board lost", extra={"device": self._device.name, "reason": reason})
            away_s = self._reopen(0.0 if any(outcome.samples for outcome in outcomes.values()) else away_s, reason)

    def prepared(self, task: TaskConfig) -> Prepared:
        """Set a task up on the board. Raises UsageError, and BoardError where the board is gone."""
        try:
            source = self._board.readings(task) if task.kind == "readings" else self._board.blocks(task)
        except WrongKeyError as error:
            raise UsageError(f"device {self._device.name!r}: {error}") from error
        before = self._before.get(task.name)
        if before is not None and isinstance(source, Seekable):
            source.skip(before.samples)
        prepared = Prepared(source, self._request(task, source.plan.rate_hz))
        try:
            check_run(run_info(source.plan, prepared.request, time.perf_counter_ns(), 0))
        except UsageError:
            prepared.drop()
            raise
        return prepared

    @property
    def stop(self) -> threading.Event:
        """Set when everything is to end."""
        return self._stop

    def _rests(self, tasks: Sequence[TaskConfig]) -> list[TaskConfig]:
        rests = [rest_of(task, self._before.get(task.name)) for task in tasks]
        for task, rest in zip(tasks, rests, strict=True):
            self._facts.tasks[task.name].is_done = rest is None
        return [rest for rest in rests if rest is not None]

    def _note(self, task: str, samples: int) -> None:
        """Note that so many samples of the task's last run are over."""
        run, before = self._newest.pop(task, None), self._before.get(task)
        if run is not None:
            self._before[task] = Before(run.run_id, samples + (0 if before is None else before.samples), run.rate_hz)

    def _request(self, task: TaskConfig, rate_hz: float) -> RunRequest:
        attendance = Attendance(stream_name(self._device.name, task.name))
        self._facts.tasks[task.name].attended(attendance)
        return RunRequest(
            device=self._device.name,
            task=task.name,
            kind=task.kind,
            samples_asked=task.samples_asked(rate_hz),
            meta=self._config.run,
            queue_s=self._config.journal.queue_s,
            open_writer=self._open_writer,
            full=self._quota.full,
            why_cut_off=self._why_cut_off,
            on_error=task.on_error or "return",
            before=self._before.get(task.name),
            attendance=attendance,
        )

    def _why_cut_off(self) -> str | None:
        is_orphan = isinstance(self._stop, StopEvent) and self._stop.is_orphan
        return "dtolbus up is gone, which had started this acquisition: nobody asked it to stop" if is_orphan else None

    def _open_writer(self, info: RunInfo) -> RunWriter:
        writer = open_writer(self._journal, info, self._config.journal, self._quota.rolled)
        self._newest[info.task] = info
        self._facts.tasks[info.task].opened(writer)
        return writer

    def _reopen(self, away_s: float, reason: str) -> float:
        """Open the board once it is back; return how long it has been away, `away_s` included.

        Raises BoardError where that is too long.
        """
        while away_s < self._device.reconnect_s:
            wait_s = min(max(away_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            if self._stop.wait(wait_s):
                return away_s
            away_s += wait_s
            try:
                self._board.open()
            except BoardError as error:
                reason = str(error)
            else:
                return away_s
        raise BoardError(
            f"device {self._device.name!r}: {reason}; it did not come back within {self._device.reconnect_s:g} s "
            f"(reconnect_s)"
        )


class _Session:
    """All tasks of the board on a thread each, until they are done, or one of them loses the board."""

    def __init__(self, acquisition: _Acquisition, tasks: list[TaskConfig]) -> None:
        self._acquisition = acquisition
        self._tasks = tasks
        self._halt = threading.Event()
        self._outcomes: dict[str, Outcome] = {}
        self._errors: list[Exception] = []

    def run(self) -> dict[str, Outcome]:
        """Return each task's outcome. Raises UsageError before any has begun, and the first error of a journal."""
        try:
            prepared = self._prepared()
        except BoardError as error:
            return {task.name: Outcome("lost", 0, str(error)) for task in self._tasks}
        threads = [
            threading.Thread(target=self._run_task, args=(name, task), name=f"task {name}", daemon=True)
            for name, task in prepared.items()
        ]
        for thread in threads:
            thread.start()
        hung = self._await_end(dict(zip(prepared.values(), threads, strict=True)))
        if self._errors:
            raise self._errors[0]
        if hung:
            raise BoardHangsError(hung)
        return {name: self._seen_from_outside(outcome) for name, outcome in self._outcomes.items()}

    def _await_end(self, threads: dict[Prepared, threading.Thread]) -> str:
        """Wait until all have ended; end the run of a thread that hangs without it, and return what hangs."""
        halted_ns, hung = None, []
        while any(thread.is_alive() for thread in threads.values()):
            if halted_ns is None and self._halt.is_set():
                halted_ns = time.perf_counter_ns()
            for task, thread in list(threads.items()):
                if halted_ns is None:
                    task.request.attendance.look()
                why = task.why_hung(halted_ns) if thread.is_alive() else None
                if why is not None:
                    self._halt.set()
                    task.request.attendance.abandon(why)
                    hung.append(why)
                    del threads[task]
            if halted_ns is None and self._acquisition.stop.wait(_POLL_S):
                self._halt.set()
            elif halted_ns is not None:
                time.sleep(_POLL_S)
        return "; ".join(hung)

    def _prepared(self) -> dict[str, Prepared]:
        """Set all tasks up, or none."""
        prepared: dict[str, Prepared] = {}
        try:
            for task in self._tasks:
                prepared[task.name] = self._acquisition.prepared(task)
        except BaseException:
            for one in prepared.values():
                one.drop()
            raise
        return prepared

    def _run_task(self, name: str, task: Prepared) -> None:
        try:
            outcome = task.run(self._halt)
        except Exception as error:
            self._errors.append(error)
            self._halt.set()
            return
        self._outcomes[name] = outcome
        if outcome.end in ("lost", "failed"):
            self._halt.set()

    def _seen_from_outside(self, outcome: Outcome) -> Outcome:
        """Return a task that another one's loss has halted as lost: it is to go on, like that one."""
        if outcome.end == "halted" and not self._acquisition.stop.is_set():
            return Outcome("lost", outcome.samples, outcome.reason or "halted with the board")
        return outcome
