"""How long an append may take while the journal is synced every 20 ms, against appends without any sync."""

import gc
import time
from collections.abc import Iterator
from itertools import count

from bench.items import SMALL, block, codes, run_info
from bench.journal import writing
from bench.measuring import Case, Trial, at_most
from bench.registry import Setting

RATE_MB_S = 40.0
"""The fastest board's: appends come at its pace, for without a pace it is the disk that is measured."""


def cases(setting: Setting) -> Iterator[Case]:
    seconds = 0.3 if setting.quick else 2.0
    run = run_info(SMALL)
    data = codes(SMALL)
    made = [block(run, index, data) for index in range(round(seconds * RATE_MB_S * 1e6 / data.nbytes))]
    numbers = count()

    def appends(synced: bool) -> Trial:
        def trial() -> float:
            took_ms = []
            with writing(setting.folder / str(next(numbers)), run, synced=synced) as writer:
                gc.collect()
                began = time.perf_counter()
                for place, one in enumerate(made):
                    ahead_s = began + place / len(made) * seconds - time.perf_counter()
                    if ahead_s > 0.0005:
                        time.sleep(ahead_s)
                    asked = time.perf_counter()
                    writer.append(one)
                    took_ms.append((time.perf_counter() - asked) * 1e3)
            return sorted(took_ms)[int(0.999 * len(took_ms))]

        return trial

    yield Case(
        "journal-sync",
        f"p99.9 of an append of 16 kB at {RATE_MB_S:g} MB/s, sync every 20 ms, against none",
        "ms",
        appends(synced=True),
        appends(synced=False),
        at_most(3),
        trials=2 if setting.quick else 5,
    )
