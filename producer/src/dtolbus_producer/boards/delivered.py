"""What a board gave, held against what its plan says: another package's board may give anything. Pure."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from dtolbus.channels import Channel
from dtolbus.units.status import SensorStatus
from dtolbus_producer.boards import Buffer, End, Fault, Readout, TaskPlan

RATES_HZ = (1e-6, 1e9)
"""Slowest and fastest that a task can be."""
_TYPES = ("int16", "uint16", "int32", "float64")
"""What records hold."""
_STATUSES = tuple(int(status) for status in SensorStatus)
_INSTANTS_NS = (-(2**63), 2**63 - 1)
_LOST = 2**53
"""So many samples can be counted in every sink."""


def plan_problem(plan: object) -> str | None:
    """Return what is wrong with a task's plan as `key = value: what is allowed`, or None."""
    if not isinstance(plan, TaskPlan):
        return f"its plan is {'missing' if plan is None else f'a {type(plan).__name__}'}: it is to be a TaskPlan"
    if not isinstance(plan.board, str):
        return f"plan.board = {plan.board!r}: give a text, model and serial number"
    if not _is_number(plan.rate_hz) or not RATES_HZ[0] <= plan.rate_hz <= RATES_HZ[1]:
        return f"plan.rate_hz = {plan.rate_hz!r}: give {RATES_HZ[0]:g} to {RATES_HZ[1]:g}"
    if plan.dtype not in _TYPES:
        return f"a plan of {plan.dtype!r} codes, which are {', '.join(_TYPES[:-1])} or {_TYPES[-1]}"
    if not _is_whole(plan.block_samples) or not 1 <= plan.block_samples <= _LOST:
        return f"plan.block_samples = {plan.block_samples!r}: give a whole number, 1 or more"
    if not isinstance(plan.speed, int | float) or not plan.speed > 0:
        return f"plan.speed = {plan.speed!r}: give a number above 0, or inf"
    if not isinstance(plan.meta, Mapping):
        return f"plan.meta = {plan.meta!r}: give a dict"
    return _channels_problem(plan.channels)


def calibration_problem(channel: Channel) -> str | None:
    """Return what is wrong with a channel's linear calibration as `key = value: what is allowed`, or None."""
    if not _is_number(channel.scale) or channel.scale == 0 or not math.isfinite(channel.scale):
        return f"scale = {channel.scale!r}: give a finite number, not 0"
    if not _is_number(channel.offset) or not math.isfinite(channel.offset):
        return f"offset = {channel.offset!r}: give a finite number"
    limits = channel.range
    if limits is not None and not (
        isinstance(limits, tuple)
        and len(limits) == 2
        and all(_is_number(limit) and math.isfinite(limit) for limit in limits)
        and limits[0] < limits[1]
    ):
        return f"range = {limits!r}: give the lowest and the highest input, or None"
    return None


def _channels_problem(channels: object) -> str | None:
    if not isinstance(channels, tuple) or not channels:
        return f"plan.channels = {channels!r}: give a tuple of at least one Channel"
    names: dict[str, int] = {}
    for place, channel in enumerate(channels):
        key = f"plan.channels[{place}]"
        if not isinstance(channel, Channel):
            return f"{key} is a {type(channel).__name__}: give a Channel"
        if not isinstance(channel.name, str) or not channel.name:
            return f"{key}.name = {channel.name!r}: give a text"
        before = names.setdefault(channel.name, place)
        if before != place:
            return f"{key}.name = {channel.name!r}, which is plan.channels[{before}]'s too: give each its own"
        problem = calibration_problem(channel)
        if problem is not None:
            return f"{key}.{problem}"
        try:
            msgspec.convert(msgspec.to_builtins(channel), Channel)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            return f"{key} ({channel.name!r}): {error}"
    return None


def buffer_problem(found: object, plan: TaskPlan) -> str | None:
    """Return what is wrong with what a clocked task gave, or None."""
    return _buffer_problem(found, plan) if isinstance(found, Buffer) else _other_problem(found)


def readout_problem(found: object, plan: TaskPlan) -> str | None:
    """Return what is wrong with what a poll gave, or None."""
    if not isinstance(found, Readout):
        return "nothing" if found is None else _other_problem(found)
    names = [channel.name for channel in plan.channels]
    if not isinstance(found.values, Mapping):
        return f"a {type(found.values).__name__} for values, which are by channel"
    if set(found.values) != set(names):
        return f"the channels {_listed(found.values)}, where the plan has {_listed(names)}"
    for name, value in found.values.items():
        if not isinstance(value, float | int | str | np.number | np.bool_ | None):
            return f"{value!r} for {name!r}, which is neither a number nor a text"
    if not isinstance(found.sensor_status, Mapping):
        return f"a {type(found.sensor_status).__name__} for sensor_status, which is by channel"
    for name, status in found.sensor_status.items():
        if name not in names:
            return f"a status of the channel {name!r}, which the plan does not have"
        if not isinstance(status, int | np.integer) or status not in _STATUSES:
            return f"the status {status!r} of {name!r}, which is none of {', '.join(map(str, _STATUSES))}"
    return None


def _buffer_problem(buffer: Buffer, plan: TaskPlan) -> str | None:
    codes: Any = buffer.codes
    if not isinstance(codes, np.ndarray):
        return f"{type(codes).__name__} for codes, which are a NumPy array"
    if codes.ndim != 2 or codes.shape[0] != len(plan.channels):
        return f"codes of shape {codes.shape}, where the plan has {len(plan.channels)} channels (channels, samples)"
    if codes.dtype != np.dtype(plan.dtype):
        return f"codes of type {codes.dtype}, where the plan says {np.dtype(plan.dtype)}"
    for name, at_ns in (("asked_mono_ns", buffer.asked_mono_ns), ("arrived_mono_ns", buffer.arrived_mono_ns)):
        if not _is_whole(at_ns) or not _INSTANTS_NS[0] <= at_ns <= _INSTANTS_NS[1]:
            return f"{at_ns!r} for {name}, which is a whole number of at most 64 bits"
    return _status_problem(buffer.sensor_status, codes.shape[1], plan)


def _status_problem(told: object, samples: int, plan: TaskPlan) -> str | None:
    if not isinstance(told, Mapping):
        return f"a {type(told).__name__} for sensor_status, which is by channel"
    names = [channel.name for channel in plan.channels]
    for name, status in told.items():
        if name not in names:
            return f"a status of the channel {name!r}, which the plan does not have"
        if not isinstance(status, np.ndarray) or status.shape != (samples,) or status.dtype.kind not in "iu":
            return f"a status of {name!r} that is no array of {samples} whole numbers, one for each sample"
        odd = status[~np.isin(status, _STATUSES)]
        if odd.size:
            return f"the status {odd[0]} of {name!r}, which is none of {', '.join(map(str, _STATUSES))}"
    return None


def _other_problem(found: object) -> str | None:
    if found is None or isinstance(found, End):
        return None
    if not isinstance(found, Fault):
        return f"a {type(found).__name__}, which is neither values, nor a fault, nor its end"
    if not isinstance(found.kind, str) or not isinstance(found.message, str):
        return f"a fault of kind {found.kind!r} and message {found.message!r}, which are texts"
    if not _is_whole(found.lost_samples) or not 0 <= found.lost_samples <= _LOST:
        return f"a fault with {found.lost_samples!r} lost samples ({found.kind}: {found.message})"
    return None


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
