"""Runs in the journal: how long until a gateway answers, and a worker has what there is, with many old ones."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.growth.fits import Series, cost
from bench.growth.journals import BLOCKS, many_runs
from bench.registry import Setting
from bench.stack import Stack, rss, stack, wait_until

COUNTS = (1, 10, 100, 1000, 10_000)
QUICK = (1, 100, 1000)
_WORKER_S = 180.0
_SINK = "sqlite"


class _Point(NamedTuple):
    gateway_s: float
    gateway_mib: float
    first_s: float
    """Of a worker that has nothing."""
    again_s: float
    """Of one that has everything."""
    listed_s: float
    """Of `dtolbus runs`."""


def old_runs(setting: Setting) -> Iterator[Series]:
    """Yield how starting and catching up grow with the runs that the journal holds."""
    sizes = QUICK if setting.quick else COUNTS
    found = [_point(setting.folder / f"runs-{count}", count) for count in sizes]
    yield Series(
        "runs in the journal",
        f"old runs, of {BLOCKS} records each",
        "runs",
        tuple(map(float, sizes)),
        (
            cost("until the gateway answers", "s", sizes, [point.gateway_s for point in found]),
            cost("the gateway's memory", "MiB", sizes, [point.gateway_mib for point in found]),
            cost("a new sink stores them all", "s", sizes, [point.first_s for point in found]),
            cost("a sink that has them all, --until-end", "s", sizes, [point.again_s for point in found]),
            cost("dtolbus runs", "s", sizes, [point.listed_s for point in found]),
        ),
        f"the sink is {_SINK}; each time is that of a command from its start to its end, the interpreter's included",
    )


def _point(data: Path, count: int) -> _Point:
    with stack(data) as made:
        many_runs(data / "journal", count)
        began = time.perf_counter()
        made.start_gateway()
        gateway_s = time.perf_counter() - began
        first_s, again_s = (worker_s(made, data / "stored.sqlite") for _ in range(2))
        gateway_mib = rss(made.children["gateway"].pid) / 2**20
        listed_s = command_s("dtolbus", "runs", "--data", str(data))
    shutil.rmtree(data)
    return _Point(gateway_s, gateway_mib, first_s, again_s, listed_s)


def worker_s(made: Stack, out: Path) -> float:
    """Return how long a sink's worker runs until it has all that the journal holds, s."""
    began = time.perf_counter()
    made.start_worker(_SINK, "--out", str(out), "--until-end")
    child = made.children[_SINK]
    wait_until(lambda: child.poll() is not None, _WORKER_S, "the sink has everything", every_s=0.005)
    took_s = time.perf_counter() - began
    made.check()
    made.end(_SINK)
    return took_s


def command_s(name: str, *words: str) -> float:
    """Return how long one of our commands takes, s."""
    began = time.perf_counter()
    subprocess.run(  # noqa: S603  # a list of arguments, no shell
        [str(Path(sys.executable).with_name(name)), *words], check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    return time.perf_counter() - began
