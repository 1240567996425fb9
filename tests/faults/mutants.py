"""Takes out one guard at a time, and shows that a test notices: `uv run python tests/faults/mutants.py [NAME…]`.

Each mutant is an exact replacement in a temporary copy of this tree; only the tests named with it run against the copy.
Exit code 1 where one survives. Anything that makes a verdict worthless ends it: a text that is not found exactly once,
a module that is not the copy's, tests that fail without the mutant or cannot be run with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = ("protocol/src", "producer/src", "workers/src")
TIMEOUT_S = 240.0

JOURNAL = "producer/src/dtolbus_producer/journal.py"
SEGMENT = "producer/src/dtolbus_producer/segment.py"
FILES = "protocol/src/dtolbus/files.py"
FRAMING = "protocol/src/dtolbus/framing.py"
SEQUENCER = "protocol/src/dtolbus/sequencer.py"
SQLITE = "workers/src/dtolbus_workers/sqlite_destination.py"
PARTS = "workers/src/dtolbus_workers/parquet_parts.py"
PARQUET = "workers/src/dtolbus_workers/parquet_folder.py"
TEXT_FILE = "workers/src/dtolbus_workers/text_file.py"
TEXT = "workers/src/dtolbus_workers/text_folder.py"
POSTGRES = "workers/src/dtolbus_workers/postgres_destination.py"


class Change(NamedTuple):
    """An exact text in a file, and what stands there instead."""

    path: str
    old: str
    new: str


class Mutant(NamedTuple):
    """A guard taken out, and the tests that must notice."""

    changes: tuple[Change, ...]
    tests: tuple[str, ...]


def _one(path: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant((Change(path, old, new),), tests)


_HEAD_TEST = "tests/producer/test_journal.py::test_the_head_never_passes_what_was_synced"
_PART_TEST = (
    "tests/workers/test_parquet_destination.py::test_a_part_is_synced_before_it_is_published_and_its_folder_after"
)
_SQLITE_TESTS = "tests/workers/test_sqlite.py::TestSqliteSamples"
_PARQUET_TESTS = "tests/workers/test_parquet_destination.py::TestParquetDestination"
_TEXT_TESTS = "tests/workers/test_text.py::TestCsvSamples"
_POSTGRES_TESTS = "tests/workers/test_postgres_destination.py"
_UNCLEAR_TEST = f"{_POSTGRES_TESTS}::test_an_unclear_commit_that_happened_is_stored_once"
_WRONG, _SECOND = "test_a_wrong_position_is_refused", "test_a_second_opener_is_refused"

MUTANTS = {
    "journal-sync": _one(SEGMENT, "files.sync(self._fd)", "pass", _HEAD_TEST),
    "journal-head-first": _one(
        JOURNAL,
        "        failed: OSError | None = None\n",
        "        self._write_head(head)\n        failed: OSError | None = None\n",
        _HEAD_TEST,
    ),
    "parquet-sync": _one(
        PARTS, "        files.sync(fd)\n    except BaseException:", "    except BaseException:", _PART_TEST
    ),
    "parquet-sync-dir": _one(PARTS, "    files.sync_dir(final.parent)\n", "", _PART_TEST),
    "publish-replaces": _one(
        FILES,
        '    if os.name == "nt":\n        _retried(lambda: os.rename(temp, final))\n        return\n',
        "    os.replace(temp, final)\n    return\n",
        "tests/protocol/test_files.py::test_publishing_refuses_a_name_that_is_taken",
    ),
    "checksum": _one(
        FRAMING,
        "return header[end + len(_CHECKSUM) : -2] == digest.hexdigest().encode()",
        "return True",
        "tests/protocol/test_dtraw.py::test_a_flipped_bit_is_noticed_and_the_rest_is_read",
    ),
    "catch-up": _one(
        SEQUENCER,
        "if self._fetch is not None or not self._can_fetch:\n            return\n        missing",
        "if self._number >= 0:\n            return\n        missing",
        "tests/protocol/test_sequencer.py",
    ),
    "sqlite-compare-and-set": Mutant(  # it is made twice: read before, and in the UPDATE
        (
            Change(SQLITE, "if position != self._batch.from_index:", "if False:"),
            Change(
                SQLITE, "WHERE run_id = ? AND stream = ? AND next = ?", "WHERE run_id = ? AND stream = ? AND ? >= 0"
            ),
        ),
        (f"{_SQLITE_TESTS}::{_WRONG}",),
    ),
    "parquet-compare-and-set": _one(
        PARQUET, "if batch.from_index != run.position.next:", "if False:", f"{_PARQUET_TESTS}::{_WRONG}"
    ),
    "text-compare-and-set": _one(TEXT, "if batch.from_index != before.next:", "if False:", f"{_TEXT_TESTS}::{_WRONG}"),
    "postgres-compare-and-set": _one(
        POSTGRES,
        "if position != batch.from_index:",
        "if False:",
        f"{_POSTGRES_TESTS}::TestPostgresSamples::{_WRONG}",
        f"{_POSTGRES_TESTS}::test_a_position_moved_by_somebody_else_refuses_the_commit",
    ),
    "sqlite-lock": _one(
        SQLITE, 'f"{self._path}.lock"', 'f"{self._path}.lock{id(self)}"', f"{_SQLITE_TESTS}::{_SECOND}"
    ),
    "parquet-lock": _one(
        PARQUET, "FileLock(folder / LOCK,", 'FileLock(folder / f"{LOCK}{id(self)}",', f"{_PARQUET_TESTS}::{_SECOND}"
    ),
    "text-lock": _one(
        TEXT, "FileLock(folder / _LOCK,", 'FileLock(folder / f"{_LOCK}{id(self)}",', f"{_TEXT_TESTS}::{_SECOND}"
    ),
    "text-cut-back": Mutant(
        (
            Change(TEXT_FILE, "if os.fstat(fd).st_size > length:", "if False:"),
            Change(TEXT_FILE, "if path.stat().st_size > length:", "if False:"),
        ),
        (
            "tests/workers/test_text.py::TestBusFolder::test_a_torn_tail_is_cut_off_and_other_peoples_files_are_left",
            f"{_TEXT_TESTS}::test_killed_at_each_step_of_a_commit",
        ),
    ),
    "postgres-unclear-asked": _one(
        POSTGRES, "return bool(position == batch.to_index)", "return False", f"{_UNCLEAR_TEST}[True]"
    ),
    "postgres-unclear-known": _one(
        POSTGRES, "if self._is_unclear(batch) and position == batch.to_index:", "if False:", f"{_UNCLEAR_TEST}"
    ),
}


def main(names: list[str]) -> int:
    """Run the mutants of these names, or all; return the exit code."""
    if unknown := set(names) - set(MUTANTS):
        raise SystemExit(f"no mutant {min(unknown)!r}; there are {', '.join(MUTANTS)}")
    chosen = {name: MUTANTS[name] for name in names or MUTANTS}
    with tempfile.TemporaryDirectory(prefix="dtolbus-mutants-") as folder:
        tree = Path(folder) / "main"
        _copy(tree)
        _check_imported(tree, chosen)
        tests = sorted({test for mutant in chosen.values() for test in mutant.tests})
        if not _passes(tree, tests):
            raise SystemExit("the tests fail without a mutant: mend them first")
        survived = [name for name, mutant in chosen.items() if not _is_killed(tree, name, mutant)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} killed")
    return 1 if survived else 0


def _copy(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def _environment(tree: Path) -> dict[str, str]:
    # no bytecode: a change within a second and of equal length would otherwise run as it was
    paths = os.pathsep.join(str(tree / source) for source in SOURCES)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


def _check_imported(tree: Path, mutants: dict[str, Mutant]) -> None:
    """End unless each mutated module is imported from the copy."""
    for path in sorted({change.path for mutant in mutants.values() for change in mutant.changes}):
        module = path.split("/src/")[1].removesuffix(".py").replace("/", ".")
        code = f"import {module} as m; print(m.__file__)"
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=tree, env=_environment(tree), capture_output=True, text=True, check=True
        ).stdout.strip()
        if Path(found).resolve() != (tree / path).resolve():
            raise SystemExit(f"{module} is imported from {found}, not from the copy")


def _passes(tree: Path, tests: list[str]) -> bool:
    """Run the tests against the copy; end where they cannot be run. Tests that hang have noticed too."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=_environment(tree), capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1):
        raise SystemExit(f"the tests cannot be run: {' '.join(tests)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.returncode == 0


def _is_killed(tree: Path, name: str, mutant: Mutant) -> bool:
    originals = {change.path: (tree / change.path).read_text() for change in mutant.changes}
    for change in mutant.changes:
        text = (tree / change.path).read_text()
        if (count := text.count(change.old)) != 1:
            raise SystemExit(f"{name}: its text stands {count} times in {change.path}, not once:\n{change.old}")
        (tree / change.path).write_text(text.replace(change.old, change.new))
    begun = time.monotonic()
    try:
        is_killed = not _passes(tree, list(mutant.tests))
    finally:
        for path, text in originals.items():
            (tree / path).write_text(text)
    print(f"{name:26} {'killed' if is_killed else 'SURVIVED':8} {time.monotonic() - begun:6.1f} s", flush=True)
    return is_killed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
