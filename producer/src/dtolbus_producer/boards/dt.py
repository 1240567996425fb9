"""`dtollib`, `dtollib:DT9806(00)`: a Data Translation board through the DataAcq SDK, or dtollib's fake of one.

Only dtollib's driver is used: codes, scaling, clock. Volts, times, the journal and the sinks are dtolbus's own.
"""

import contextlib
import time

import msgspec

from dtolbus.errors import BoardError
from dtolbus.records import Channel
from dtolbus_producer.boards import End, Fault, Readout, TaskPlan, dtdriver
from dtolbus_producer.boards.calibration import readout, voltage_channel
from dtolbus_producer.boards.dtblocks import BufferPlan, DtBlocks
from dtolbus_producer.boards.dtchannels import (
    DEFAULT_RATE_HZ,
    DtOptions,
    buffer_count,
    channel_list,
    check_device,
    check_threshold,
    options_of,
)
from dtolbus_producer.boards.dtdriver import AnalogInput, board_errors, task_spec
from dtolbus_producer.boards.dtprotocol import Driver
from dtolbus_producer.boards.finding import BoardFound
from dtolbus_producer.tasks import DeviceConfig, TaskConfig

_FAILING_S = 5.0
"""A board that no poll has reached for so long is opened anew, s."""


class DtBoard:
    """A board with an A/D subsystem that gives codes; opened by its name, or the first one found."""

    options_type = DtOptions

    def __init__(self, device: DeviceConfig) -> None:
        self._options = options_of(device)
        self._name = device.board_argument
        self._driver: Driver | None = None
        self._hdrvr = 0
        self._sources: list[DtBlocks | DtReadings] = []

    @staticmethod
    def check(device: DeviceConfig) -> None:
        """Raise WrongKeyError where no board could do what is asked."""
        check_device(device)

    @staticmethod
    def find() -> list[BoardFound]:
        """Return the boards that are connected. Raises BoardError, and CannotStartError without dtollib or the SDK."""
        driver = dtdriver.new_driver()
        with board_errors("DataAcq SDK"):
            names = [board.name for board in driver.enum_boards()]
        return [_found(driver, name) for name in names]

    def open(self) -> None:
        """Take the board. Raises BoardError where it is not there, CannotStartError without dtollib or the SDK."""
        driver = dtdriver.new_driver()  # after a loss the one before may hold a handle that is good no more
        with board_errors("DataAcq SDK"):
            names = [board.name for board in driver.enum_boards()]
        if not names or self._name not in ("", *names):
            there = f"there are {', '.join(names)}" if names else "there is none"
            raise BoardError(f"no board {self._name!r}: {there}" if self._name else "no DT-Open Layers board is there")
        board = self._name or names[0]
        with board_errors(board):
            self._hdrvr = driver.initialize(board)
        self._driver, self._board = driver, board

    def close(self) -> None:
        """Stop what runs, and release the board."""
        for source in self._sources:
            source.stop()
        self._sources.clear()
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.suppress(BoardError), board_errors(self._board):
                driver.terminate(self._hdrvr)

    @property
    def takes(self) -> str:
        """What of the hardware the open board has for itself."""
        element = self._options.element
        return f"{self._board}, A/D subsystem {element}" if element else self._board

    def blocks(self, task: TaskConfig) -> DtBlocks:
        """Configure a clocked task; its rate is the one that the driver then reports."""
        subsystem = self._subsystem()
        try:
            source = self._clocked(subsystem, task)
        except BaseException:
            subsystem.release()
            raise
        self._sources.append(source)
        return source

    def readings(self, task: TaskConfig) -> "DtReadings":
        """Configure a polled task."""
        subsystem = self._subsystem()
        try:
            entries = channel_list(task, self._options, subsystem.facts)
            scaling = subsystem.configure(task_spec(entries, self._options, subsystem.facts))
        except BaseException:
            subsystem.release()
            raise
        channels = tuple(voltage_channel(entry.channel, scaling, entry.gain) for entry in entries)
        source = DtReadings(subsystem, channels, task.rate_hz or 1.0)
        self._sources.append(source)
        return source

    def _subsystem(self) -> AnalogInput:
        if self._driver is None:
            raise BoardError("the board is not open")
        return AnalogInput(self._driver, self._hdrvr, self._board, self._options.element)

    def _clocked(self, subsystem: AnalogInput, task: TaskConfig) -> DtBlocks:
        options, facts = self._options, subsystem.facts
        entries = channel_list(task, options, facts)
        check_threshold(options, entries, -facts.full_scale_v, facts.full_scale_v)
        asked_hz = facts.clock_hz(task.rate_hz or DEFAULT_RATE_HZ, len(entries))
        samples = task.samples_in_block(facts.rate_hz(asked_hz, len(entries)))
        scaling = subsystem.configure(task_spec(entries, options, facts, clock_hz=asked_hz, block_samples=samples))
        check_threshold(options, entries, scaling.lowest_v, scaling.highest_v)  # of a unipolar board, half of that
        clock_hz = asked_hz
        if options.clock == "internal":
            with board_errors(subsystem.board):
                clock_hz = subsystem.driver.get_clock_frequency(subsystem.handle)
        rate_hz = facts.rate_hz(clock_hz, len(entries))
        plan = TaskPlan(
            channels=tuple(
                voltage_channel(entry.channel, scaling, entry.gain, offset_ns=facts.offset_ns(place, clock_hz))
                for place, entry in enumerate(entries)
            ),
            rate_hz=rate_hz,
            dtype=scaling.dtype,
            block_samples=samples,
            board=subsystem.board,
            is_triggered=options.is_triggered,
        )
        buffers = BufferPlan(buffer_count(options, samples / rate_hz), samples, options.clock == "internal")
        return DtBlocks(subsystem, plan, buffers)


def _found(driver: Driver, name: str) -> BoardFound:
    """Return what the board's first A/D subsystem can do; of a board that is taken only its name."""
    listed = BoardFound(board=f"dtollib:{name}", model=name)
    try:
        with board_errors(name):
            hdrvr = driver.initialize(name)
    except BoardError:
        return listed
    try:
        subsystem = AnalogInput(driver, hdrvr, name, 0)
        facts = subsystem.facts
        subsystem.release()
    except BoardError:
        return listed
    finally:
        with contextlib.suppress(BoardError), board_errors(name):
            driver.terminate(hdrvr)
    return msgspec.structs.replace(
        listed,
        inputs=facts.inputs,
        ranges_v=tuple(facts.full_scale_v / gain for gain in facts.gains or (1.0,)),
        gains=facts.gains,
        throughput_hz=facts.highest_hz,
    )


class DtReadings:
    """A polled task: one reading of each channel's converter, one after another, in engineering units."""

    def __init__(self, subsystem: AnalogInput, channels: tuple[Channel, ...], rate_hz: float) -> None:
        self.plan = TaskPlan(channels=channels, rate_hz=rate_hz, dtype="float64", board=subsystem.board)
        self._subsystem = subsystem
        self._failing_since_ns: int | None = None

    def poll(self, slot: int) -> Readout | Fault | End:
        """Return each channel's value. Raises BoardError where the driver fails, and the board is still there."""
        try:
            codes = [self._code(channel) for channel in self.plan.channels]
        except BoardError as error:
            now_ns = time.perf_counter_ns()
            self._failing_since_ns = self._failing_since_ns or now_ns
            if now_ns - self._failing_since_ns >= _FAILING_S * 1e9 or not self._subsystem.is_listed():
                return Fault("device_lost", str(error), fatal=True)
            raise
        self._failing_since_ns = None
        return readout(self.plan.channels, codes)

    def stop(self) -> None:
        """Give the subsystem back."""
        self._subsystem.release()

    def _code(self, channel: Channel) -> int:
        with board_errors(self._subsystem.board):
            driver, handle = self._subsystem.driver, self._subsystem.handle
            code = driver.get_single_value(handle, channel.physical or 0, channel.gain)
        bits = channel.resolution_bits or 0
        code &= (1 << bits) - 1
        if channel.encoding == "twos_complement" and code >> (bits - 1):
            code -= 1 << bits
        return code
