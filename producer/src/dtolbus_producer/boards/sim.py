"""`sim`: a simulated DT9806, with a clock of its own that is a little off, late callbacks, and faults on request."""

import math
import time

import numpy as np

from dtolbus.errors import BoardError
from dtolbus.records import SensorStatus
from dtolbus_producer.boards import Buffer, End, Fault, Readout, TaskPlan
from dtolbus_producer.boards.calibration import readout
from dtolbus_producer.boards.finding import BoardFound
from dtolbus_producer.boards.simchannels import (
    GAINS,
    INPUTS,
    is_linearised,
    linearised_channel,
    read_back_rate_hz,
    volts_channel,
)
from dtolbus_producer.boards.simoptions import OpenThermocouple, SimOptions, check_task, options_of
from dtolbus_producer.boards.simsensors import sensor_codes
from dtolbus_producer.boards.simsignal import FULL_SCALE_V, simulated_lateness_ns, simulated_temperatures
from dtolbus_producer.tasks import DeviceConfig, TaskConfig, WrongKeyError

__all__ = ["MODEL", "OpenThermocouple", "SimBlocks", "SimBoard", "SimOptions", "SimReadings"]

MODEL = "DT9806 (simulated)"


class SimBoard:
    """A DT9806: 16 analogue inputs, 16 bit offset binary, ±10 V at gains 1, 10, 100, 500; one A/D subsystem."""

    options_type = SimOptions

    def __init__(self, device: DeviceConfig) -> None:
        self._options = options_of(device)
        self._away_until_ns = 0
        self._may_be_lost = self._options.lose_device_at_s is not None

    @staticmethod
    def check(device: DeviceConfig) -> None:
        """Raise WrongKeyError where a DT9806 can never do what is asked."""
        options = options_of(device)
        if device.board != device.board_kind:
            raise WrongKeyError("board", f"{device.board!r}: nothing follows 'sim'; only a recording has a path")
        kinds = {task.kind for task in device.tasks}
        if len(device.tasks) > 1:
            what = "both clocked and polled" if len(kinds) > 1 else "used by two tasks"
            raise WrongKeyError(
                "task",
                f"a DT9806 has one A/D subsystem, which cannot be {what} at a time: give each of "
                f"{', '.join(repr(task.name) for task in device.tasks)} a device of its own",
            )
        for place, task in enumerate(device.tasks):
            check_task(f"task[{place}]", task, options)

    @staticmethod
    def find() -> list[BoardFound]:
        """Return the simulated board: it is always there."""
        return [
            BoardFound(
                board="sim",
                model=MODEL,
                inputs=INPUTS,
                resolution_bits=16,
                ranges_v=tuple(FULL_SCALE_V / gain for gain in GAINS),
                gains=GAINS,
                throughput_hz=SimOptions().throughput_hz,
            )
        ]

    def open(self) -> None:
        """Take the board. Raises BoardError while it is away."""
        if time.perf_counter_ns() < self._away_until_ns:
            raise BoardError(f"{MODEL}: the board is not there")

    def close(self) -> None:
        """Release the board."""

    def blocks(self, task: TaskConfig) -> "SimBlocks":
        """Set a clocked task up."""
        return SimBlocks(self, task, self._options)

    def readings(self, task: TaskConfig) -> "SimReadings":
        """Set a polled task up."""
        return SimReadings(self, task, self._options)

    def is_lost(self, since_start_s: float) -> Fault | None:
        """Return the fault when the moment to go away has come; it comes once."""
        at_s = self._options.lose_device_at_s
        if not self._may_be_lost or at_s is None or since_start_s < at_s:
            return None
        self._may_be_lost = False
        self._away_until_ns = time.perf_counter_ns() + round(self._options.lost_for_s * 1e9)
        return Fault("device_lost", f"{MODEL}: the board went away", fatal=True)


class SimBlocks:
    """A clocked task of the simulated board."""

    def __init__(self, board: SimBoard, task: TaskConfig, options: SimOptions) -> None:
        rate_hz = read_back_rate_hz(task)
        self.plan = TaskPlan(
            channels=tuple(volts_channel(channel) for channel in task.channel_configs),
            rate_hz=rate_hz,
            dtype="uint16",
            block_samples=task.samples_in_block(rate_hz),
            board=MODEL,
            can_wait=options.speed == "max",
            keeps_time=options.speed == 1,
            speed=math.inf if options.speed == "max" else options.speed,
        )
        self.true_period_ns = 1e9 / (rate_hz * (1 + options.drift_ppm * 1e-6)) / self.plan.speed
        self.started_mono_ns = 0
        """Monotonic instant of sample 0, ns; known once it is started."""
        self._board = board
        self._options = options
        self._next = 0
        self._buffers = 0
        self._due_ns = 0
        self._is_stopped = False
        self._stopped_ns = 0
        self._ready: np.ndarray[tuple[int, ...], np.dtype[np.uint16]] | None = None
        self._overrun_at = None if options.overrun_at_s is None else round(options.overrun_at_s * rate_hz)

    def start(self) -> None:
        """Start the clock."""
        self.started_mono_ns = time.perf_counter_ns()

    def stop(self) -> None:
        """Stop the clock: what of the next buffer is full by then still comes, if it is no journal that paces it."""
        if not self._is_stopped and self.started_mono_ns and not self.plan.can_wait:
            self._stopped_ns = time.perf_counter_ns()
        self._is_stopped = True

    def read(self, timeout_s: float) -> Buffer | Fault | End | None:
        """Return the next buffer once its callback is due."""
        if self._is_stopped:
            return self._rest()
        asked_ns = time.perf_counter_ns()
        if self._ready is None:
            fault = self._fault()
            if fault is not None:
                return fault
            self._prepare()
        deadline_ns = asked_ns + round(timeout_s * 1e9)
        while (now_ns := time.perf_counter_ns()) < self._due_ns:
            if now_ns >= deadline_ns:
                return None
            time.sleep((min(self._due_ns, deadline_ns) - now_ns) / 1e9)
        codes, self._ready = self._ready, None
        assert codes is not None  # noqa: S101  # narrows the type, nothing rests on it
        self._next += self.plan.block_samples
        self._buffers += 1
        return Buffer(codes, asked_ns, now_ns)

    def _rest(self) -> Buffer | End:
        """Return what was begun when the clock stopped, once."""
        if not self._stopped_ns:
            return End.END
        samples = math.floor((self._stopped_ns - self.started_mono_ns) / self.true_period_ns) - self._next
        codes, self._ready, self._stopped_ns = self._ready, None, 0
        if codes is None or samples <= 0:
            return End.END
        now_ns = time.perf_counter_ns()
        return Buffer(codes[:, :samples], now_ns, now_ns)

    def _prepare(self) -> None:
        """Fill the next buffer, and set when its callback comes: when it is full, or later, in order."""
        end = self._next + self.plan.block_samples
        full_ns = self.started_mono_ns + math.ceil(end * self.true_period_ns)
        late_ns = simulated_lateness_ns(self._options.seed, self._buffers, self._options.lateness_ms)
        self._due_ns = max(self._due_ns, full_ns + (0 if self.plan.can_wait else late_ns))
        self._ready = sensor_codes(
            self._options.seed,
            self.plan.channels,
            self._next,
            self.plan.block_samples,
            rate_hz=self.plan.rate_hz,
            is_open=self._options.open_at(self.plan.rate_hz),
        )

    def _fault(self) -> Fault | None:
        lost = self._board.is_lost(self._next / self.plan.rate_hz)
        if lost is not None:
            return lost
        if self._overrun_at is not None and self._next >= self._overrun_at:
            self._overrun_at = None
            self._next += self.plan.block_samples
            return Fault("overrun", f"{MODEL}: the board overran its buffers", self.plan.block_samples)
        return None


class SimReadings:
    """A polled task of the simulated board; thermocouples without a named cold junction it gives in °C itself."""

    def __init__(self, board: SimBoard, task: TaskConfig, options: SimOptions) -> None:
        self.plan = TaskPlan(
            channels=tuple(
                linearised_channel(channel) if is_linearised(channel) else volts_channel(channel)
                for channel in task.channel_configs
            ),
            rate_hz=task.rate_hz or 1.0,
            dtype="float64",
            board=MODEL,
        )
        self._board = board
        self._seed = options.seed
        self._open = options.open_at(self.plan.rate_hz)
        self._inputs = tuple(channel for channel in self.plan.channels if channel.encoding != "float")

    def poll(self, slot: int) -> Readout | Fault | End:
        """Return each channel's value in this slot."""
        rate_hz = self.plan.rate_hz
        fault = self._board.is_lost(slot / rate_hz)
        if fault is not None:
            return fault
        found, status = self._converted(slot)
        for channel in self.plan.channels:
            if channel.encoding == "float":
                celsius = simulated_temperatures(self._seed, channel.physical or 0, slot, 1, rate_hz=rate_hz)
                found[channel.name] = float(celsius[0])
                if channel.name in self._open and self._open[channel.name](np.array([slot]))[0]:
                    found[channel.name], status[channel.name] = math.nan, SensorStatus.SENSOR_OPEN
        return Readout({name: found[name] for name in (channel.name for channel in self.plan.channels)}, status)

    def _converted(self, slot: int) -> tuple[dict[str, float | int | str | None], dict[str, int]]:
        """Return values and status of the channels that are read as codes."""
        if not self._inputs:
            return {}, {}
        codes = sensor_codes(self._seed, self._inputs, slot, 1, rate_hz=self.plan.rate_hz, is_open=self._open)
        values, status = readout(self._inputs, codes[:, 0].tolist())
        return dict(values), dict(status)
