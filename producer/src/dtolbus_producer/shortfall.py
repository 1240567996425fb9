"""What `up` says at its end of finite tasks that recorded less than they were to. Pure."""

from collections.abc import Iterable, Mapping

from dtolbus.topics import stream_name
from dtolbus_producer.resuming import Before
from dtolbus_producer.tasks import DeviceConfig, TaskConfig


def shortfalls(devices: Iterable[DeviceConfig], had: Mapping[tuple[str, str], Before]) -> list[str]:
    """Return how much each finite task has that lacks something; `had` is by device and task."""
    found = []
    for device in devices:
        for task in device.tasks:
            less = _less(task, had.get((device.name, task.name)))
            if less is not None:
                found.append(f"{stream_name(device.name, task.name)} has {less}")
    return found


def _less(task: TaskConfig, before: Before | None) -> str | None:
    """Return how much the task has of what it was to record; None where that is all, or it was to go on for ever."""
    rate_hz, samples = (task.rate_hz, 0) if before is None else (before.rate_hz, before.samples)
    if rate_hz is None:  # the board's own, and it never told
        length = f"{task.samples} samples" if task.duration_s is None else f"{task.duration_s:g} s"
        return None if task.samples is None and task.duration_s is None else f"nothing of {length}"
    asked = task.samples_asked(rate_hz)
    if asked is None or samples >= asked:
        return None
    what = "polls" if task.kind == "readings" else "samples"
    return f"{samples} of {asked} {what} ({samples / rate_hz:.3g} s of {asked / rate_hz:.3g} s)"
