"""The table of guards keeps up with the code: `mutants.py`, which takes them out one by one, is too slow for that."""

import pytest
from tests.faults.mutants import ROOT, Guard, main, read_guards

GUARDS = read_guards()
SHARED_TESTS = (ROOT / "workers/src/dtolbus_workers/testing.py").read_text()
"""What the tests of all destinations inherit."""


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_each_guard_stands_where_the_table_says_and_its_tests_exist(guard: Guard) -> None:
    for change in guard.change:
        assert (ROOT / change.file).read_text().count(change.old) == 1, change
        assert change.new != change.old
    for test in guard.tests:
        path, *names = test.partition("[")[0].split("::")
        text = (ROOT / path).read_text() + SHARED_TESTS
        assert [name for name in names if name not in text] == []


def test_help_tells_what_the_mutants_do_and_runs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Takes out one guard at a time" in capsys.readouterr().out
