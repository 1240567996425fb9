"""A worker whose database is away for a minute under 20 MB/s: how its memory grows, and that all is stored then."""

import time
from collections.abc import Iterator

from tests.faults.own_postgres import own_postgres

from bench.acquiring import Stream, journaled, start_board
from bench.measuring import Case, at_most
from bench.registry import Setting
from bench.stack import Stack, rss, stack, wait_until

LIVE = Stream(1_250_000.0, channels=8, block_samples=62_500)
BEFORE_S, AWAY_S = 3.0, 60.0
GROWTH_MIB = 256.0
_PATIENCE_S = 180.0
_LOOK_S = 0.2


def cases(setting: Setting) -> Iterator[Case]:
    away_s = 3.0 if setting.quick else AWAY_S

    def grown_mib() -> float:
        with stack(setting.folder / "data") as made:
            return _grown_mib(made, away_s)

    yield Case(
        "memory",
        f"RSS of a Postgres worker, its database away for {away_s:g} s at {LIVE.mb_s:g} MB/s, over before; all stored",
        "MiB",
        grown_mib,
        None,
        at_most(GROWTH_MIB),
        trials=1,
    )


def _grown_mib(made: Stack, away_s: float) -> float:
    """Return the most that the worker's memory grew. Raises RuntimeError where not everything is stored."""
    blocks = round((BEFORE_S + away_s) * LIVE.blocks_s)
    with own_postgres() as server:
        made.start_gateway()
        made.start_worker("postgres", env={"DTOLBUS_DSN": server.dsn})
        start_board(made, LIVE, BEFORE_S + away_s)
        worker = made.children["postgres"].pid
        wait_until(lambda: made.stored("postgres") >= LIVE.blocks_s, _PATIENCE_S, "the worker stores")
        before = most = rss(worker)
        server.kill()
        end = time.monotonic() + away_s
        while time.monotonic() < end:
            most = max(most, rss(worker))
            time.sleep(_LOOK_S)
        server.restart()
        end = time.monotonic() + _PATIENCE_S
        while made.stored("postgres") < blocks:
            made.check()
            most = max(most, rss(worker))
            if time.monotonic() > end:
                raise RuntimeError(f"{made.stored('postgres')} of {journaled(made)} blocks are stored")
            time.sleep(_LOOK_S)
    return (most - before) / 2**20
