"""The power fails after any system call: what was told durable is there, whatever the disk did with the rest."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.faults import journals, powerloss, sinks
from tests.faults.running import Victims, spread
from tests.faults.shim import COUNT, ERROR, EVERY, KILL, SYNC, Call, Rule, read_log

Check = Callable[[str, Path, int], None]

SEED = int(os.environ.get("DTOLBUS_POWER_SEED", "1"))
SOME = pytest.param(True, 2, id="before each sync")
ALL = pytest.param(False, 12, id="after every call", marks=pytest.mark.soak)


def check_journal(name: str, place: Path, least: int) -> None:
    journals.check(name, place, least, may_have_gaps=True)


TARGETS = [
    *(pytest.param("commit", "go_on", name, sinks.check, id=name) for name in sinks.SINKS),
    *(pytest.param("journal", "recover", name, check_journal, id=f"journal of {name}") for name in journals.JOURNALS),
]
every_target = pytest.mark.parametrize(("action", "after", "name", "check"), TARGETS)


def cut_power(
    name: str, check: Check, place: Path, root: Path, calls: Sequence[Call], at: Sequence[int], drawn: int
) -> int:
    """Check every state after these cuts; return how many there were."""
    number = 0
    for how, told, state in powerloss.states(root, calls, at, SEED, drawn):
        number += 1
        disk = place / "disk"
        powerloss.materialise(state, disk)
        try:
            check(name, disk, told)
        except BaseException as failure:
            near = [f"{call.letter} {call.a} {call.first[-60:]!r}" for call in calls[: int(how.split()[3].rstrip(","))]]
            failure.add_note(f"{name}: {how}, {told} told; DTOLBUS_POWER_SEED={SEED}; after {near[-5:]}")
            raise
        shutil.rmtree(disk)
    return number


@every_target
@pytest.mark.parametrize(("only_syncs", "drawn"), [SOME, ALL])
def test_power_fails(
    victims: Victims,
    place: Path,
    action: str,
    after: str,
    name: str,
    check: Check,
    only_syncs: bool,
    drawn: int,
) -> None:
    """In a life of a sink (opened, commits, finalize, closed, opened again) or of a run."""
    root, log = place / "life", place / "log"
    victims.do(action, name, root, log=log)
    victims.do(after, name, root, log=log)
    calls = list(read_log(log))
    at = [n for n in range(1, len(calls) + 1) if not only_syncs or n == len(calls) or calls[n].letter in "s!"]
    states = cut_power(name, check, place, root, calls, at, drawn)
    print(f"{name}: {states} states at {len(at)} of {len(calls)} calls")


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
    action: str,
    after: str,
    name: str,
    check: Check,
    kinds: int,
    kills: int | None,
    drawn: int,
) -> None:
    """Killed at a call, started again, and what was found then is told: so a power cut may not take it back."""
    total = victims.do(action, name, place / "count", Rule(COUNT, kinds)).seen[0]
    states = 0
    for kill in spread(range(total), kills):
        root, log = place / f"kill-{kill}", place / f"kill-{kill}.log"
        victims.do(action, name, root, Rule(KILL, kinds, kill), log=log, must_end=False)
        victims.do(after, name, root, log=log)
        calls = list(read_log(log))
        at = [number for number, call in enumerate(calls, 1) if call.letter == "!" and call.pid == calls[-1].pid]
        states += cut_power(name, check, place, root, calls, at, drawn)
    print(f"{name}: {states} states after {min(kills or total, total)} of {total} kills")


@every_target
@pytest.mark.parametrize(
    ("errors", "drawn"),
    [pytest.param(4, 1, id="some errors"), pytest.param(None, 5, id="every error", marks=pytest.mark.soak)],
)
def test_power_fails_after_a_failed_sync(
    victims: Victims,
    place: Path,
    action: str,
    after: str,
    name: str,
    check: Check,
    errors: int | None,
    drawn: int,
) -> None:
    """What a sync failed to make durable stays in doubt, although the next sync of the file succeeds."""
    total = victims.do(action, name, place / "count", Rule(COUNT, SYNC)).seen[0]
    states = 0
    for error in spread(range(total), errors):
        root, log = place / f"error-{error}", place / f"error-{error}.log"
        victims.do(action, name, root, Rule(ERROR, SYNC, error, 1, 5), log=log)
        calls = list(read_log(log))
        at = [number for number, call in enumerate(calls, 1) if call.letter == "!"]
        states += cut_power(name, check, place, root, calls, at, drawn)
    print(f"{name}: {states} states after {min(errors or total, total)} of {total} failed syncs")
