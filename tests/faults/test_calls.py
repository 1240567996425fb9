"""Killed before every system call, torn in every write, cut short, refused by the disk: nothing told is lost."""

import errno
import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from tests.faults import journals, sinks
from tests.faults.running import Victims, spread
from tests.faults.shim import COUNT, ERROR, EVERY, FOR_EVER, KILL, NAME, OPEN, SHORT, SYNC, TORN, WRITE, Rule

Check = Callable[[str, Path, int], None]

TARGETS = [
    *(pytest.param("commit", name, sinks.check, id=name) for name in sinks.SINKS),
    *(pytest.param("journal", name, journals.check, id=f"journal of {name}") for name in journals.JOURNALS),
]
MOST = 8
"""Points tried of a kind in the short version."""
FEW = 3
"""The same, of errors: each is tried with two sets of calls, in two phases."""

PRUNE = pytest.param("prune", "blocks", journals.check_pruned, id="prune")
some_or_all = pytest.mark.parametrize(
    "most", [pytest.param(MOST, id="some calls"), pytest.param(None, id="every call", marks=pytest.mark.soak)]
)
every_target = pytest.mark.parametrize(("action", "name", "check"), TARGETS)


class Tries:
    """Fresh places for one action, and how many calls of which kinds it makes."""

    def __init__(self, victims: Victims, action: str, name: str, place: Path, most: int | None) -> None:
        self._victims, self._action, self._name, self._path, self._most = victims, action, name, place, most
        self._numbers = itertools.count()

    def points(self, kinds: int, *, early: bool) -> Iterator[int]:
        """Yield the numbers of the calls to try, and report how many of them there are."""
        counted = self._victims.do(self._action, self._name, self._new_place(), Rule(COUNT, kinds), early=early)
        assert counted.seen[0] > 1
        chosen = spread(range(counted.seen[0]), self._most)
        print(f"{self._name}: {len(chosen)} of {counted.seen[0]} calls of kinds {kinds:#x}, early: {early}")
        yield from chosen

    def hit(self, *rules: Rule, early: bool, check: Check) -> int:
        """Do it under these rules, and check what it left; return the signal that ended it."""
        place = self._new_place()
        try:
            outcome = self._victims.do(self._action, self._name, place, *rules, early=early, must_end=False)
            check(self._name, place, outcome.told)
        except BaseException as failure:
            failure.add_note(f"{self._name}, early: {early}: {'; '.join(map(str, rules))}")
            raise
        return outcome.signal

    def _new_place(self) -> Path:
        return self._path / f"try-{next(self._numbers)}"


@pytest.mark.parametrize(("action", "name", "check"), [*TARGETS, PRUNE])
@pytest.mark.parametrize(
    ("kinds", "early", "most"),
    [
        pytest.param(NAME, True, 12, id="that changes names"),
        pytest.param(EVERY, False, MOST, id="some calls of later commits"),
        pytest.param(EVERY, True, None, id="every call", marks=pytest.mark.soak),
    ],
)
def test_killed_before_a_call(
    victims: Victims, place: Path, action: str, name: str, check: Check, kinds: int, early: bool, most: int | None
) -> None:
    tries = Tries(victims, action, name, place, most)
    ended = [tries.hit(Rule(KILL, kinds, at), early=early, check=check) for at in tries.points(kinds, early=early)]
    assert set(ended) <= {0, signal.SIGKILL}
    # group commit makes some calls more or fewer, as time passes: the last points may lie beyond the end
    assert ended.count(signal.SIGKILL) >= len(ended) - max(3, len(ended) // 10)


@some_or_all
@every_target
def test_torn_in_a_write(victims: Victims, place: Path, action: str, name: str, check: Check, most: int | None) -> None:
    tries = Tries(victims, action, name, place, most)
    ended = [tries.hit(Rule(TORN, WRITE, at), early=True, check=check) for at in tries.points(WRITE, early=True)]
    assert signal.SIGKILL in ended


@every_target
def test_every_write_is_short(victims: Victims, place: Path, action: str, name: str, check: Check) -> None:
    tries = Tries(victims, action, name, place, None)
    rule = Rule(SHORT, WRITE, 0, FOR_EVER)
    assert victims.do(action, name, place / "short", rule, early=True).told == _all_of(action)
    assert tries.hit(rule, early=True, check=check) == 0


def refusals() -> Iterator[ParameterSet]:
    """Each error once, twice and for ever, at every call; in the short version two of them at some."""
    short = {(errno.EIO, 2), (errno.ENOSPC, FOR_EVER)}
    for code, (count, often) in itertools.product(
        (errno.EIO, errno.ENOSPC), ((1, "once"), (2, "twice"), (FOR_EVER, "for ever"))
    ):
        name = f"{errno.errorcode[code]} {often}"
        if (code, count) in short:
            yield pytest.param(code, count, FEW, id=f"{name}, some calls")
        yield pytest.param(code, count, None, id=f"{name}, every call", marks=pytest.mark.soak)


@every_target
@pytest.mark.parametrize(("code", "count", "most"), [*refusals()])
def test_refused_by_the_disk(
    victims: Victims, place: Path, action: str, name: str, check: Check, code: int, count: int, most: int | None
) -> None:
    """A sink's batch goes in once the disk is sound again; a journal keeps what it told, and says so if it stops."""
    tries = Tries(victims, action, name, place, most)
    for kinds, early in itertools.product((WRITE | SYNC, NAME | OPEN), (True, False)):
        for at in tries.points(kinds, early=early):
            assert tries.hit(Rule(ERROR, kinds, at, count, code), early=early, check=check) == 0


@pytest.mark.parametrize(
    "name", ["csv", *(pytest.param(name, marks=pytest.mark.soak) for name in ("parquet", "sqlite", "jsonl"))]
)
def test_killed_while_a_commit_that_failed_is_tried_again(victims: Victims, place: Path, name: str) -> None:
    """A sync of the later commits fails, and the process is killed before one of the writes."""
    tries = Tries(victims, "commit", name, place, None)
    syncs, writes = list(tries.points(SYNC, early=False)), list(tries.points(WRITE, early=False))
    for error, kill in itertools.product(syncs, [*writes, len(writes), len(writes) + 1]):
        rules = (Rule(ERROR, SYNC, error, 1, errno.EIO), Rule(KILL, WRITE, kill))
        tries.hit(*rules, early=False, check=sinks.check)


def _all_of(action: str) -> int:
    return sinks.BEFORE_REOPEN if action == "commit" else journals.RECORDS
