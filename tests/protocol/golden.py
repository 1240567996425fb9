"""The predecessor's outputs for fixed inputs, as records of ours."""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtolbus.records import DaqBlock, DaqReading, ErrorInfo

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden"

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the golden outputs are not here: {GOLDEN}")


def load(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text("utf-8"))


def number(value: Any) -> Any:
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def error_of(raw: dict[str, Any] | None) -> ErrorInfo | None:
    return None if raw is None else ErrorInfo(raw["class"], raw["str"])


def block_of(raw: dict[str, Any]) -> DaqBlock:
    fields = dict(raw)
    dtype = fields.pop("raw_dtype")
    for name in ("data", "cjc_data"):
        rows = fields[name]
        fields[name] = None if rows is None else np.array([[number(v) for v in row] for row in rows], dtype=np.float64)
    codes = fields["raw_codes"]
    fields["raw_codes"] = None if codes is None else np.array(codes, dtype=dtype)
    for name in ("task_started_at", "t0", "t_utc", "read_started_at", "read_finished_at"):
        fields[name] = instant(fields[name])
    fields["error"] = error_of(fields["error"])
    return DaqBlock(**fields)


def reading_of(raw: dict[str, Any]) -> DaqReading:
    fields = dict(raw)
    fields["values"] = {name: number(value) for name, value in fields["values"].items()}
    for name in ("requested_at", "received_at", "t_utc"):
        fields[name] = instant(fields[name])
    fields["error"] = error_of(fields["error"])
    return DaqReading(**fields)


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, NaN equal to NaN, -0.0 not to 0.0."""
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    return type(left) is type(right) and left == right
