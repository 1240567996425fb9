"""The fastest DT board through the whole stack: 20 MS/s of 16 bit for a minute, nothing lost.

One run is measured three times: what it carried, how late it arrived, how its processes grew.
"""

import time
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.acquiring import Stream, journaled, start_board
from bench.hearing import heard_by
from bench.measuring import Case, at_least, at_most
from bench.registry import Setting
from bench.stack import Stack, cpu_s, rss, stack, wait_until

BOARD = Stream(2_500_000.0, channels=8, block_samples=12_500)
MS_S = BOARD.rate_hz * BOARD.channels / 1e6
SECONDS = 60.0
LATE_MS = 100.0
GROWTH_MIB = 32.0
_BEHIND_S = 5.0
"""So long after the end what is stored still counts."""
_LOOK_S = 1.0


class Found(NamedTuple):
    """What one run came to."""

    carried_ms_s: float
    """Million samples a second that were journaled, heard and stored, over the time they were taken in."""
    late_ms: NDArray[np.float64]
    """For each block, from its last sample to the subscriber's hands; shape (blocks,)."""
    growth_mib: dict[str, float]
    """By process, from the first third of the run to the last."""
    cpu: dict[str, float]
    """By process, share of one core."""


def cases(setting: Setting) -> Iterator[Case]:
    """Yield what a minute at the fastest board's rate comes to: samples, lateness, memory."""
    seconds = 6.0 if setting.quick else SECONDS
    with stack(setting.folder / "data") as made:
        found = _run(made, seconds)
    processes = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.cpu.items())
    yield Case(
        "acquire",
        f"samples through journal, gateway, subscriber and a Parquet worker, {seconds:g} s, against the board's",
        "MS/s",
        lambda: found.carried_ms_s,
        lambda: MS_S,
        at_least(1.0),
        trials=1,
        note=lambda: f"of one core: {processes}",
    )
    p50, p99 = np.percentile(found.late_ms, [50, 99])
    yield Case(
        "acquire",
        "a block's last sample → in the subscriber's hands, p99",
        "ms",
        lambda: float(p99),
        None,
        at_most(LATE_MS),
        trials=1,
        note=lambda: f"p50 {p50:.1f} ms, greatest {found.late_ms.max():.1f} ms",
    )
    grown = ", ".join(f"{name} {mib:+.0f}" for name, mib in found.growth_mib.items())
    yield Case(
        "acquire",
        "growth of a process from the end of the run's first third to its last third",
        "MiB",
        lambda: max(found.growth_mib.values()),
        None,
        at_most(GROWTH_MIB),
        trials=1,
        note=lambda: f"MiB: {grown}",
    )


def _run(made: Stack, seconds: float) -> Found:
    blocks = round(BOARD.blocks_s * seconds)
    made.start_gateway()
    made.start("subscriber", "-m", "bench.hearing", *made.urls)
    made.start_worker("parquet", "--out", str(made.data / "parquet"), "--layout", "wide", "--values", "codes")
    start_board(made, BOARD, seconds)
    wait_until(lambda: journaled(made) > 0, 30.0, "the board begins")
    growth_mib, cpu = _watched(made, seconds)
    hearing = made.output("subscriber")
    until = time.monotonic() + _BEHIND_S
    while time.monotonic() < until and min(made.stored("parquet"), len(heard_by(hearing))) < blocks:
        time.sleep(0.05)
    heard = heard_by(hearing)
    carried = min(journaled(made), made.stored("parquet"), len(np.unique(heard[:, 0])))
    return Found(carried / blocks * MS_S, (heard[:, 2] - heard[:, 1]) / 1e6, growth_mib, cpu)


def _watched(made: Stack, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by process, how its memory grew, MiB, and its share of a core, until the board is near its end."""
    names = list(made.children)
    before = {name: cpu_s(made.children[name].pid) for name in names}
    seen: list[dict[str, int]] = []
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < 0.95 * seconds:
        made.check()
        seen.append({name: rss(made.children[name].pid) for name in names})
        time.sleep(min(_LOOK_S, seconds / 10))
    third = max(1, len(seen) // 3)
    growth = {
        name: (median(at[name] for at in seen[-third:]) - median(at[name] for at in seen[:third][-5:])) / 2**20
        for name in names
    }
    return growth, {name: (cpu_s(made.children[name].pid) - before[name]) / passed_s for name in names}
