"""`playback:PATH`: a recording (`.npz`, `.dt-raw`) played as if a board delivered it; codes unchanged."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from dtolbus.errors import BoardError, RawFormatError
from dtolbus_producer.boards import Buffer, End, Fault, PolledSource, TaskPlan
from dtolbus_producer.boards.recording import Piece, Recording, open_recording
from dtolbus_producer.conversions import conversion_key
from dtolbus_producer.tasks import (
    ChannelConfig,
    DeviceConfig,
    TaskConfig,
    WrongKeyError,
    check_rate,
    check_speed,
)


class PlaybackOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a recording that is played, `[device.options]`."""

    speed: float | Literal["max"] = 1.0
    """1 = at its rate, N = N times as fast, `max` = as fast as the journal takes it."""
    loop: bool = False
    """Begin again at the end."""


class PlaybackBoard:
    """A recording in the place of a board, `playback:PATH`: a .npz or .dt-raw file, played by one block task."""

    options_type = PlaybackOptions

    def __init__(self, device: DeviceConfig) -> None:
        self._options = _options(device)
        self._path = Path(device.board_argument)

    @staticmethod
    def check(device: DeviceConfig) -> None:
        """Raise WrongKeyError where there is no such recording, or it cannot be played as asked."""
        _options(device)
        if not device.board_argument:
            raise WrongKeyError("board", "'playback' needs the recording: playback:PATH")
        recording = open_recording(Path(device.board_argument))
        if len(device.tasks) != 1 or device.tasks[0].kind != "blocks":
            raise WrongKeyError("task", "a recording is played by one task, of kind 'blocks'")
        task = device.tasks[0]
        check_rate("task[0].rate_hz", task.rate_hz)
        if task.rate_hz is not None and task.rate_hz != recording.rate_hz:
            raise WrongKeyError(
                "task[0].rate_hz",
                f"{task.rate_hz:g}: the recording's rate is {recording.rate_hz:g} Hz; leave the key out, and use "
                f"options.speed to play it faster",
            )
        _rows(recording, task)

    def open(self) -> None:
        """Do nothing: the file is opened by its task."""

    def close(self) -> None:
        """Do nothing."""

    def blocks(self, task: TaskConfig) -> "PlaybackBlocks":
        """Open the recording. Raises BoardError where it is gone."""
        try:
            recording = open_recording(self._path)
            return PlaybackBlocks(recording, _rows(recording, task), task, self._options)
        except WrongKeyError as error:
            raise BoardError(str(error)) from error

    def readings(self, task: TaskConfig) -> PolledSource:
        """Refuse: a recording cannot be polled."""
        raise BoardError(f"{self._path}: a recording cannot be polled (task {task.name!r})")


class PlaybackBlocks:
    """The recording as a clocked task; it waits for whoever reads it, so that nothing is dropped."""

    def __init__(self, recording: Recording, rows: list[int], task: TaskConfig, options: PlaybackOptions) -> None:
        self.plan = TaskPlan(
            channels=tuple(recording.channels[row] for row in rows),
            rate_hz=recording.rate_hz,
            dtype=recording.dtype,
            block_samples=task.samples_in_block(recording.rate_hz),
            board=f"playback of {recording.path.name}",
            can_wait=True,
            keeps_time=False,
            speed=math.inf if options.speed == "max" else options.speed,
            meta=recording.meta,
        )
        self._period_ns = 1e9 / recording.rate_hz / self.plan.speed
        self._pieces = _blocks_of(recording, rows, self.plan.block_samples, options.loop)
        self._ready: Piece | None = None
        self._delivered = 0
        self._started_ns = 0

    def start(self) -> None:
        """Start the clock."""
        self._started_ns = time.perf_counter_ns()

    def skip(self, samples: int) -> None:
        """Leave out so many samples, which an earlier run has had."""
        self._pieces = _without(self._pieces, samples)

    def stop(self) -> None:
        """Let go of the file."""
        self._ready = None
        self._pieces.close()  # type: ignore[attr-defined]  # a generator

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return the next samples when their time has come. Raises BoardError where the file cannot be read."""
        asked_ns = time.perf_counter_ns()
        try:
            piece = self._ready if self._ready is not None else next(self._pieces, None)
        except (RawFormatError, OSError) as error:
            raise BoardError(f"{self.plan.board}: {error}") from error
        if piece is None:
            return End.END
        if isinstance(piece, Fault):
            self._delivered += piece.lost_samples
            return piece
        self._ready = piece
        due_ns = self._started_ns + math.ceil((self._delivered + piece.shape[1]) * self._period_ns)
        deadline_ns = asked_ns + round(timeout_s * 1e9)
        while (now_ns := time.perf_counter_ns()) < due_ns:
            if now_ns >= deadline_ns:
                return None
            time.sleep((min(due_ns, deadline_ns) - now_ns) / 1e9)
        self._ready = None
        self._delivered += piece.shape[1]
        return Buffer(piece, asked_ns, now_ns)


def _blocks_of(recording: Recording, rows: list[int], size: int, loop: bool) -> Iterator[Piece]:
    """Yield the recording in blocks of `size` samples; shorter ones only before a fault and at the end."""
    rest = np.empty((len(rows), 0), dtype=recording.dtype)
    while True:
        is_empty = True
        for piece in recording.pieces():
            if isinstance(piece, Fault):
                if rest.shape[1]:
                    yield rest
                rest = rest[:, :0]
                yield piece
                continue
            is_empty = is_empty and not piece.shape[1]
            rest = np.concatenate([rest, piece[rows]], axis=1) if rest.shape[1] else piece[rows]
            whole = rest.shape[1] // size * size
            for first in range(0, whole, size):
                yield np.ascontiguousarray(rest[:, first : first + size])
            rest = rest[:, whole:]
        if not loop or is_empty:
            break
    if rest.shape[1]:
        yield np.ascontiguousarray(rest)


def _without(pieces: Iterator[Piece | Fault], samples: int) -> Iterator[Piece | Fault]:
    """Yield the pieces without the first `samples` samples."""
    for piece in pieces:
        is_fault = isinstance(piece, Fault)
        count = piece.lost_samples if isinstance(piece, Fault) else piece.shape[1]
        left_out = min(samples, count)
        samples -= left_out
        if left_out < count or (is_fault and not left_out and not samples):
            yield piece._replace(lost_samples=count - left_out) if isinstance(piece, Fault) else piece[:, left_out:]


def _rows(recording: Recording, task: TaskConfig) -> list[int]:
    """Return which of the recording's channels the task takes, by name."""
    names = [channel.name for channel in recording.channels]
    wanted = [channel.name for channel in task.channel_configs] or names
    for place, channel in enumerate(task.channel_configs):
        _check_channel(f"task[0].channels[{place}]", channel, names)
    rows = [names.index(name) for name in wanted]
    for place, row in enumerate(rows):
        junction = recording.channels[row].cold_junction
        if junction is not None and junction not in wanted:
            why = f"{wanted[place]!r} needs its cold junction {junction!r}: add that channel"
            raise WrongKeyError(f"task[0].channels[{place}]", why)
    return rows


def _check_channel(key: str, channel: ChannelConfig, names: list[str]) -> None:
    if channel.name not in names:
        raise WrongKeyError(key, f"{channel.name!r} is not in the recording; it has {', '.join(names)}")
    conversion = conversion_key(channel)
    if conversion is not None:
        why = "the recording says itself what it measured: leave it out, and correct it later with dtolbus recalibrate"
        raise WrongKeyError(f"{key}.{conversion}", why)


def _options(device: DeviceConfig) -> PlaybackOptions:
    options = msgspec.convert(device.options, PlaybackOptions, strict=True)
    check_speed("options.speed", options.speed)
    return options
