"""All that is used of the package uldaq and its library. It is imported when a board is opened, not before."""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus.errors import BoardError, CannotStartError
from dtolbus_producer.boards import Fault
from dtolbus_producer.boards.ulchannels import Entry, Facts, UlOptions, range_named
from dtolbus_producer.tasks import WrongKeyError

_OVERRUNS = ("OVERRUN", "ADC_OVERRUN", "PACER_OVERRUN", "NET_BUFFER_OVERRUN")
_LOSSES = (
    "DEV_NOT_FOUND",
    "DEV_NOT_CONNECTED",
    "DEAD_DEV",
    "NO_CONNECTION_ESTABLISHED",
    "NET_IFC_UNAVAILABLE",
    "NET_CONNECTION_FAILED",
    "NET_TIMEOUT",
)
_REFUSALS = ("BAD_AI_CHAN_QUEUE", "BAD_AI_GAIN_QUEUE", "BAD_AI_MODE_QUEUE", "BAD_QUEUE_SIZE", "BAD_DEV_TYPE")
"""How the library says that a board cannot scan these channels at these ranges."""


def load() -> Any:
    """Return the package uldaq. Raises CannotStartError where it, or the library below it, is not installed."""
    try:
        return importlib.import_module("uldaq")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "uldaq":
            raise
        raise CannotStartError(
            "the board 'uldaq' needs the package uldaq, on Linux or macOS; install it with: "
            "pip install 'dtolbus-producer[uldaq]'"
        ) from error
    except (OSError, AttributeError) as error:  # it loads the library, and asks it for every function, when imported
        raise CannotStartError(
            f"the board 'uldaq' needs the library libuldaq, 1.2 or newer, of Measurement Computing: {one_line(error)}"
        ) from error


def one_line(error: Exception) -> str:
    """Return what the error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def board_errors(board: str) -> Iterator[None]:
    """Turn the library's errors into BoardError, which names the board."""
    try:
        yield
    except load().ULException as error:
        said = " ".join(error.error_message.split())
        raise BoardError(f"{board}: {said} ({error.error_code.name})") from error
    except ValueError as error:  # a number of a newer library, which the package has no name for
        raise BoardError(f"{board}: {one_line(error)}") from error


def code_of(error: BoardError) -> str:
    """Return the name of the library's error that it came from; empty where it came from none."""
    name: str = getattr(getattr(error.__cause__, "error_code", None), "name", "")
    return name


def fault_of(error: BoardError) -> Fault:
    """Return what an error of a running task is. The library ends a scan with any error."""
    code = code_of(error)
    kind = "overrun" if code in _OVERRUNS else "device_lost" if code in _LOSSES else "sdk_error"
    return Fault(kind, str(error), fatal=True)


def inventory() -> list[Any]:
    """Return the descriptors of the boards that are connected. Raises BoardError, CannotStartError."""
    uldaq = load()
    with board_errors("libuldaq"):
        return list(uldaq.get_daq_device_inventory(uldaq.InterfaceType.ANY))


def label_of(descriptor: Any) -> str:
    """Return model and serial number."""
    return f"{descriptor.product_name} {descriptor.unique_id}"


class AnalogInput:
    """The analogue inputs of a board; nothing is connected yet. Raises BoardError throughout."""

    def __init__(self, descriptor: Any) -> None:
        self.board = label_of(descriptor)
        self._id = descriptor.unique_id
        self._uldaq = load()
        with board_errors(self.board):
            self._device = self._uldaq.DaqDevice(descriptor)
        self._inputs = self._device.get_ai_device()
        if self._inputs is None:
            self.release()
            raise BoardError(f"{self.board}: it has no analogue inputs")

    def connect(self) -> None:
        """Take the board."""
        with board_errors(self.board):
            self._device.connect()

    def release(self) -> None:
        """Give the board back. Raises nothing."""
        for step in (self._device.disconnect, self._device.release):
            with contextlib.suppress(BoardError), board_errors(self.board):
                step()

    def is_listed(self) -> bool:
        """Return whether the board is still among those connected."""
        with contextlib.suppress(BoardError):
            return any(descriptor.unique_id == self._id for descriptor in inventory())
        return False

    def facts(self, options: UlOptions) -> Facts:
        """Return what the library says of the inputs, connected as the options say."""
        info, mode = self._inputs.get_info(), self._mode(options)
        with board_errors(self.board):
            found = [range_named(limits.name, int(limits)) for limits in info.get_ranges(mode)]
            return Facts(
                inputs=info.get_num_chans_by_mode(mode),
                bits=info.get_resolution(),
                ranges=tuple(limits for limits in found if limits is not None),
                lowest_hz=info.get_min_scan_rate(),
                highest_hz=info.get_max_scan_rate(),
                throughput_hz=info.get_max_throughput(),
                has_clock=info.has_pacer(),
                has_iepe=info.supports_iepe(),
            )

    def value(self, entry: Entry, options: UlOptions) -> float:
        """Convert once; return volts, calibrated by the library."""
        return self._convert(entry, options, self._uldaq.AInFlag.DEFAULT)

    def gives_codes(self, entry: Entry, options: UlOptions) -> bool:
        """Return whether its codes are exact: it gives them, and the library has no calibration of its own for them."""
        flags = self._uldaq.AInFlag
        return not self._takes(entry, options, flags.NOCALIBRATEDATA) and self._takes(entry, options, flags.NOSCALEDATA)

    def switch(self, entries: Sequence[Entry], options: UlOptions, *, has_iepe: bool) -> None:
        """Set each channel's IEPE current and coupling. Raises WrongKeyError where the board cannot couple to AC."""
        iepe, coupling, config = self._uldaq.IepeMode, self._uldaq.CouplingMode, self._inputs.get_config()
        for entry in entries:
            is_ac = entry.channel.name in options.ac_coupled
            try:
                with board_errors(self.board):
                    if has_iepe:
                        mode = iepe.ENABLED if entry.channel.name in options.iepe else iepe.DISABLED
                        config.set_chan_iepe_mode(entry.physical, mode)
                    config.set_chan_coupling_mode(entry.physical, coupling.AC if is_ac else coupling.DC)
            except BoardError as error:
                if code_of(error) != "CONFIG_NOT_SUPPORTED":
                    raise
                if is_ac:
                    why = f"{entry.channel.name!r}: the board does not switch its coupling"
                    raise WrongKeyError("options.ac_coupled", why) from error

    def scan(self, entries: Sequence[Entry], options: UlOptions, samples: int, *, as_codes: bool) -> "Scan":
        """Prepare a scan of the channels into a ring of so many samples each.

        Raises WrongKeyError where the board does not scan such channels together.
        """
        ordered = sorted(entries, key=lambda entry: entry.physical)
        low, high, limits = ordered[0].physical, ordered[-1].physical, ordered[0].range
        mode = self._mode(options)
        if high - low >= len(ordered) or any(entry.range != limits for entry in ordered):
            self._load_queue(ordered, mode)
        flags = self._uldaq.AInScanFlag.NOSCALEDATA if as_codes else self._uldaq.AInScanFlag.DEFAULT
        ring = self._uldaq.create_float_buffer(len(ordered), samples)
        rows = [ordered.index(entry) for entry in entries]
        return Scan(self.board, self._inputs, (low, high, mode, limits.number, samples), flags, ring, rows)

    def _load_queue(self, ordered: Sequence[Entry], mode: Any) -> None:
        queue = []
        for entry in ordered:
            element = self._uldaq.AiQueueElement()
            element.channel, element.input_mode, element.range = entry.physical, mode, entry.range.number
            queue.append(element)
        try:
            with board_errors(self.board):
                self._inputs.a_in_load_queue(queue)
        except BoardError as error:
            if code_of(error) not in _REFUSALS:
                raise
            why = f"{error}: it scans neighbouring inputs at one range only, or fewer of them"
            raise WrongKeyError("task[0].channels", why) from error

    def _takes(self, entry: Entry, options: UlOptions, flag: Any) -> bool:
        try:
            self._convert(entry, options, flag)
        except BoardError as error:
            if code_of(error) != "BAD_FLAG":
                raise
            return False
        return True

    def _convert(self, entry: Entry, options: UlOptions, flag: Any) -> float:
        with board_errors(self.board):
            found: float = self._inputs.a_in(entry.physical, self._mode(options), entry.range.number, flag)
        return found

    def _mode(self, options: UlOptions) -> Any:
        modes = self._uldaq.AiInputMode
        return modes.DIFFERENTIAL if options.wiring == "differential" else modes.SINGLE_ENDED


class Scan:
    """A continuous scan, which the library writes round a ring. Used by one thread at a time. Raises BoardError."""

    def __init__(
        self, board: str, inputs: Any, what: tuple[int, int, Any, int, int], flags: Any, ring: Any, rows: list[int]
    ) -> None:
        self.samples = what[-1]
        """Of each channel in the ring."""
        self._board, self._inputs, self._what, self._flags = board, inputs, what, flags
        self._ring = ring
        self._values: NDArray[np.float64] = np.ctypeslib.as_array(ring).reshape(self.samples, len(rows))
        self._rows = rows
        self._uldaq = load()

    def start(self, rate_hz: float) -> float:
        """Start the clock; return its true rate."""
        continuous = self._uldaq.ScanOption.CONTINUOUS
        with board_errors(self._board):
            found: float = self._inputs.a_in_scan(*self._what, rate_hz, continuous, self._flags, self._ring)
        return found

    def over(self) -> tuple[int, bool]:
        """Return how many samples of each channel are there since the start, and whether the scan is running."""
        with board_errors(self._board):
            status, transferred = self._inputs.get_scan_status()
        # the total alone: it never wraps, and the last scan may be half there
        return transferred.current_total_count // len(self._rows), status == self._uldaq.ScanStatus.RUNNING

    def copy(self, first: int, count: int) -> NDArray[np.float64]:
        """Return a copy of samples that do not pass the ring's end, shape (channels, count)."""
        at = first % self.samples
        return np.ascontiguousarray(self._values[at : at + count, self._rows].T)

    def stop(self) -> None:
        """Stop the clock."""
        with board_errors(self._board):
            self._inputs.scan_stop()
