"""A board in our hands: whatever its code raises or gives is what a board may, or an error that names its package.

Any package may bring a board. What it raises (SystemExit too) is a BoardError of ours, which the acquisition takes as
the loss of the board; a source that is none, a plan that cannot be and a buffer that the plan does not say are as well.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from dtolbus.errors import BoardError, CannotStartError, UsageError
from dtolbus_producer.boards import (
    BlockSource,
    Board,
    Buffer,
    End,
    Fault,
    PolledSource,
    Readout,
    Seekable,
    TaskPlan,
    board_class,
    origin_of,
)
from dtolbus_producer.boards.delivered import buffer_problem, plan_problem, readout_problem
from dtolbus_producer.tasks import DeviceConfig, TaskConfig, WrongKeyError

log = logging.getLogger(__name__)

Given = TypeVar("Given")

_LONGEST_WORDS = 500
_AT_SET_UP = (BoardError, CannotStartError, UsageError, WrongKeyError)
"""What a board may raise before anything runs."""


class Foreign(NamedTuple):
    """Whose code it is."""

    kind: str
    origin: str

    def call(
        self, what: str, allowed: tuple[type[Exception], ...], function: Callable[..., Given], *args: Any
    ) -> Given:
        """Call it. Raises what is allowed; whatever else it raises is a BoardError."""
        try:
            return function(*args)
        except allowed:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C: nobody's fault
            raise BoardError(self.said(f"{what} raised {words_of(error)}")) from error

    def said(self, what: str) -> str:
        """Return what is wrong with it, as a message begins."""
        return f"the {self.name}: {what}"

    @property
    def name(self) -> str:
        """Which board of which package."""
        return f"board {self.kind!r} of {self.origin}"


class Busy(NamedTuple):
    """A call that has not come back."""

    what: str
    since_ns: int
    """Monotonic instant of the call, ns."""


def words_of(thing: object) -> str:
    """Return an exception, or what was given, in one line, cut where it is long; what cannot be shown by its type."""
    try:
        words = repr(thing)
    except Exception:
        words = f"{type(thing).__name__}, which cannot be shown"
    return words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]} … [cut: {len(words)} characters]"


def check_device(kind: type[Board], device: DeviceConfig) -> None:
    """Let the board check its configuration.

    Raises WrongKeyError, msgspec.ValidationError for its options, and CannotStartError where the check itself fails.
    """
    foreign = Foreign(device.board_kind, origin_of(device.board_kind))
    try:
        foreign.call("check", (*_AT_SET_UP, ValueError), kind.check, device)
    except BoardError as error:
        raise CannotStartError(str(error)) from error


class GuardedBoard:
    """The board of a device. Raises what its class raises: CannotStartError where it cannot be made."""

    def __init__(self, device: DeviceConfig) -> None:
        made: type[Board] = board_class(device.board_kind)
        self._foreign = Foreign(device.board_kind, origin_of(device.board_kind))
        try:
            self._board = self._foreign.call("making it", _AT_SET_UP, made, device)
        except BoardError as error:
            raise CannotStartError(str(error)) from error

    @property
    def takes(self) -> str | None:
        """What it takes of the hardware while it is open, as people know it; None where it does not tell."""
        return self._foreign.call("takes", (BoardError,), lambda: getattr(self._board, "takes", None))

    def open(self) -> None:
        """Take the hardware. Raises BoardError, and CannotStartError where waiting cannot help."""
        self._foreign.call("open", _AT_SET_UP, self._board.open)

    def close(self) -> None:
        """Release the hardware; what goes wrong there is logged."""
        problem = _problem_of(self._foreign, "close", self._board.close)
        if problem is not None:
            log.warning("board not closed", extra={"cause": problem})

    def blocks(self, task: TaskConfig) -> "GuardedBlocks":
        """Set a clocked task up. Raises BoardError, WrongKeyError."""
        source = self._foreign.call("blocks", _AT_SET_UP, self._board.blocks, task)
        kind = GuardedRecording if isinstance(source, Seekable) else GuardedBlocks
        return kind(_whole(self._foreign, source, "blocks", ("plan", "start", "read", "stop")), self._foreign)

    def readings(self, task: TaskConfig) -> "GuardedReadings":
        """Set a polled task up. Raises BoardError, WrongKeyError."""
        source = self._foreign.call("readings", _AT_SET_UP, self._board.readings, task)
        return GuardedReadings(_whole(self._foreign, source, "readings", ("plan", "poll")), self._foreign)


class _Guarded:
    """What both kinds of sources share: the plan, and since when their code has been running."""

    busy: Busy | None = None
    """What of the board's code has not come back; None: it is not running."""

    def __init__(self, source: Any, foreign: Foreign) -> None:
        self._source = source
        self._foreign = foreign
        self.plan = self._planned()

    def _planned(self) -> TaskPlan:
        """Return the plan as it is now. Raises BoardError where it cannot be."""
        plan = self._foreign.call("plan", (BoardError,), lambda: self._source.plan)
        problem = plan_problem(plan)
        if problem is not None:
            raise BoardError(self._foreign.said(problem))
        return plan  # type: ignore[no-any-return]  # a plan, as was seen

    def _called(
        self, what: str, allowed: tuple[type[Exception], ...], function: Callable[..., Given], *args: Any
    ) -> Given:
        self.busy = Busy(what, time.perf_counter_ns())
        try:
            return self._foreign.call(what, allowed, function, *args)
        finally:
            self.busy = None

    def said(self, what: str) -> str:
        """Return what is wrong with it, as a message begins."""
        return self._foreign.said(what)


class GuardedBlocks(_Guarded):
    """A clocked task."""

    _source: BlockSource

    def start(self) -> None:
        """Start the clock; the plan may tell more then. Raises BoardError."""
        self._called("start", (BoardError,), self._source.start)
        self.plan = self._planned()

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return what came, held against the plan; a fatal fault in its place where it is something else.

        Raises BoardError.
        """
        found = self._called("read", (BoardError,), self._source.read, timeout_s)
        problem = self._foreign.call("what read gave", (), buffer_problem, found, self.plan)
        if problem is None:
            return found
        return Fault("sdk_error", f"{self.plan.board}: the board gave {problem} ({self._foreign.name})", fatal=True)

    def stop(self) -> str | None:
        """Stop the clock; return what went wrong."""
        return _problem_of(self._foreign, "stop", lambda: self._called("stop", (BoardError,), self._source.stop))


class GuardedRecording(GuardedBlocks):
    """A clocked task that need not begin at the beginning."""

    def skip(self, samples: int) -> None:
        """Leave out what an earlier run has had. Raises BoardError."""
        skip: Callable[[int], None] = self._source.skip  # type: ignore[attr-defined]  # it is Seekable
        self._called("skip", (BoardError,), skip, samples)


class GuardedReadings(_Guarded):
    """A polled task."""

    _source: PolledSource

    def poll(self, slot: int) -> Readout | Fault | End:
        """Return what came. Raises any Exception: this poll's error; BoardError where it is not what the plan says."""
        found = self._called("poll", (Exception,), self._source.poll, slot)
        problem = self._foreign.call("what poll gave", (), readout_problem, found, self.plan)
        if problem is not None:
            raise BoardError(f"{self.plan.board}: the board gave {problem} ({self._foreign.name})")
        return found


def _problem_of(foreign: Foreign, what: str, function: Callable[[], Any]) -> str | None:
    """Call what must never raise; return what went wrong."""
    try:
        foreign.call(what, (BoardError,), function)
    except BoardError as error:
        return str(error)
    return None


def _whole(foreign: Foreign, source: Any, what: str, parts: tuple[str, ...]) -> Any:
    """Return the source. Raises BoardError where it is none."""
    lacking = [part for part in parts if not hasattr(source, part)]
    if lacking:
        gave = "nothing" if source is None else f"a {type(source).__name__} without {', '.join(lacking)}"
        raise BoardError(foreign.said(f"{what} gave {gave}, where a task with {', '.join(parts)} was to come"))
    return source
