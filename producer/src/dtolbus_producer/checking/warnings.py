"""What of a configuration can run, and may not be meant. Pure."""

from collections.abc import Iterable, Iterator

from dtolbus_producer.checking.report import DeviceReport

_LONG_BLOCK_S = 10.0


def warnings_of(devices: Iterable[DeviceReport]) -> Iterator[str]:
    """Yield a line for each."""
    for device in devices:
        for task in device.tasks:
            where = f"device {device.name!r}, task {task.name!r}"
            if task.speed is None:
                yield f"{where}: as fast as the journal takes it: bytes a second are those at its rate, the least"
            if task.kind == "readings":
                continue
            block_s = task.block_samples / task.rate_hz / (task.speed or 1.0)
            if block_s > _LONG_BLOCK_S:
                why = "nothing of a block is safe, seen or stored before it is full"
                yield f"{where}: a block is {block_s:.4g} s long: {why}; give block_s, {_LONG_BLOCK_S:g} at most"
