"""Whether the tasks' times are long enough for a sample."""

from dtolbus.errors import UsageError
from dtolbus_producer.config import Config


def check_durations(config: Config, duration_s: float | None, source: str) -> None:
    """Raise UsageError where a task would end before its first sample; `duration_s` is what `--duration` said."""
    for number, device in enumerate(config.devices):
        for place, task in enumerate(device.tasks):
            if task.is_too_short:
                why = f"is shorter than one sample at {task.rate_hz:g} Hz ({device.name}/{task.name})"
                key = f"{source}: device[{number}].task[{place}].duration_s:"
                is_option = task.duration_s == duration_s
                raise UsageError(f"{'--duration' if is_option else key} {task.duration_s:g} {why}: give it more time")
