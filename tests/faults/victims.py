"""What is done to files while the shim fails, kills or records it: `python -m tests.faults.victims`, under LD_PRELOAD.

One process imports everything once, then forks a child for each job that it reads from its input, a line each; the
answer is a line too. What a child says it has acknowledged counts even if it is killed right after.
"""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from tests.faults import journals, shim, sinks

from dtolbus.errors import DtolSinkWriteError
from dtolbus_workers import parquet_folder  # noqa: F401  # Arrow is imported before the fork
from dtolbus_workers.destination import Destination
from dtolbus_workers.specimens import make_batch


class Job(msgspec.Struct, frozen=True):
    """What a child is to do."""

    action: str
    """One of ACTIONS."""
    what: str
    """A sink's name, or a journal's."""
    place: str
    """The folder below which calls count. It is there."""
    rules: tuple[shim.Rule, ...] = ()
    is_armed_early: bool = False
    """Whether the rules hold from before the open, and not only for the last commits."""
    log: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of a child."""

    signal: int
    """That ended it; 0: it came to its end."""
    told: int
    """The newest number that it had acknowledged."""
    seen: tuple[int, ...]
    """How many calls each rule has seen; of a child that was killed: nothing."""
    error: str
    """The traceback of what it failed with."""


class Child(NamedTuple):
    """What an action works with."""

    job: Job
    shim: shim.Shim
    say: Callable[[str], None]

    def arm(self, *, early: bool) -> None:
        """Set the rules, if it is time."""
        if early == self.job.is_armed_early:
            for rule in self.job.rules:
                self.shim.add(rule)

    def acknowledge(self, number: int) -> None:
        """Tell the parent, and the log, that everything below this number is durable."""
        self.shim.mark(number)
        self.say(f"told {number}")


def commit(child: Child) -> None:
    """Commit 3 records, and again 1 and 2; a commit that the disk refuses is tried again, at last on a sound disk."""
    destination = sinks.SINKS[child.job.what]().make(Path(child.job.place))

    async def go() -> None:
        child.arm(early=True)
        await _opened(child, destination)
        await _committed(child, destination, 0, 3)
        child.arm(early=False)
        await _committed(child, destination, 3, 1)
        await _committed(child, destination, 4, 2)
        await destination.finalize(sinks.RUN)
        await destination.close()

    asyncio.run(go())


def go_on(child: Child) -> None:
    """Open what is there, tell its position, and commit up to record 8."""
    destination = sinks.SINKS[child.job.what]().make(Path(child.job.place))

    async def go() -> None:
        child.arm(early=True)
        positions = await destination.open()
        reached = positions[sinks.RUN.run_id].next if positions else 0
        child.acknowledge(reached)
        child.arm(early=False)
        await _committed(child, destination, reached, sinks.RECORDS - reached)
        await destination.close()

    asyncio.run(go())


async def _opened(child: Child, destination: Destination) -> None:
    try:
        await destination.open()
    except sinks.CANNOT_OPEN:
        child.shim.heal()
        await destination.open()


async def _committed(child: Child, destination: Destination, start: int, count: int) -> None:
    for attempt in range(3):
        try:
            await destination.commit(make_batch(sinks.RUN, start, count))
            break
        except DtolSinkWriteError:
            if attempt == 1:
                child.shim.heal()
            if attempt == 2:
                raise
    child.acknowledge(start + count)


def journal(child: Child) -> None:
    """Write a run's journal, telling its head whenever that has grown."""
    child.arm(early=True)
    child.arm(early=False)
    journals.write(Path(child.job.place), journals.JOURNALS[child.job.what], child.acknowledge)


def recover(child: Child) -> None:
    """Recover what a journal's writer left; all that is readable then is told."""
    child.arm(early=True)
    child.arm(early=False)
    child.acknowledge(journals.recovered(Path(child.job.place), journals.JOURNALS[child.job.what]))


def prune(child: Child) -> None:
    """Write a run, and delete what of it a sink has; the number told is 1 once the run is over, then 2."""
    place, kind = Path(child.job.place), journals.JOURNALS[child.job.what]
    child.arm(early=True)
    journals.write(place, kind, lambda _: None)
    child.acknowledge(1)
    child.arm(early=False)
    journals.prune(place, kind)
    child.acknowledge(2)


ACTIONS: dict[str, Callable[[Child], None]] = {f.__name__: f for f in (commit, go_on, journal, recover, prune)}


def _live(job: Job, out: int) -> None:
    """Be the child."""

    def say(line: str) -> None:
        os.write(out, f"{line}\n".encode())

    own = shim.Shim()
    own.begin(Path(job.place), None if job.log is None else Path(job.log))
    try:
        ACTIONS[job.action](Child(job, own, say))
        say("seen " + json.dumps([own.seen(number) for number in range(len(job.rules))]))
        code = 0
    except BaseException:
        say("error " + json.dumps(traceback.format_exc()))
        code = 1
    os._exit(code)


def _answer(job: Job) -> Outcome:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _live(job, theirs)
    os.close(theirs)
    with os.fdopen(ours) as lines:
        said = [line.rstrip("\n").split(" ", 1) for line in lines]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    by_kind = dict(said)
    return Outcome(
        max(0, -code),
        int(by_kind.get("told", 0)),
        tuple(json.loads(by_kind.get("seen", "[]"))),
        json.loads(by_kind.get("error", '""')),
    )


def main() -> None:
    """Serve jobs until the input ends."""
    for line in sys.stdin:
        outcome = _answer(msgspec.json.decode(line, type=Job))
        sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
