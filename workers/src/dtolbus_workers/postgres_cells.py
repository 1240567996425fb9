"""Values made to fit the columns of a table that somebody else may have made; never rounded, never cut."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from dtolbus_workers.pgcopy import utf8

_INT_BITS = {"smallint": 15, "integer": 31, "bigint": 63}


def fitted(value: Any, kind: str) -> Any:
    """Return the value as asyncpg wants it for a column of the type `kind` (information_schema's `data_type`).

    Raises:
        ValueError: the column cannot hold it exactly.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or kind not in _FIT:
        return value
    return _FIT[kind](value, kind)


def _float(value: Any, kind: str) -> float:
    if not isinstance(value, float | int):
        raise ValueError(f"{value!r:.60} is no number, and the column is {kind}")
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError(f"the int {value} is beyond what {kind} holds exactly")
    return float(value)


def _int(value: Any, kind: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    limit = 2 ** _INT_BITS[kind]
    if not isinstance(value, int) or not -limit <= value < limit:
        raise ValueError(f"{value!r:.60} does not fit a column of type {kind}")
    return int(value)


def _bool(value: Any, kind: str) -> bool:
    if value not in (0, 1):
        raise ValueError(f"{value!r:.60} does not fit a column of type {kind}")
    return bool(value)


def _decimal(value: Any, kind: str) -> Decimal:
    if not isinstance(value, float | int):
        raise ValueError(f"{value!r:.60} is no number, and the column is {kind}")
    return Decimal(repr(value) if isinstance(value, float) else int(value))


def _text(value: Any, _: str) -> str:
    text = value if isinstance(value, str) else repr(value) if isinstance(value, float) else _json(value, "")
    utf8(text)
    return text


def _json(value: Any, _: str) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _instant(value: Any, kind: str) -> datetime:
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r:.60} is no instant, and the column is {kind}") from None
    return instant if kind.endswith("with time zone") else instant.astimezone(UTC).replace(tzinfo=None)


_FIT: Mapping[str, Callable[[Any, str], Any]] = {
    "double precision": _float,
    "real": _float,
    **dict.fromkeys(_INT_BITS, _int),
    "boolean": _bool,
    "numeric": _decimal,
    **dict.fromkeys(("text", "character varying", "character"), _text),
    **dict.fromkeys(("json", "jsonb"), _json),
    **dict.fromkeys(("timestamp with time zone", "timestamp without time zone"), _instant),
}
