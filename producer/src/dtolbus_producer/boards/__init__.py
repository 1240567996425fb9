"""The boards, and what the acquisition needs of one.

A board delivers; it knows no record index, no clock fit, no journal. Hardware that calls back puts what it has into a
queue of its own, from which `read` takes.
"""

import enum
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.errors import CannotStartError
from dtolbus.records import Channel, Codes
from dtolbus_producer.tasks import DeviceConfig, TaskConfig, WrongKeyError

BOARDS = {
    "sim": "dtolbus_producer.boards.sim:SimBoard",
    "sim-fast": "dtolbus_producer.boards.simfast:FastBoard",
    "playback": "dtolbus_producer.boards.playback:PlaybackBoard",
    "dtollib": "dtolbus_producer.boards.dt:DtBoard",
    "uldaq": "dtolbus_producer.boards.ul:UlBoard",
}
"""Board kinds, and where each is; imported only when it is used."""

ENTRY_POINTS = "dtolbus.boards"
"""The entry point group of other packages' boards: the name of a kind, and its class."""


class Buffer(NamedTuple):
    """What a clocked task delivered at one time."""

    codes: Codes
    """Shape (channels, samples); the acquisition keeps it: it must not change any more."""
    asked_mono_ns: int
    """Monotonic instant when the producer began to wait for it, ns; not after its arrival."""
    arrived_mono_ns: int
    """Monotonic instant of the board's callback, ns: never before the last sample's period is over."""
    sensor_status: Mapping[str, NDArray[np.int64]] = {}  # a NamedTuple's default, never written


class Fault(NamedTuple):
    """Something that went wrong on the board, in its place among the buffers."""

    kind: str
    """`overrun`, `device_lost`, `sdk_error`: an event's kind."""
    message: str
    lost_samples: int = 0
    """Samples of each channel that will never come; the next buffer's first sample follows them."""
    fatal: bool = False
    """The task is over; a board that cannot say how much it lost says this."""


class Readout(NamedTuple):
    """What one poll gave."""

    values: dict[str, float | int | str | None]
    """By channel; NaN where the sensor gave none."""
    sensor_status: Mapping[str, int] = {}  # a NamedTuple's default, never written


class End(enum.Enum):
    """The board has no more to give."""

    END = enum.auto()


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """A task as the board will run it."""

    channels: tuple[Channel, ...]
    rate_hz: float
    """As read back from the board."""
    dtype: str
    """NumPy name of the codes' type: `int16`, `uint16`, `int32`, or `float64` for values."""
    block_samples: int = 1
    board: str
    """Model and serial number."""
    can_wait: bool = False
    """The board can be kept waiting, and loses nothing (a recording)."""
    keeps_time: bool = True
    """Buffers come when their samples were taken, so that the clock can be fitted; else the nominal rate holds."""
    speed: float = 1.0
    """How much faster than `rate_hz` samples come (recordings, simulations); inf: as fast as the journal takes them."""
    is_triggered: bool = False
    """`start` only arms the task: the first sample comes with a trigger, at any time later."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the board adds to the run's metadata."""


class BlockSource(Protocol):
    """A hardware-clocked task. Used by one thread."""

    plan: TaskPlan

    def start(self) -> None:
        """Start the clock. Raises BoardError.

        The first sample is taken between the call and its return, unless the plan says that it waits for a trigger.
        """

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return the next buffer or fault; None where none came in time. Raises BoardError (then the task is over).

        Once the task was stopped, what the board had delivered by then comes, and after it End, without waiting.
        """

    def stop(self) -> None:
        """Stop the clock, however much was not read yet. Never raises; does nothing when it is stopped."""


@runtime_checkable
class Seekable(Protocol):
    """A source that need not begin at the beginning: a recording."""

    def skip(self, samples: int) -> None:
        """Leave out so many samples of each channel, which an earlier run has had; called before `start`."""


class PolledSource(Protocol):
    """A polled task. Used by one thread."""

    plan: TaskPlan

    def poll(self, slot: int) -> Readout | Fault | End:
        """Return the values now; `slot` counts the polls due since the start. What it raises is one reading's error.

        A fault is this poll lost, or, where it is fatal, the end of the task.
        """


class Board(Protocol):
    """One piece of hardware, opened by one process."""

    options_type: ClassVar[type[msgspec.Struct]]
    """What `[device.options]` may hold."""

    def __init__(self, device: DeviceConfig) -> None: ...

    @staticmethod
    def check(device: DeviceConfig) -> None:
        """Raise WrongKeyError where the board can never do what is asked. Does not touch the hardware."""

    def open(self) -> None:
        """Take the hardware. Raises BoardError where it is not there or taken; it is opened again after a loss.

        Raises CannotStartError where waiting for it cannot help: a package or a driver is missing.
        """

    def close(self) -> None:
        """Release the hardware. Never raises; does nothing when it is closed."""

    def blocks(self, task: TaskConfig) -> BlockSource:
        """Set a clocked task up. Raises BoardError, and WrongKeyError where this very board cannot do what is asked."""

    def readings(self, task: TaskConfig) -> PolledSource:
        """Set a polled task up. Raises BoardError, and WrongKeyError where this very board cannot do what is asked."""


def board_class(kind: str) -> type[Board]:
    """Return the class of a board kind, of this package or of another one's entry point.

    Raises:
        WrongKeyError: there is no such board.
        CannotStartError: it is there, and cannot be loaded.
    """
    place, origin = BOARDS.get(kind), "dtolbus-producer"
    if place is None:
        others = entry_points(group=ENTRY_POINTS)
        if kind not in others.names:
            known = ", ".join([*BOARDS, *sorted(others.names)])
            raise WrongKeyError("board", f"{kind!r} is no board; there are {known}")
        place, origin = others[kind].value, _distribution(others[kind])
    try:
        module, _, name = place.partition(":")
        found = getattr(importlib.import_module(module), name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # another package's code: whatever it raises, SystemExit too
        raise CannotStartError(f"the board {kind!r} of {origin} ({place}) cannot be loaded: {error!r}") from error
    lacking = [
        part for part in ("options_type", "check", "open", "close", "blocks", "readings") if not hasattr(found, part)
    ]
    if lacking:
        raise CannotStartError(f"the board {kind!r} of {origin} ({place}) is none: it lacks {', '.join(lacking)}")
    if not (isinstance(found.options_type, type) and issubclass(found.options_type, msgspec.Struct)):
        what = f"its options_type is {found.options_type!r}, and is to be a msgspec.Struct"
        raise CannotStartError(f"the board {kind!r} of {origin} ({place}) is none: {what}")
    board: type[Board] = found
    return board


def origin_of(kind: str) -> str:
    """Return the name of the distribution that a board kind is of."""
    if kind in BOARDS:
        return "dtolbus-producer"
    others = entry_points(group=ENTRY_POINTS)
    return _distribution(others[kind]) if kind in others.names else "an unknown package"


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown package"
