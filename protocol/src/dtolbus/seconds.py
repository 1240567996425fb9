"""Times on the command line: `10`, `10s`, `5min`, `2h`."""

import math
import re
from typing import Any

import click

_UNITS_S = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+) *([a-z]*)", re.IGNORECASE)


class Seconds(click.ParamType[float]):
    """A time above 0: a number of seconds, or one with a unit."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        found = _WRITTEN.fullmatch(str(value).strip())
        unit_s = None if found is None else _UNITS_S.get(found[2].lower())
        seconds = float(found[1]) * unit_s if found is not None and unit_s is not None else math.nan
        if not (seconds > 0 and math.isfinite(seconds)):
            self.fail(f"{value!r}: give a time above 0, such as 10, 10s, 5min, 2h or 7d", param, ctx)
        return seconds
