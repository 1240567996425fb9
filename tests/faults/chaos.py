"""A seeded plan of faults for a running `dtolbus up`, and the thread that carries it out."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from types import TracebackType
from typing import NamedTuple, Self

from tests.e2e.stacks import KILL, Up
from tests.faults.own_postgres import OwnPostgres

SINKS = ("parquet", "sqlite", "csv", "jsonl", "postgres")
PARTS = ("gateway", "acquisition-sim0", "acquisition-sim1", *(f"sink-{kind}" for kind in SINKS))
DATABASE = "database"


class Fault(NamedTuple):
    """What happens when; the times are the plan's only sleeps, and the faults themselves."""

    at_s: float
    kind: str
    part: str


def planned(seed: int, seconds: float) -> list[Fault]:
    """Return kills and stops (each with its going on) of random parts; the database dies, stands still, is restarted.

    Every part is killed, and every part is stopped, before any is again.
    """
    rng = random.Random(seed)
    freeze_s = rng.uniform(0.4, 0.5) * seconds
    faults = [
        Fault(rng.uniform(0.1, 0.3) * seconds, "kill", DATABASE),
        Fault(freeze_s, "stop", DATABASE),
        Fault(freeze_s + min(2.0, 0.1 * seconds), "go on", DATABASE),
        Fault(rng.uniform(0.6, 0.8) * seconds, "restart", DATABASE),
    ]
    due: list[tuple[str, str]] = []
    at_s = rng.uniform(0.1, 0.6)
    while at_s < seconds:
        due = due or rng.sample([(kind, part) for kind in ("kill", "stop") for part in PARTS], 2 * len(PARTS))
        kind, part = due.pop()
        faults.append(Fault(at_s, kind, part))
        if kind == "stop":
            faults.append(Fault(at_s + rng.uniform(0.2, 2.0), "go on", part))
        at_s += rng.uniform(0.1, 0.9)
    return sorted(faults)


class Chaos:
    """Carries out a plan on a thread; at the end of the `with` block every stopped process goes on."""

    def __init__(self, up: Up, plan: list[Fault], database: OwnPostgres) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        """By kind and part."""
        self.failure: BaseException | None = None
        self._up, self._plan, self._database = up, plan, database
        self._stopped: dict[str, list[int]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        self._database.thaw()
        for part in list(self._stopped):
            self._go_on(part)

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            for fault in self._plan:
                if self._end.wait(max(0.0, begun + fault.at_s - time.monotonic())):
                    return
                self._carry_out(fault)
        except BaseException as failure:
            self.failure = failure

    def _carry_out(self, fault: Fault) -> None:
        if fault.part == DATABASE:
            self._harm_database(fault.kind)
            self.done[fault.kind, fault.part] += 1
        elif fault.kind == "go on":
            self._go_on(fault.part)
        elif (pid := self._up.pids().get(fault.part)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, KILL if fault.kind == "kill" else signal.SIGSTOP)
                self.done[fault.kind, fault.part] += 1
                if fault.kind == "stop":
                    self._stopped.setdefault(fault.part, []).append(pid)

    def _harm_database(self, kind: str) -> None:
        match kind:
            case "kill":
                self._database.kill()
                self._database.restart()
            case "restart":
                self._database.stop("fast")
                self._database.restart()
            case "stop":
                self._database.freeze()
            case "go on":
                self._database.thaw()

    def _go_on(self, part: str) -> None:
        for pid in self._stopped.pop(part, []):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
