"""The power fails after any system call: what was told durable is there, whatever the disk did with the rest."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.faults import journals, powerloss, sinks
from tests.faults.running import Victims, spread
from tests.faults.shim import COUNT, ERROR, EVERY, KILL, SYNC, Call, Rule, read_log

Check = Callable[[str, Path, int], None]

SEED = int(os.environ.get("DTOLBUS_POWER_SEED", "1"))
FEW = pytest.param(25, 2, id="some cuts")
ALL = pytest.param(None, 40, id="every cut", marks=pytest.mark.soak)
EVERY_FAULT = pytest.param(None, 5, id="every one", marks=pytest.mark.soak)


def check_journal(name: str, place: Path, least: int) -> None:
    journals.check(name, place, least, may_have_gaps=True)


TARGETS = [
    *(pytest.param("commit", "go_on", name, sinks.check, id=name) for name in sinks.SINKS),
    *(pytest.param("journal", "recover", name, check_journal, id=f"journal of {name}") for name in journals.JOURNALS),
]
every_target = pytest.mark.parametrize(("action", "after", "name", "check"), TARGETS)


def cut_power(
    name: str, check: Check, tmp_path: Path, root: Path, calls: Sequence[Call], at: Sequence[int], drawn: int
) -> int:
    """Check every state after these cuts; return how many there were."""
    number = 0
    for how, told, state in powerloss.states(root, calls, at, SEED, drawn):
        place = tmp_path / f"{root.name}-state-{number}"
        number += 1
        powerloss.materialise(state, place)
        try:
            check(name, place, told)
        except BaseException as failure:
            near = [f"{call.letter} {call.a} {call.first[-60:]!r}" for call in calls[: int(how.split()[3].rstrip(","))]]
            failure.add_note(f"{name}: {how}, {told} told; DTOLBUS_POWER_SEED={SEED}; {place}; after {near[-5:]}")
            raise
    return number


@every_target
@pytest.mark.parametrize(("cuts", "drawn"), [FEW, ALL])
def test_power_fails(
    victims: Victims,
    tmp_path: Path,
    action: str,
    after: str,
    name: str,
    check: Check,
    cuts: int | None,
    drawn: int,
) -> None:
    """In a life of a sink (opened, commits, finalize, closed, opened again) or of a run."""
    root, log = tmp_path / "life", tmp_path / "log"
    victims.do(action, name, root, log=log)
    victims.do(after, name, root, log=log)
    calls = list(read_log(log))
    at = spread(range(1, len(calls) + 1), cuts)
    states = cut_power(name, check, tmp_path, root, calls, at, drawn)
    print(f"{name}: {states} states at {len(at)} of {len(calls)} calls")


@every_target
@pytest.mark.parametrize(("kills", "drawn"), [pytest.param(6, 0, id="some kills"), EVERY_FAULT])
def test_power_fails_after_a_kill(
    victims: Victims,
    tmp_path: Path,
    action: str,
    after: str,
    name: str,
    check: Check,
    kills: int | None,
    drawn: int,
) -> None:
    """Killed at a call, started again, and what was found then is told: so a power cut may not take it back."""
    total = victims.do(action, name, tmp_path / "count", Rule(COUNT, EVERY)).seen[0]
    states = 0
    for kill in spread(range(total), kills):
        root, log = tmp_path / f"kill-{kill}", tmp_path / f"kill-{kill}.log"
        victims.do(action, name, root, Rule(KILL, EVERY, kill), log=log, must_end=False)
        victims.do(after, name, root, log=log)
        calls = list(read_log(log))
        at = [number for number, call in enumerate(calls, 1) if call.letter == "!" and call.pid == calls[-1].pid]
        states += cut_power(name, check, tmp_path, root, calls, at, drawn)
    print(f"{name}: {states} states after {min(kills or total, total)} of {total} kills")


@every_target
@pytest.mark.parametrize(("errors", "drawn"), [pytest.param(4, 1, id="some errors"), EVERY_FAULT])
def test_power_fails_after_a_failed_sync(
    victims: Victims,
    tmp_path: Path,
    action: str,
    after: str,
    name: str,
    check: Check,
    errors: int | None,
    drawn: int,
) -> None:
    """What a sync failed to make durable stays in doubt, although the next sync of the file succeeds."""
    total = victims.do(action, name, tmp_path / "count", Rule(COUNT, SYNC)).seen[0]
    states = 0
    for error in spread(range(total), errors):
        root, log = tmp_path / f"error-{error}", tmp_path / f"error-{error}.log"
        victims.do(action, name, root, Rule(ERROR, SYNC, error, 1, 5), log=log)
        calls = list(read_log(log))
        at = [number for number, call in enumerate(calls, 1) if call.letter == "!"]
        states += cut_power(name, check, tmp_path, root, calls, at, drawn)
    print(f"{name}: {states} states after {min(errors or total, total)} of {total} failed syncs")
