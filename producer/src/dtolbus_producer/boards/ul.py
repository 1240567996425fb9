"""`uldaq`, `uldaq:DT9837A`, `uldaq:SERIAL`: a board of Measurement Computing's libuldaq (Linux, macOS).

What is journaled are codes where they are exact (DT9837), else the volts that the library has calibrated.
"""

import time
from typing import Any

from dtolbus.errors import BoardError
from dtolbus_producer.boards import End, Fault, Readout, TaskPlan
from dtolbus_producer.boards.calibration import Scaling, readout
from dtolbus_producer.boards.finding import BoardFound
from dtolbus_producer.boards.ulblocks import UlBlocks
from dtolbus_producer.boards.ulchannels import (
    DEFAULT_RATE_HZ,
    Entry,
    UlOptions,
    channel_list,
    channel_of,
    check_device,
    options_of,
    ring_samples,
)
from dtolbus_producer.boards.uldriver import AnalogInput, fault_of, inventory, label_of
from dtolbus_producer.tasks import DeviceConfig, TaskConfig

_FAILING_S = 5.0
"""A board that no poll has reached for so long is opened anew, s."""


class UlBoard:
    """A board of libuldaq, such as a DT9837; opened by its model or serial number, or the first one found."""

    options_type = UlOptions

    def __init__(self, device: DeviceConfig) -> None:
        self._options = options_of(device)
        self._name = device.board_argument
        self._inputs: AnalogInput | None = None
        self._sources: list[UlBlocks] = []

    @staticmethod
    def check(device: DeviceConfig) -> None:
        """Raise WrongKeyError where no board could do what is asked."""
        check_device(device)

    @staticmethod
    def find() -> list[BoardFound]:
        """Return the boards that are connected. Raises BoardError, CannotStartError."""
        return [_found(descriptor) for descriptor in inventory()]

    def open(self) -> None:
        """Take the board. Raises BoardError where it is not there or taken, CannotStartError without libuldaq."""
        there = inventory()
        names = ("unique_id", "product_name", "dev_string")
        found = [one for one in there if self._name in ("", *(getattr(one, name) for name in names))]
        if not found:
            known = f"there are {', '.join(label_of(one) for one in there)}" if there else "there is none"
            raise BoardError(f"no board {self._name!r}: {known}" if self._name else "no board of libuldaq is there")
        inputs = AnalogInput(found[0])
        try:
            inputs.connect()
        except BaseException:
            inputs.release()
            raise
        self._inputs = inputs

    def close(self) -> None:
        """Stop what runs, and release the board."""
        for source in self._sources:
            source.stop()
        self._sources.clear()
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            inputs.release()

    @property
    def takes(self) -> str:
        """What of the hardware the open board has for itself."""
        return self._open_inputs().board

    def blocks(self, task: TaskConfig) -> UlBlocks:
        """Configure a clocked task. The library tells the true rate when a scan starts: one is started for a moment."""
        inputs, options = self._open_inputs(), self._options
        facts = inputs.facts(options)
        entries = channel_list(task, options, facts)
        inputs.switch(entries, options, has_iepe=facts.has_iepe)
        as_codes = inputs.gives_codes(entries[0], options)
        asked_hz = task.rate_hz or DEFAULT_RATE_HZ
        probe = inputs.scan(entries, options, ring_samples(task, asked_hz), as_codes=as_codes)
        rate_hz = probe.start(asked_hz)
        probe.stop()
        scan = inputs.scan(entries, options, ring_samples(task, rate_hz), as_codes=as_codes)
        plan = TaskPlan(
            channels=tuple(channel_of(entry, facts, gives_codes=as_codes) for entry in entries),
            rate_hz=rate_hz,
            dtype=Scaling(0.0, 0.0, facts.bits, "offset_binary").dtype if as_codes else "float64",
            block_samples=task.samples_in_block(rate_hz),
            board=inputs.board,
        )
        source = UlBlocks(scan, plan, asked_hz)
        self._sources.append(source)
        return source

    def readings(self, task: TaskConfig) -> "UlReadings":
        """Configure a polled task."""
        inputs, options = self._open_inputs(), self._options
        facts = inputs.facts(options)
        entries = channel_list(task, options, facts)
        channels = tuple(channel_of(entry, facts, gives_codes=False) for entry in entries)
        plan = TaskPlan(channels=channels, rate_hz=task.rate_hz or 1.0, dtype="float64", board=inputs.board)
        return UlReadings(inputs, plan, entries, options)

    def _open_inputs(self) -> AnalogInput:
        if self._inputs is None:
            raise BoardError("the board is not open")
        return self._inputs


class UlReadings:
    """A polled task: one reading of each channel's converter, one after another, in engineering units."""

    def __init__(self, inputs: AnalogInput, plan: TaskPlan, entries: list[Entry], options: UlOptions) -> None:
        self.plan = plan
        self._inputs = inputs
        self._entries = entries
        self._options = options
        self._failing_since_ns: int | None = None

    def poll(self, slot: int) -> Readout | Fault | End:
        """Return each channel's value. Raises BoardError where the library fails, and the board is still there."""
        try:
            volts = [self._inputs.value(entry, self._options) for entry in self._entries]
        except BoardError as error:
            now_ns = time.perf_counter_ns()
            self._failing_since_ns = self._failing_since_ns or now_ns
            is_long = now_ns - self._failing_since_ns >= _FAILING_S * 1e9
            if is_long or fault_of(error).kind == "device_lost" or not self._inputs.is_listed():
                return Fault("device_lost", str(error), fatal=True)
            raise
        self._failing_since_ns = None
        return readout(self.plan.channels, volts)


def _found(descriptor: Any) -> BoardFound:
    """Return what a board can do, as far as it tells."""
    board, model = f"uldaq:{descriptor.unique_id}", label_of(descriptor)
    try:
        inputs = AnalogInput(descriptor)
    except BoardError:
        return BoardFound(board=board, model=model, inputs=0)
    try:
        facts = inputs.facts(UlOptions())
        if not facts.inputs:
            facts = inputs.facts(UlOptions(wiring="differential"))
    finally:
        inputs.release()
    return BoardFound(
        board=board,
        model=model,
        inputs=facts.inputs,
        resolution_bits=facts.bits,
        ranges_v=tuple(limits.highest_v for limits in facts.ranges if limits.lowest_v < 0),
        throughput_hz=facts.throughput_hz,
    )
