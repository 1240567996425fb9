"""What of a configuration can run, and may not be meant. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dtolbus_producer.checking.channels import channel_warnings
from dtolbus_producer.checking.report import DeviceReport, DiskReport, PlaceReport, TaskReport
from dtolbus_producer.config import Config
from dtolbus_producer.configplaces import misplaced
from dtolbus_producer.quantities import show_size

_LONG_BLOCK_S = 10.0
_OFF_RATE = 1e-3
_FAST_POLLS_HZ = 100.0
"""Polls a second that a usual machine takes in time, one after another."""
_MUCH = 10.0
"""A sink that takes so many times what the journal takes may not be meant."""


def warnings_of(
    config: Config, devices: Iterable[DeviceReport], places: Sequence[PlaceReport], disks: Sequence[DiskReport]
) -> Iterator[str]:
    """Yield a line for each."""
    yield from misplaced(config.run, config.data)
    yield from _relative(config)
    for device, asked in zip(devices, config.devices, strict=True):
        if device.problem is not None:
            yield f"device {device.name!r} could not be looked at: what it will take is in none of these numbers"
        for task, asked_task in zip(device.tasks, asked.tasks, strict=False):
            where = f"device {device.name!r}, task {task.name!r}"
            for what in (*_task(task), *channel_warnings(asked_task, task)):
                yield f"{where}: {what}" if not what.startswith("channel") else f"{where}, {what}"
    yield from _large_sinks(config, places)
    yield from _first_full(disks)


def _relative(config: Config) -> Iterator[str]:
    """Yield where a relative data folder is: it depends on where the command is started."""
    if not Path(config.data).is_absolute():
        where = f"below the folder that this was started in: {Path(config.data).absolute()}"
        yield f"data = {config.data!r} is {where}; a service needs the whole path"
    for sink in config.sinks:
        if sink.path is not None and not Path(sink.path).is_absolute():
            yield f"sink {sink.name!r}: path = {sink.path!r} is {Path(sink.path).absolute()}, not below the data folder"


def _task(task: TaskReport) -> Iterator[str]:
    if task.speed is None:
        yield "as fast as the journal takes it: bytes a second are those at its rate, the least"
    if task.kind == "readings":
        if task.rate_hz > _FAST_POLLS_HZ:
            why = "each poll is a call of its own: those that are not in time are missed, and told as overruns"
            yield f"{task.rate_hz:g} polls a second: {why}; for more than {_FAST_POLLS_HZ:g} take kind = 'blocks'"
        return
    asked_hz = task.rate_asked_hz
    if asked_hz is not None and abs(task.rate_hz / asked_hz - 1) > _OFF_RATE:
        off = (task.rate_hz / asked_hz - 1) * 100
        yield f"the board's clock cannot do {asked_hz:.10g} Hz: it does {task.rate_hz:.10g} Hz, {off:+.2g} %"
    block_s = task.block_samples / task.rate_hz / (task.speed or 1.0)
    if block_s > _LONG_BLOCK_S:
        why = "nothing of a block is safe, seen or stored before it is full"
        yield f"a block is {block_s:.4g} s long: {why}; give block_s, {_LONG_BLOCK_S:g} at most"


def _large_sinks(config: Config, places: Sequence[PlaceReport]) -> Iterator[str]:
    """Yield the sinks that take many times what the journal takes."""
    journal = places[0]
    modes = {sink.name: sink.blocks for sink in config.sinks}
    for place in places[1:]:
        if not journal.bytes_s or place.bytes_s <= _MUCH * journal.bytes_s:
            continue
        mode = modes.get(place.what)
        is_choice = mode in ("samples", "both")
        todo = f": that is blocks = {mode!r}; 'summary' is small, and Parquet keeps every sample" if is_choice else ""
        day = show_size(round(place.bytes_s * 86_400))
        yield f"sink {place.what!r} takes {place.bytes_s / journal.bytes_s:.0f} times the journal's, {day} a day{todo}"


def _first_full(disks: Sequence[DiskReport]) -> Iterator[str]:
    """Yield which of several disks is full first."""
    left = {disk.disk: disk.hours_left for disk in disks if disk.hours_left is not None}
    if len(left) > 1:
        first = min(left, key=lambda disk: left[disk])
        by = next(disk.most_by for disk in disks if disk.disk == first)
        yield f"the disk {first} is full first; most of what goes there is written by {by}"
