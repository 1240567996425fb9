"""The power fails after any system call: what was told durable is there, whatever the disk did with the rest."""

import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.faults import journals, powerloss, sinks
from tests.faults.powerloss import Disk
from tests.faults.running import Victims, spread
from tests.faults.shim import COUNT, ERROR, EVERY, KILL, SYNC, Call, Rule, read_log


class Target(NamedTuple):
    """What is written, and what must hold of it."""

    name: str
    first: str
    """Its first life's action in victims.py, then its second's."""
    second: str
    told: Callable[[str, Disk], int]
    check: Callable[[str, Path, int], None]


SEED = int(os.environ.get("DTOLBUS_POWER_SEED", "1"))
SOME = pytest.param(True, 2, id="before each sync")
ALL = pytest.param(False, 12, id="after every call", marks=pytest.mark.soak)


def check_journal(name: str, place: Path, least: int) -> None:
    journals.check(name, place, least, may_have_gaps=True)


SINKS = [pytest.param(Target(name, "commit", "go_on", sinks.told, sinks.check), id=name) for name in sinks.SINKS]
JOURNALS = [
    pytest.param(Target(name, "journal", "recover", journals.told, check_journal), id=f"journal of {name}")
    for name in journals.JOURNALS
]
PRUNES = [pytest.param(Target("blocks", "prune", "prune", journals.marked, journals.check_pruned), id="prune")]
every_target = pytest.mark.parametrize("target", [*SINKS, *JOURNALS])


def cut_power(target: Target, place: Path, root: Path, calls: Sequence[Call], at: Sequence[int], drawn: int) -> int:
    """Check every state after these cuts; return how many there were."""
    number = 0
    disk = place / "disk"
    told = functools.partial(target.told, target.name)
    for after, how, known, state in powerloss.states(Disk(root), calls, at, told, SEED, drawn):
        number += 1
        powerloss.materialise(state, disk)
        try:
            target.check(target.name, disk, known)
        except BaseException as failure:
            near = [f"{call.letter} {call.a} {call.first[-60:]!r}" for call in calls[max(0, after - 5) : after]]
            failure.add_note(f"{how}, after call {after}, {known} told; DTOLBUS_POWER_SEED={SEED}; last calls {near}")
            raise
        shutil.rmtree(disk)
    return number


@pytest.mark.parametrize("target", [*SINKS, *JOURNALS, *PRUNES])
@pytest.mark.parametrize(("only_syncs", "drawn"), [SOME, ALL])
def test_power_fails(victims: Victims, place: Path, target: Target, only_syncs: bool, drawn: int) -> None:
    """In a life of a sink (opened, commits, finalize, closed, opened again), of a run, or of a run that is pruned."""
    root, log = place / "life", place / "log"
    victims.do(target.first, target.name, root, log=log)
    if target.second != target.first:
        victims.do(target.second, target.name, root, log=log)
    calls = list(read_log(log))
    at = [n for n in range(1, len(calls) + 1) if not only_syncs or n == len(calls) or calls[n].letter in "s!"]
    states = cut_power(target, place, root, calls, at, drawn)
    print(f"{target.name}: {states} states at {len(at)} of {len(calls)} calls")


@every_target
@pytest.mark.parametrize(
    ("kinds", "kills", "drawn"),
    [
        pytest.param(SYNC, 8, 0, id="before some syncs"),
        pytest.param(EVERY, None, 5, id="before every call", marks=pytest.mark.soak),
    ],
)
def test_power_fails_after_a_kill(
    victims: Victims,
    place: Path,
    target: Target,
    kinds: int,
    kills: int | None,
    drawn: int,
) -> None:
    """Killed at a call, started again, and what was found then is told: so a power cut may not take it back."""
    total = victims.do(target.first, target.name, place / "count", Rule(COUNT, kinds)).seen[0]
    states = 0
    for kill in spread(range(total), kills):
        root, log = place / f"kill-{kill}", place / f"kill-{kill}.log"
        victims.do(target.first, target.name, root, Rule(KILL, kinds, kill), log=log, must_end=False)
        victims.do(target.second, target.name, root, log=log)
        calls = list(read_log(log))
        at = [number for number, call in enumerate(calls, 1) if call.letter == "!" and call.pid == calls[-1].pid]
        states += cut_power(target, place, root, calls, at, drawn)
    print(f"{target.name}: {states} states after {min(kills or total, total)} of {total} kills")


@every_target
@pytest.mark.parametrize(
    ("errors", "drawn"),
    [pytest.param(4, 1, id="some errors"), pytest.param(None, 5, id="every error", marks=pytest.mark.soak)],
)
def test_power_fails_after_a_failed_sync(
    victims: Victims,
    place: Path,
    target: Target,
    errors: int | None,
    drawn: int,
) -> None:
    """What a sync failed to make durable stays in doubt, although the next sync of the file succeeds."""
    total = victims.do(target.first, target.name, place / "count", Rule(COUNT, SYNC)).seen[0]
    states = 0
    for error in spread(range(total), errors):
        root, log = place / f"error-{error}", place / f"error-{error}.log"
        victims.do(target.first, target.name, root, Rule(ERROR, SYNC, error, 1, 5), log=log)
        calls = list(read_log(log))
        at = [number for number, call in enumerate(calls, 1) if call.letter == "!"]
        states += cut_power(target, place, root, calls, at, drawn)
    print(f"{target.name}: {states} states after {min(errors or total, total)} of {total} failed syncs")
