"""The columns of the wide layout: one for each channel, and from its codes to what it measured. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtolbus.channels import Channel, engineering
from dtolbus.rows import channel_columns

SAMPLE_INDEX, T_UTC = "sample_index", "t_utc"
STATUS_SUFFIX, FLOATS_SUFFIX = "_status", "_value"
"""Behind a channel's column: its sensor status; floats of blocks that have no codes in a part of codes."""

_RESERVED = {SAMPLE_INDEX, "block_index"}
_SUFFIXED = re.compile(r"ch_\d+(_status|_value)", re.IGNORECASE)


def wide_columns(names: Iterable[str]) -> dict[str, str]:
    """Return each channel's column: as of readings, and none is `sample_index` or another's status or floats."""
    listed = list(names)
    folded = {name.casefold() for name in listed}
    suffixed = {f"{name}{suffix}" for name in folded for suffix in (STATUS_SUFFIX, FLOATS_SUFFIX)}
    columns = channel_columns(listed)
    for place, name in enumerate(listed):
        low = name.casefold()
        if low in _RESERVED | suffixed or _SUFFIXED.fullmatch(low):
            columns[name] = f"ch_{place}"
    return columns


def with_junctions(names: Sequence[str], channels: Iterable[Channel]) -> list[Channel]:
    """Return the named channels, and behind them those that measure their cold junctions."""
    known = {channel.name: channel for channel in channels}
    asked = [known[name] for name in names]
    junctions = [known[c.cold_junction] for c in asked if c.cold_junction in known and c.cold_junction not in names]
    return [*asked, *dict.fromkeys(junctions)]


def measured(
    codes: NDArray[Any], channels: Sequence[Channel], status: Mapping[str, NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Return the codes of one block in engineering units, as its `data` has them; both of shape (channels, samples)."""
    values = engineering(codes, channels)
    for row, channel in zip(values, channels, strict=True):
        if channel.name in status:
            row[np.flatnonzero(status[channel.name])] = np.nan
    return values


def measured_by_block(
    codes: NDArray[Any],
    channels: Sequence[Channel],
    status: Mapping[str, NDArray[np.int64]],
    samples: Iterable[int],
) -> NDArray[np.float64]:
    """Return the codes of several blocks in engineering units; both of shape (channels, samples).

    `samples` of each block: a conversion is worked out block by block, as by whoever has the block, for the last bit of
    an exponential may depend on where in an array it stands. NaN where `status` is not OK.
    """
    if all(channel.conversion is None for channel in channels):
        return measured(codes, channels, status)
    found = np.empty(codes.shape, np.float64)
    start = 0
    for count in samples:
        piece = slice(start, start + count)
        own = {name: column[piece] for name, column in status.items()}
        found[:, piece] = measured(np.ascontiguousarray(codes[:, piece]), channels, own)
        start += count
    return found
