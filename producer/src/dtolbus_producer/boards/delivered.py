"""What a board gave, held against what its plan says: another package's board may give anything. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dtolbus.units.status import SensorStatus
from dtolbus_producer.boards import Buffer, End, Fault, Readout, TaskPlan

_TYPES = ("int16", "uint16", "int32", "float64")
"""What records hold."""
_STATUSES = tuple(int(status) for status in SensorStatus)


def checked(found: object, plan: TaskPlan) -> Buffer | Fault | End | None:
    """Return what a clocked task gave; a fatal fault in its place where it is not what the plan says."""
    problem = _buffer_problem(found, plan) if isinstance(found, Buffer) else _other_problem(found)
    if problem is None:
        return found  # type: ignore[return-value]  # it is one of these
    return Fault("sdk_error", f"{plan.board}: the board gave {problem}", fatal=True)


def readout_problem(found: object, plan: TaskPlan) -> str | None:
    """Return what is wrong with what a poll gave, or None."""
    if not isinstance(found, Readout):
        return "nothing" if found is None else _other_problem(found)
    names = [channel.name for channel in plan.channels]
    if set(found.values) != set(names):
        return f"the channels {_listed(found.values)}, where the plan has {_listed(names)}"
    for name, value in found.values.items():
        if not isinstance(value, float | int | str | np.number | np.bool_ | None):
            return f"{value!r} for {name!r}, which is neither a number nor a text"
    for name, status in found.sensor_status.items():
        if name not in names:
            return f"a status of the channel {name!r}, which the plan does not have"
        if not isinstance(status, int | np.integer) or status not in _STATUSES:
            return f"the status {status!r} of {name!r}, which is none of {', '.join(map(str, _STATUSES))}"
    return None


def _buffer_problem(buffer: Buffer, plan: TaskPlan) -> str | None:
    codes: Any = buffer.codes
    if plan.dtype not in _TYPES:
        return f"a plan of {plan.dtype!r} codes, which are {', '.join(_TYPES[:-1])} or {_TYPES[-1]}"
    if not isinstance(codes, np.ndarray):
        return f"{type(codes).__name__} for codes, which are a NumPy array"
    if codes.ndim != 2 or codes.shape[0] != len(plan.channels):
        return f"codes of shape {codes.shape}, where the plan has {len(plan.channels)} channels (channels, samples)"
    if codes.dtype != np.dtype(plan.dtype):
        return f"codes of type {codes.dtype}, where the plan says {np.dtype(plan.dtype)}"
    for name, at_ns in (("asked_mono_ns", buffer.asked_mono_ns), ("arrived_mono_ns", buffer.arrived_mono_ns)):
        if not isinstance(at_ns, int):
            return f"{at_ns!r} for {name}, which is a whole number"
    return _status_problem(buffer.sensor_status, codes.shape[1], plan)


def _status_problem(told: Mapping[str, Any], samples: int, plan: TaskPlan) -> str | None:
    names = [channel.name for channel in plan.channels]
    for name, status in told.items():
        if name not in names:
            return f"a status of the channel {name!r}, which the plan does not have"
        if not isinstance(status, np.ndarray) or status.shape != (samples,) or status.dtype.kind not in "iu":
            return f"a status of {name!r} that is no array of {samples} whole numbers, one for each sample"
    return None


def _other_problem(found: object) -> str | None:
    if found is None or isinstance(found, End):
        return None
    if not isinstance(found, Fault):
        return f"a {type(found).__name__}, which is neither values, nor a fault, nor its end"
    if not isinstance(found.kind, str) or not isinstance(found.message, str):
        return f"a fault of kind {found.kind!r} and message {found.message!r}, which are texts"
    if not isinstance(found.lost_samples, int) or found.lost_samples < 0:
        return f"a fault with {found.lost_samples!r} lost samples ({found.kind}: {found.message})"
    return None


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
