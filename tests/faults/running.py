"""Giving jobs to `tests.faults.victims`, and choosing which of many points are tried."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from tests.faults.shim import Rule
from tests.faults.victims import Job, Outcome

ROOT = Path(__file__).parents[2]

T = TypeVar("T")


class Victims:
    """The process under the shim; ended when the `with` block is left."""

    def __init__(self, library: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victims"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def do(
        self,
        action: str,
        what: str,
        place: Path,
        *rules: Rule,
        early: bool = False,
        log: Path | None = None,
        must_end: bool = True,
    ) -> Outcome:
        """Have a child do it below the place, made where there is none; return what became of it.

        A child that fails by an error fails the test, and so does one that is killed where it `must_end`.
        """
        place.mkdir(exist_ok=True)
        job = Job(action, what, str(place), rules, early, None if log is None else str(log))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(job).decode() + "\n")
        self._process.stdin.flush()
        outcome = msgspec.json.decode(self._process.stdout.readline(), type=Outcome)
        assert not outcome.error, outcome.error
        assert not (must_end and outcome.signal), f"{action} {what} ended by signal {outcome.signal}"
        return outcome


def spread(points: Sequence[T], most: int | None) -> Sequence[T]:
    """Return at most so many of the points, evenly spaced, the last one among them; None: all."""
    if most is None or len(points) <= most:
        return points
    return [points[round((k + 1) * len(points) / most) - 1] for k in range(most)]
