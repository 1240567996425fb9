"""A worker that starts cold on a journal, while its stream goes on at 20 MB/s."""

import time
from collections.abc import Iterator
from itertools import count

from bench.acquiring import Stream, journaled, start_board
from bench.measuring import Case, at_least
from bench.registry import Setting
from bench.stack import Stack, stack, wait_until

LIVE = Stream(1_250_000.0, channels=8, block_samples=12_500)
SINKS = {
    "parquet": ("--layout", "wide", "--values", "codes"),
    "sqlite": (),
}
_OUT = {"parquet": "parquet", "sqlite": "dtolbus.sqlite"}
_PATIENCE_S = 120.0


def cases(setting: Setting) -> Iterator[Case]:
    """Yield how fast a cold worker fetches and stores, against the rate at which the stream goes on."""
    for kind, options in SINKS.items():
        numbers = count()

        def ours(kind: str = kind, options: tuple[str, ...] = options, numbers: Iterator[int] = numbers) -> float:
            with stack(setting.folder / f"{kind}{next(numbers)}") as made:
                return _backfill_mb_s(made, kind, options, behind_s=2.0 if setting.quick else 5.0)

        yield Case(
            "catchup",
            f"a cold {kind} worker stores {LIVE.mb_s:g} MB/s and what was before, against that rate",
            "MB/s",
            ours,
            lambda: LIVE.mb_s,
            at_least(1.5),
            trials=1 if setting.quick else 3,
        )


def _backfill_mb_s(made: Stack, kind: str, options: tuple[str, ...], behind_s: float) -> float:
    """Return how fast the worker stores from its first record until it is less than half a second behind."""
    made.start_gateway()
    start_board(made, LIVE, None)
    behind = round(behind_s * LIVE.blocks_s)
    wait_until(lambda: journaled(made) >= behind, behind_s + _PATIENCE_S, "the journal fills")
    made.start_worker(kind, "--out", str(made.data / _OUT[kind]), *options)
    wait_until(lambda: _stored(made, kind) > 0, _PATIENCE_S, "the worker begins")
    began, first = time.perf_counter(), made.stored(kind)
    wait_until(
        lambda: journaled(made) - _stored(made, kind) < LIVE.blocks_s / 2, _PATIENCE_S, f"the {kind} worker catches up"
    )
    return (made.stored(kind) - first) * LIVE.block_bytes / 1e6 / (time.perf_counter() - began)


def _stored(made: Stack, kind: str) -> int:
    made.check()
    return made.stored(kind)
