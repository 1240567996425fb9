"""The boards, and what the acquisition needs of one.

A board delivers; it knows no record index, no clock fit, no journal. Hardware that calls back puts what it has into a
queue of its own, from which `read` takes.
"""

import enum
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from dtolbus.errors import BoardError
from dtolbus.records import Channel, Codes
from dtolbus_producer.tasks import DeviceConfig, TaskConfig, WrongKeyError

BOARDS = {
    "sim": "dtolbus_producer.boards.sim:SimBoard",
    "playback": "dtolbus_producer.boards.playback:PlaybackBoard",
}
"""Board kinds, and where each is; imported only when it is used."""


class Buffer(NamedTuple):
    """What a clocked task delivered at one time."""

    codes: Codes
    """Shape (channels, samples); the acquisition keeps it: it must not change any more."""
    asked_mono_ns: int
    """Monotonic instant when the producer began to wait for it, ns."""
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

    values: dict[str, float]
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
    dtype: str = "float64"
    block_samples: int = 1
    board: str
    """Model and serial number."""
    can_wait: bool = False
    """The board can be kept waiting, and loses nothing (a recording)."""
    keeps_time: bool = True
    """Buffers come when their samples were taken, so that the clock can be fitted; else the nominal rate holds."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the board adds to the run's metadata."""


class BlockSource(Protocol):
    """A hardware-clocked task. Used by one thread."""

    plan: TaskPlan

    def start(self) -> None:
        """Start the clock. The first sample is taken between the call and its return. Raises BoardError."""

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return the next buffer or fault; None where none came in time. Raises BoardError (then the task is over)."""

    def stop(self) -> None:
        """Stop the clock. Never raises."""


class PolledSource(Protocol):
    """A polled task. Used by one thread."""

    plan: TaskPlan

    def poll(self, slot: int) -> Readout | Fault | End:
        """Return the values now; `slot` counts the polls due since the start. What it raises is one reading's error."""


class Board(Protocol):
    """One piece of hardware, opened by one process."""

    options_type: ClassVar[type[msgspec.Struct]]
    """What `[device.options]` may hold."""

    def __init__(self, device: DeviceConfig) -> None: ...

    @staticmethod
    def check(device: DeviceConfig) -> None:
        """Raise WrongKeyError where the board can never do what is asked. Does not touch the hardware."""

    def open(self) -> None:
        """Take the hardware. Raises BoardError where it is not there or taken."""

    def close(self) -> None:
        """Release the hardware. Never raises; does nothing when it is closed."""

    def blocks(self, task: TaskConfig) -> BlockSource:
        """Set a clocked task up. Raises BoardError."""

    def readings(self, task: TaskConfig) -> PolledSource:
        """Set a polled task up. Raises BoardError."""


def board_class(kind: str) -> type[Board]:
    """Return the class of a board kind. Raises WrongKeyError where there is none."""
    place = BOARDS.get(kind)
    if place is None:
        raise WrongKeyError("board", f"{kind!r} is no board; there are {', '.join(BOARDS)}")
    module, _, name = place.partition(":")
    try:
        return cast(type[Board], getattr(importlib.import_module(module), name))
    except ImportError as error:
        raise BoardError(f"the board {kind!r} cannot be loaded: {error}") from error
