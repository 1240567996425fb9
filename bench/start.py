"""How long a command takes to begin, against importing what it cannot do without."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measuring import Case, Trial, at_most
from bench.registry import Setting


def cases(setting: Setting) -> Iterator[Case]:
    script = Path(sys.executable).with_name("dtolbus-sqlite")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "dtolbus_workers", "sqlite"]
    yield Case(
        "start",
        "dtolbus-sqlite --help, against import click, zmq, numpy, msgspec",
        "s",
        _seconds_of([*command, "--help"]),
        _seconds_of([sys.executable, "-c", "import click, zmq, numpy, msgspec"]),
        at_most(1.5),
        trials=3 if setting.quick else 15,
    )


def _seconds_of(command: list[str]) -> Trial:
    def trial() -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # a list of arguments, no shell
        return time.perf_counter() - began

    return trial
