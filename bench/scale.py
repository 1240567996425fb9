"""Codes to volts, against a copy of the result."""

from collections.abc import Iterator

import numpy as np

from bench.items import LARGE, block, codes, run_info
from bench.measuring import Case, Repeated, at_least
from bench.registry import Setting


def cases(setting: Setting) -> Iterator[Case]:
    run = run_info(LARGE)
    found = block(run, 0, codes(LARGE))
    volts = found.scaled()
    copy = np.empty_like(volts)

    def ours(times: int) -> None:
        for _ in range(times):
            found.scaled()

    def reference(times: int) -> None:
        for _ in range(times):
            np.copyto(copy, volts)

    megabytes = volts.nbytes / 1e6
    yield Case(
        "scale",
        "8 × 12500 codes to volts, against memcpy of the volts",
        "MB/s",
        Repeated(ours, megabytes, setting.plan.trial_s),
        Repeated(reference, megabytes, setting.plan.trial_s),
        at_least(0.30),
    )
