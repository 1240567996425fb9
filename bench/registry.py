"""Every bench by its name. The one lazy import: a bench costs nothing, and needs nothing, until it is run."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bench.measuring import Case, Plan

BENCHES = {
    "wire": "bench.wire:cases",
    "wire-curve": "bench.wire:curve_cases",
    "wire-fanout": "bench.wire:fanout_cases",
    "codec": "bench.codec:cases",
    "journal": "bench.journal:cases",
    "journal-sync": "bench.journal_sync:cases",
    "parquet-long": "bench.parquet_long:cases",
    "sqlite-samples": "bench.sqlite:samples_cases",
    "sqlite-blocks": "bench.sqlite:blocks_cases",
    "postgres-samples": "bench.postgres:cases",
    "csv": "bench.text:csv_cases",
    "jsonl": "bench.text:jsonl_cases",
    "scale": "bench.scale:cases",
    "start": "bench.start:cases",
    "latency": "bench.latency:cases",
    "catchup": "bench.catchup:cases",
    "acquire": "bench.acquire:cases",
    "memory": "bench.memory:cases",
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
    """Return the first line of what the bench says of itself, or else its module."""
    cases = load(name)
    return (cases.__doc__ or importlib.import_module(cases.__module__).__doc__ or "").partition("\n")[0]
