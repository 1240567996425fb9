"""All that is used of dtollib: its driver. It is imported when a board is opened, not before."""

import contextlib
import importlib
import platform
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from dtolbus.errors import BoardError, CannotStartError
from dtolbus_producer.boards.calibration import Scaling
from dtolbus_producer.boards.dtchannels import DtOptions, Entry, Facts
from dtolbus_producer.boards.dtprotocol import Driver
from dtolbus_producer.tasks import WrongKeyError

_FULL_SCALE_V = 10.0
"""Where the driver does not tell the ranges."""


def load(module: str) -> ModuleType:
    """Return a module of dtollib. Raises CannotStartError where dtollib is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "dtollib":
            raise
        raise CannotStartError(
            f"the board 'dtollib' needs the package dtollib, and that Python 3.13 or newer (this is "
            f"{platform.python_version()}); install it with: pip install 'dtolbus-producer[dtollib]'"
        ) from error


def new_driver() -> Driver:
    """Return the driver of the DataAcq SDK. Raises CannotStartError where there is none."""
    backend = load("dtollib.backend.dataacq").DataAcqBackend
    try:
        driver: Driver = backend()
    except load("dtollib.errors").DtolError as error:
        raise CannotStartError(
            f"the board 'dtollib' needs Windows and Data Translation's DataAcq SDK: {one_line(error)}"
        ) from error
    return driver


def one_line(error: Exception) -> str:
    """Return what the error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def board_errors(board: str) -> Iterator[None]:
    """Turn the driver's errors into BoardError, which names the board."""
    try:
        yield
    except (load("dtollib.errors").DtolError, OSError) as error:
        raise BoardError(f"{board}: {one_line(error)}") from error


class AnalogInput:
    """An A/D subsystem of an open board, reserved for one task. Raises BoardError throughout."""

    def __init__(self, driver: Driver, hdrvr: int, board: str, element: int) -> None:
        self.driver = driver
        self.board = board
        constants = load("dtollib.capi.constants")
        with board_errors(board):
            self.handle = driver.get_dass(hdrvr, constants.OLSS_AD, element)
        try:
            with board_errors(board):
                self._capabilities = driver.query_capabilities(self.handle)
            self.facts = _facts(self._capabilities)
            if self.facts.gives_floats:
                raise BoardError(f"{board}: a board that gives temperatures instead of codes is not supported")
        except BaseException:
            self.release()
            raise

    def configure(self, spec: Any) -> Scaling:
        """Configure the subsystem as a dtollib TaskSpec says; return how its codes are scaled.

        Raises WrongKeyError where the board does not do it.
        """
        tasks, errors = load("dtollib.tasks"), load("dtollib.errors")
        builder = tasks.TaskBuilder(self.driver)
        try:
            with board_errors(self.board):
                if spec.data_flow == tasks.DataFlow.SINGLE_VALUE:
                    builder.configure_single_value(self.handle, spec, self._capabilities)
                else:
                    builder.configure_continuous(self.handle, spec, self._capabilities)
                    self.driver.commit(self.handle)
                lowest_v, highest_v, bits, is_twos_complement = self.driver.get_scaling(self.handle)
        except BoardError as error:
            if isinstance(error.__cause__, errors.DtolCapabilityError | errors.DtolValidationError):
                raise WrongKeyError("task[0]", str(error)) from error
            raise
        return Scaling(lowest_v, highest_v, bits, "twos_complement" if is_twos_complement else "offset_binary")

    def is_listed(self) -> bool:
        """Return whether the board is still among those connected."""
        with contextlib.suppress(BoardError), board_errors(self.board):
            return any(board.name == self.board for board in self.driver.enum_boards())
        return False

    def release(self) -> None:
        """Give the subsystem back. Raises nothing."""
        with contextlib.suppress(BoardError), board_errors(self.board):
            self.driver.release_dass(self.handle)


def task_spec(
    entries: Sequence[Entry], options: DtOptions, facts: Facts, *, clock_hz: float | None = None, block_samples: int = 1
) -> Any:
    """Return the dtollib TaskSpec: a clocked task, or a polled one where there is no clock."""
    tasks, inputs = load("dtollib.tasks"), load("dtollib.channels.analog_input")
    channels = [
        inputs.AnalogInputVoltage(  # a thermocouple is a small voltage: dtollib's own kind would convert it
            physical_channel=entry.channel.physical,
            name=entry.channel.name,
            channel_type=inputs.ChannelType(options.wiring),
            gain=entry.gain,
            min_val=-facts.full_scale_v,
            max_val=facts.full_scale_v,
        )
        for entry in entries
    ]
    if clock_hz is None:
        return tasks.TaskSpec(name="dtolbus", channels=channels)
    is_external = options.clock == "external"
    timing = tasks.Timing(
        rate_hz=clock_hz * options.external_divider,
        clock_source=tasks.ClockSource(options.clock),
        external_divider=options.external_divider if is_external else None,
    )
    # without wrapping the driver stops when it has no buffer left, and never writes over one that was not read
    buffers = tasks.BufferPlan(samples_per_buffer=block_samples, wrap_mode=tasks.WrapMode.NONE)
    return tasks.TaskSpec(
        name="dtolbus",
        channels=channels,
        data_flow=tasks.DataFlow.CONTINUOUS,
        timing=timing,
        buffers=buffers,
        trigger=_trigger(options),
    )


def _trigger(options: DtOptions) -> Any:
    tasks = load("dtollib.tasks")
    if options.trigger == "software":
        return tasks.SoftwareStart()
    if options.trigger == "external":
        return tasks.ExternalDigitalStart()
    return tasks.AnalogThresholdStart(
        channel=options.threshold_input, level=options.threshold_v, slope=tasks.Edge(options.trigger)
    )


def _facts(capabilities: Any) -> Facts:
    highest = [max(limits) for limits in capabilities.ranges]
    return Facts(
        inputs=capabilities.num_channels,
        gains=tuple(sorted(capabilities.gains)),
        full_scale_v=max(highest, default=_FULL_SCALE_V),
        list_size=capabilities.cgl_depth,
        highest_hz=capabilities.max_throughput_hz,
        is_simultaneous=capabilities.supports_simultaneous_sh,
        gives_floats=capabilities.returns_floats,
        has_thermocouples=capabilities.supports_thermocouples,
    )
