"""Stand-alone records as Arrow tables; the types of readings come from their values and widen when later ones need it.

A column of bools is `bool`, of ints (and bools) `int64`, of floats (and ints) `float64`, of texts `string`. What mixes
texts and numbers, or floats and ints that a float64 cannot hold, is `string`, numbers as JSON writes them. Empty
columns have no type of their own, so a first reading without values fixes nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtolbus.records import DaqBlock, DaqReading, Scalar
from dtolbus.rows import reading_to_row
from dtolbus_workers.arrow import FIXED, TEXT, fixed_cells, samples_table

_EXACT_INTS = 2**53
_ORDER = (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())


def block_table(block: DaqBlock) -> Any:
    """Return the block's samples, without the bus's `run_id`."""
    return samples_table([block]).drop_columns(["run_id"])


def inferred_table(readings: Sequence[DaqReading], names: dict[str, str], columns: Sequence[str]) -> Any:
    """Return the readings as a table of `columns`, where `names` gives the channels' columns.

    Raises:
        OverflowError: an int is beyond 64 bits.
        ValueError: a value is no scalar.
    """
    rows = [reading_to_row(reading, {**names, **_left_out(reading, names)}) for reading in readings]
    arrays = {}
    for column in columns:
        if column in FIXED:
            arrays[column] = pa.array(fixed_cells(column, readings), FIXED[column])
        elif column.endswith("_unit") and column.removesuffix("_unit") in names.values():
            arrays[column] = pa.array([row.get(column) for row in rows], TEXT)
        else:
            arrays[column] = inferred_array(column, [row.get(column) for row in rows])
    return pa.table(arrays)


def _left_out(reading: DaqReading, names: dict[str, str]) -> dict[str, str]:
    """Return a column that nobody asks for, for each channel without one."""
    return {channel: f"\0{channel}" for channel in [*reading.values, *reading.units] if channel not in names}


def inferred_array(column: str, cells: Sequence[Scalar]) -> Any:
    """Return the cells as an array of the narrowest type that holds each of them exactly."""
    values = [cell.item() if isinstance(cell, np.generic) else cell for cell in cells]
    kinds = {type(value) for value in values if value is not None}
    if not kinds <= {bool, int, float, str}:
        odd = next(value for value in values if type(value) not in (bool, int, float, str, type(None)))
        raise ValueError(f"column {column!r}: a value of type {type(odd).__name__} is no number and no text")
    wide = [value for value in values if isinstance(value, int) and not -(2**63) <= value < 2**63]
    if wide:
        raise OverflowError(f"column {column!r}: the int {wide[0]} is beyond 64 bits")
    if not kinds:
        return pa.nulls(len(values))
    if str in kinds or (float in kinds and any(_is_large(value) for value in values)):
        return pa.array([_as_text(value) for value in values], pa.string())
    if float in kinds:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if int in kinds:
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    return pa.array(values, pa.bool_())


def _is_large(value: Scalar) -> bool:
    return isinstance(value, int) and abs(value) > _EXACT_INTS


def _as_text(value: Scalar) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else msgspec.json.encode(value).decode()


def wider(first: Any, second: Any, large_ints: bool) -> Any:
    """Return the type that holds what either holds; `large_ints`: some int there is beyond what a float64 holds."""
    if first == second or first not in _ORDER or second not in _ORDER:
        return second if first == pa.null() else first
    low, high = sorted((first, second), key=_ORDER.index)
    return pa.string() if low == pa.int64() and high == pa.float64() and large_ints else high


def has_large_ints(column: Any) -> bool:
    """Say whether an int64 column holds an int that a float64 might not."""
    low, high = pc.min_max(column).as_py().values()
    return low is not None and (low < -_EXACT_INTS or high > _EXACT_INTS)


def widened(table: Any, schema: Any) -> Any:
    """Return the table with the schema's columns: cast to its types, null where the table has none."""
    arrays: Iterable[Any] = (
        _cast(table.column(field.name), field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    )
    return pa.table(list(arrays), schema=schema)


def _cast(column: Any, kind: Any) -> Any:
    if column.type == kind:
        return column
    if kind == pa.string() and column.type == pa.float64():
        return pa.array([_as_text(value) for value in column.to_pylist()], kind)
    if kind == pa.float64() and column.type == pa.bool_():
        return column.cast(pa.int64()).cast(kind)
    return column.cast(kind)
