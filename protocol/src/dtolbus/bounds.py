"""What a message has room for. A header carries the run's header beside what its record says of itself."""

import msgspec

from dtolbus.errors import UsageError
from dtolbus.records import RunInfo, RunStatus
from dtolbus.wire import MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, Frame, Welcome, encode

MAX_RUN_BYTES = MAX_HEADER_BYTES // 2
"""Largest header of a run that is begun, as it travels; the other half of a message's is its record's."""


def fits(frames: list[Frame]) -> bool:
    """Return whether a receiver takes the message."""
    return len(frames[1]) <= MAX_HEADER_BYTES and max(map(len, frames)) <= MAX_MESSAGE_BYTES


def can_be_announced(run: RunInfo) -> bool:
    """Return whether the run's header fits into a message: of one that does not, no receiver can hear."""
    try:
        return fits(encode(Welcome((RunStatus(run, "interrupted", 2**63, 2**63),), 2**31, 1.0)))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
        return False


def check_run(run: RunInfo) -> None:
    """Raise UsageError where the header of a run that is to begin cannot travel."""
    what = f"{run.device}/{run.task}: the run's header (its channels, their conversions, [run] and --meta)"
    try:
        size = len(msgspec.msgpack.encode(run))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{what} cannot be sent: {error}") from error
    if size > MAX_RUN_BYTES:
        raise UsageError(
            f"{what} takes {size} bytes, and at most {MAX_RUN_BYTES} can be sent with each record: have fewer "
            f"channels in the task, shorter tables, or less in [run]"
        )
