"""Cold junctions that cannot measure the temperatures which such a place has. Pure."""

from collections.abc import Iterable, Iterator

from dtolbus_producer.checking.report import DeviceReport
from dtolbus_producer.checking.spans import measured_span

_COLDEST, _WARMEST = 0.0, 50.0
"""Where terminals are, °C."""


def junction_warnings(devices: Iterable[DeviceReport]) -> Iterator[str]:
    """Yield a line for each."""
    for device in devices:
        for task in device.tasks:
            junctions = {channel.cold_junction for channel in task.channels}
            for channel in task.channels:
                span = measured_span(channel) if channel.name in junctions else None
                if span is None or (span[0] <= _COLDEST and span[1] >= _WARMEST):
                    continue
                where = f"device {device.name!r}, task {task.name!r}, channel {channel.name!r}"
                yield (
                    f"{where}: a cold junction that measures {span[0]:.4g} to {span[1]:.4g} °C in its range: terminals "
                    f"have {_COLDEST:g} to {_WARMEST:g} °C, and where they are outside no thermocouple has a value; "
                    f"look at its range, gain and sensitivity_v"
                )
