"""Whether a buffer can be what the board says: how many samples, and when they came. Pure."""

from typing import NamedTuple

from dtolbus_producer.boards import Buffer, TaskPlan
from dtolbus_producer.tasks import MAX_BLOCK_BYTES

_VALUE_BYTES = 8
_MANY_BLOCKS = 4
_PIECE_BYTES = 1 << 20
_AHEAD_NS = 1_000_000_000
_TIMES = 10
_EARLY_SHARE, _EARLY_NS = 0.1, 100_000_000
"""So much of the time may a board's clock be fast, and its callbacks be early, before that cannot be."""
_READ_NS = 1_000_000
"""Clocks that are read one after another may differ so much."""


class Times(NamedTuple):
    """What is known of the time when a buffer is looked at, monotonic ns."""

    since_ns: int
    """When the run began."""
    last_ns: int
    """When the buffer before it was looked at; where there is none, when the run began."""
    last_arrived_ns: int
    """When the buffer before it came, as the board says; where there is none, when the run began."""
    now_ns: int


def pieces_of(samples: int, plan: TaskPlan) -> list[int]:
    """Return in how many samples each such a buffer is to be journaled: in one record, unless it is too large.

    Too large is what no message can hold, or is beyond a few of the plan's blocks and of a mebibyte.
    """
    row_bytes = _VALUE_BYTES * len(plan.channels)
    most = max(MAX_BLOCK_BYTES // row_bytes, 1)
    few = min(most, max(_MANY_BLOCKS * plan.block_samples, _PIECE_BYTES // row_bytes))
    if samples <= few:
        return [samples]
    size = min(most, max(plan.block_samples, _PIECE_BYTES // row_bytes))
    whole, rest = divmod(samples, size)
    return [size] * whole + ([rest] if rest else [])


def count_problem(buffer: Buffer, over: int, plan: TaskPlan, times: Times) -> str | None:
    """Return what is wrong with so many samples at this time, or None; `over` are those before them.

    A board that keeps time cannot be far ahead of it.
    """
    samples = buffer.codes.shape[1]
    if not plan.keeps_time:
        return None
    length_ns, passed_ns = samples * 1e9 / plan.rate_hz, times.now_ns - times.last_ns
    ahead_ns = (over + samples) * 1e9 / plan.rate_hz - (times.now_ns - times.since_ns)
    if ahead_ns <= _AHEAD_NS or length_ns <= _TIMES * passed_ns:
        return None
    return (
        f"{samples} samples of each channel, which take {length_ns / 1e9:.3g} s at {plan.rate_hz:g} Hz, "
        f"{passed_ns / 1e9:.3g} s after the buffer before"
    )


def arrival_problem(buffer: Buffer, over: int, plan: TaskPlan, times: Times) -> str | None:
    """Return why the samples cannot have come when the board says, or None; `over` are those at the buffer's end."""
    at_ns = buffer.arrived_mono_ns
    if not plan.keeps_time:
        return None
    said = f"samples that came at {at_ns} ns of the monotonic clock"
    if at_ns > times.now_ns + _READ_NS:
        return f"{said}, which is at {times.now_ns} ns now"
    if at_ns < times.last_arrived_ns - _READ_NS:
        return f"{said}, before those that it gave before, at {times.last_arrived_ns} ns"
    taken_ns = over * 1e9 / plan.rate_hz
    if at_ns - times.since_ns < taken_ns * (1 - _EARLY_SHARE) - _EARLY_NS:
        return (
            f"{said}, {(at_ns - times.since_ns) / 1e9:.3g} s after the start, of which {taken_ns / 1e9:.3g} s they are"
        )
    return None
