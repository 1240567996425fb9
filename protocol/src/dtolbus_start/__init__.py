"""Where the scripts of all three distributions begin: Ctrl-C ends one in order also while it loads the rest.

It stands outside the packages, whose commands load numpy and more; here nothing is loaded.
"""

import os
import signal
import sys
from functools import partial
from importlib import import_module
from types import FrameType
from typing import NoReturn

HEALTH = "health"
"""The command that every command line has."""


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Say so and end: an exception would go astray in the midst of an import."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    try:
        os.write(2, f"{name}: interrupted\n".encode(errors="replace"))
    finally:
        os._exit(130)


def loaded() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again: a command begins, and may have something to put in order."""
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _ask_health() -> object:
    """Ask the process that runs how it is: what a container calls every few seconds must cost little."""
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    return import_module("dtolbus_start.health").main(sys.argv[2:], name)


def _run(place: str) -> object:
    """Load a command line, `module:name`, and run it; `health` loads nothing of it."""
    if sys.argv[1:2] == [HEALTH]:
        return _ask_health()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, and stays so
        signal.signal(signal.SIGINT, _interrupted)
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)()


main = partial(_run, "dtolbus.cli:main")
producer = partial(_run, "dtolbus_producer.cli:producer")
gateway = partial(_run, "dtolbus_producer.cli:gateway")
parquet = partial(_run, "dtolbus_workers.cli:parquet")
sqlite = partial(_run, "dtolbus_workers.cli:sqlite")
postgres = partial(_run, "dtolbus_workers.cli:postgres")
csv = partial(_run, "dtolbus_workers.cli:csv")
jsonl = partial(_run, "dtolbus_workers.cli:jsonl")
