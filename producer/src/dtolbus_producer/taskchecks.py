"""Whether a task of the configuration can be, whatever its board. Pure."""

import math
from collections.abc import Iterable, Sequence

from dtolbus_producer.conversions import check_conversion
from dtolbus_producer.sinkplaces import check_name
from dtolbus_producer.tasks import TaskConfig, WrongKeyError
from dtolbus_producer.words import word_fault

_CLOCKED_HZ, _POLLED_HZ = (1e-6, 1e9), (1e-6, 1e4)
_SAMPLES, _DURATION_S = (1, 10**15), (1e-9, 1e10)
"""What can be meant; an acquisition without an end has neither."""


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        if not name:
            raise WrongKeyError(f"{what}[{place}].name", "'' is no name: give one")
        before = seen.setdefault(name, place)
        if before != place:
            raise WrongKeyError(f"{what}[{place}].name", f"{name!r} is the name of {what}[{before}] too: rename one")


def check_names(what: str, names: Sequence[str]) -> None:
    """Raise WrongKeyError where names are missing, not unique, or cannot be a folder's; `what` is their list's key."""
    _check_unique(what, names)
    for place, name in enumerate(names):
        check_name(f"{what}[{place}].name", name)


def check_task(key: str, task: TaskConfig) -> None:
    """Raise WrongKeyError where no board could run the task; `key` is its path."""
    _check_unique(f"{key}.channels", (channel.name for channel in task.channel_configs))
    _check_words(f"{key}.channels", task)
    _check_inputs(f"{key}.channels", task)
    for place, channel in enumerate(task.channel_configs):
        check_conversion(f"{key}.channels[{place}]", channel)
    for name, value, bounds in (
        ("rate_hz", task.rate_hz, _POLLED_HZ if task.kind == "readings" else _CLOCKED_HZ),
        ("block_samples", task.block_samples, None),
        ("block_s", task.block_s, None),
        ("samples", task.samples, _SAMPLES),
        ("duration_s", task.duration_s, _DURATION_S),
    ):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise WrongKeyError(f"{key}.{name}", f"{value:g}: give a number above 0")
        if value is not None and bounds is not None and not bounds[0] <= value <= bounds[1]:
            why = f"{value:g}: give {bounds[0]:g} to {bounds[1]:g}, or leave it out"
            raise WrongKeyError(f"{key}.{name}", why)
    if task.block_samples is not None and task.block_s is not None:
        both = f"{task.block_s:g} beside block_samples = {task.block_samples}: give block_samples or block_s, not both"
        raise WrongKeyError(f"{key}.block_s", both)
    task.check_block(key, task.rate_hz or 1.0)
    for name, value in (("block_samples", task.block_samples), ("block_s", task.block_s)):
        if task.kind == "readings" and value is not None:
            why = f"{value:g}: the task {task.name!r} is polled, and has no blocks: leave it out"
            raise WrongKeyError(f"{key}.{name}", why)
    if task.kind == "blocks" and task.on_error is not None:
        raise WrongKeyError(
            f"{key}.on_error", f"{task.on_error!r}: the task {task.name!r} is clocked, and is not polled: leave it out"
        )


def _check_words(key: str, task: TaskConfig) -> None:
    """Raise WrongKeyError where a channel's name, unit or sensor cannot be shown."""
    for place, channel in enumerate(task.channel_configs):
        for name in ("name", "unit", "sensor"):
            fault = word_fault(getattr(channel, name) or "")
            if fault:
                raise WrongKeyError(f"{key}[{place}].{name}", fault)


def _check_inputs(key: str, task: TaskConfig) -> None:
    """Raise WrongKeyError where a channel that names no input would come on that of another one."""
    owners: dict[int | None, tuple[str, bool]] = {}
    for place, (given, channel) in enumerate(zip(task.channels, task.channel_configs, strict=True)):
        is_named = not isinstance(given, str) and given.physical is not None
        name, was_named = owners.setdefault(channel.physical, (channel.name, is_named))
        if name != channel.name and not (is_named and was_named):
            why = f"{channel.physical} is the input of {name!r} too: give each channel its own number"
            raise WrongKeyError(f"{key}[{place}].physical", why)
