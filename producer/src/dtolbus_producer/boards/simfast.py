"""`sim-fast`: a simulated board as fast as the machine: its codes come from a table worked out beforehand."""

import math
import time

import msgspec
import numpy as np

from dtolbus.records import Codes
from dtolbus_producer.boards import Buffer, End, Fault, PolledSource, TaskPlan
from dtolbus_producer.boards.calibration import check_unit, voltage_channel
from dtolbus_producer.boards.finding import BoardFound
from dtolbus_producer.boards.simchannels import SCALING
from dtolbus_producer.boards.simsignal import FULL_SCALE_V, simulated_codes
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig, WrongKeyError, check_rate

MODEL = "fast board (simulated)"
INPUTS = 256
THROUGHPUT_HZ = 400e6
_TABLE_BYTES = 16 << 20
_MOST_BLOCKS = 64


class FastOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a fast simulated board, `[device.options]`."""

    seed: int = 0


class FastBoard:
    """Simulated inputs, 16 bit offset binary, at any rate: to see what a machine can take.

    A channel's codes repeat after a whole number of blocks, at most 64 and about 16 MiB of all channels.
    """

    options_type = FastOptions

    def __init__(self, device: DeviceConfig) -> None:
        self._seed = msgspec.convert(device.options, FastOptions, strict=True).seed

    @staticmethod
    def check(device: DeviceConfig) -> None:
        """Raise WrongKeyError where it can never do what is asked."""
        msgspec.convert(device.options, FastOptions, strict=True)
        if device.board != device.board_kind:
            raise WrongKeyError("board", f"{device.board!r}: nothing follows 'sim-fast'")
        for place, task in enumerate(device.tasks):
            _check_task(f"task[{place}]", task)

    @staticmethod
    def find() -> list[BoardFound]:
        """Return the board: it is always there."""
        return [
            BoardFound(
                board="sim-fast",
                model=MODEL,
                inputs=INPUTS,
                resolution_bits=16,
                ranges_v=(FULL_SCALE_V,),
                gains=(1.0,),
                throughput_hz=THROUGHPUT_HZ,
            )
        ]

    def open(self) -> None:
        """Do nothing: it is always there."""

    def close(self) -> None:
        """Do nothing."""

    def blocks(self, task: TaskConfig) -> "FastBlocks":
        """Set a clocked task up; it works the table out."""
        return FastBlocks(task, self._seed)

    def readings(self, task: TaskConfig) -> PolledSource:
        """Refuse: it has clocked tasks only."""
        raise WrongKeyError("task.kind", f"the task {task.name!r}: sim-fast has clocked tasks only; use sim")


class FastBlocks:
    """A clocked task whose buffers are views of a table."""

    def __init__(self, task: TaskConfig, seed: int) -> None:
        rate_hz = task.rate_hz or 1000.0
        self.plan = TaskPlan(
            channels=tuple(voltage_channel(channel, SCALING, 1.0) for channel in task.channel_configs),
            rate_hz=rate_hz,
            dtype="uint16",
            block_samples=task.samples_in_block(rate_hz),
            board=MODEL,
        )
        self._table = _table(self.plan, seed)
        self._started_ns = 0
        self._stopped_ns: int | None = None
        self._blocks = 0

    def start(self) -> None:
        """Start the clock."""
        self._started_ns = time.perf_counter_ns()

    def stop(self) -> None:
        """Stop the clock: what is full by then, and what was begun, still comes."""
        if self._stopped_ns is None:
            self._stopped_ns = time.perf_counter_ns() if self._started_ns else 0

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return the next buffer once it is full."""
        if self._stopped_ns is not None:
            return self._rest(self._stopped_ns)
        asked_ns = time.perf_counter_ns()
        due_ns = self._due_ns(self._blocks + 1)
        deadline_ns = asked_ns + round(timeout_s * 1e9)
        while (now_ns := time.perf_counter_ns()) < due_ns:
            if now_ns >= deadline_ns:
                return None
            time.sleep((min(due_ns, deadline_ns) - now_ns) / 1e9)
        return self._buffer(self.plan.block_samples, asked_ns, now_ns)

    def _rest(self, stopped_ns: int) -> Buffer | End:
        samples_over = math.floor((stopped_ns - self._started_ns) * self.plan.rate_hz / 1e9)
        samples = min(samples_over - self._blocks * self.plan.block_samples, self.plan.block_samples)
        if not self._started_ns or samples <= 0:
            return End.END
        now_ns = time.perf_counter_ns()
        return self._buffer(samples, now_ns, now_ns)

    def _buffer(self, samples: int, asked_ns: int, arrived_ns: int) -> Buffer:
        codes = self._table[self._blocks % len(self._table)]
        self._blocks += 1
        return Buffer(codes[:, :samples], asked_ns, arrived_ns)

    def _due_ns(self, blocks: int) -> int:
        return self._started_ns + math.ceil(blocks * self.plan.block_samples * 1e9 / self.plan.rate_hz)


def _table(plan: TaskPlan, seed: int) -> list[Codes]:
    """Return the buffers that come round and round, shape (channels, block_samples) each, not to be written."""
    block_bytes = 2 * len(plan.channels) * plan.block_samples
    count = min(max(1, _TABLE_BYTES // block_bytes), _MOST_BLOCKS)
    whole = [
        simulated_codes(seed, channel.physical or 0, 0, count * plan.block_samples, rate_hz=plan.rate_hz)
        for channel in plan.channels
    ]
    blocks: list[Codes] = []
    for start in range(0, count * plan.block_samples, plan.block_samples):
        block = np.stack([codes[start : start + plan.block_samples] for codes in whole])
        block.flags.writeable = False
        blocks.append(block)
    return blocks


def _check_task(key: str, task: TaskConfig) -> None:
    if task.kind != "blocks":
        raise WrongKeyError(f"{key}.kind", f"{task.kind!r}: sim-fast has clocked tasks only; use sim")
    check_rate(f"{key}.rate_hz", task.rate_hz)
    if not task.channels:
        raise WrongKeyError(f"{key}.channels", f"the task {task.name!r} has no channels: name at least one")
    for place, channel in enumerate(task.channel_configs):
        _check_channel(f"{key}.channels[{place}]", channel)
    total_hz = (task.rate_hz or 1000.0) * len(task.channels)
    if total_hz > THROUGHPUT_HZ:
        most_hz = THROUGHPUT_HZ / len(task.channels)
        raise WrongKeyError(
            f"{key}.rate_hz", f"{task.rate_hz:g} Hz on {len(task.channels)} channels: at most {most_hz:g} Hz"
        )


def _check_channel(key: str, channel: ChannelConfig) -> None:
    check_unit(key, channel)
    if not 0 <= (channel.physical or 0) < INPUTS:
        raise WrongKeyError(f"{key}.physical", f"{channel.physical}: sim-fast has the inputs 0 to {INPUTS - 1}")
    if channel.gain not in (None, 1.0):
        raise WrongKeyError(f"{key}.gain", f"{channel.gain:g}: sim-fast has the gain 1 only")
    if channel.range is not None and not 0 < channel.range <= FULL_SCALE_V:
        raise WrongKeyError(f"{key}.range", f"{channel.range:g} V: sim-fast has the range {FULL_SCALE_V:g} V")
