"""Every bench by its name. The one lazy import: a bench costs nothing, and needs nothing, until it is run."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bench.measuring import Case, Plan

BENCHES = {
    "codec": "bench.codec:cases",
    "parquet-wide": "bench.parquet_wide:cases",
}
"""Each `cases(setting)` yields its cases one by one, and puts away behind each what it needed."""

LONG = frozenset({"acquire", "memory"})
"""Need a minute or more: left out of `--quick`."""


@dataclass(frozen=True)
class Setting:
    """Where and how long a bench measures."""

    plan: Plan
    folder: Path
    """Empty, for temporary files; removed afterwards."""
    quick: bool = False


Cases = Callable[[Setting], Iterator[Case]]


def load(name: str) -> Cases:
    """Return the bench's `cases`."""
    module, _, attribute = BENCHES[name].partition(":")
    return cast(Cases, getattr(importlib.import_module(module), attribute))


def about(name: str) -> str:
    """Return the first line of what the bench's module says of itself."""
    module = importlib.import_module(BENCHES[name].partition(":")[0])
    return (module.__doc__ or "").partition("\n")[0]
