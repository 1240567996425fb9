"""Takes out one guard at a time, and shows that a test notices: `uv run python tests/faults/mutants.py [NAME…]`.

The guards stand in `guards.toml`. Each is taken out in a temporary copy of this tree; only the tests named with it run
against the copy. Exit code 1 where a mutant survives. Anything that makes a verdict worthless ends it: a text that is
not found exactly once, a module that is not the copy's, tests that fail without the mutant or cannot be run with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
SOURCES = ("protocol/src", "producer/src", "workers/src")
TIMEOUT_S = 240.0


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exact text in a file, and what stands there instead."""

    file: str
    old: str
    new: str


class Guard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guard, what takes it out, and the tests that must notice."""

    name: str
    tests: tuple[str, ...]
    change: tuple[Change, ...]


def read_guards() -> dict[str, Guard]:
    """Return the guards by name."""
    table = tomllib.loads((Path(__file__).parent / "guards.toml").read_text())
    return {guard.name: guard for guard in msgspec.convert(table["guard"], tuple[Guard, ...])}


def main(names: list[str]) -> int:
    """Run the mutants of these names, or all; return the exit code."""
    if {"-h", "--help"} & set(names):
        print(__doc__)
        return 0
    guards = read_guards()
    if unknown := set(names) - set(guards):
        raise SystemExit(f"no guard {min(unknown)!r}; there are {', '.join(guards)}")
    chosen = [guards[name] for name in names or guards]
    with tempfile.TemporaryDirectory(prefix="dtolbus-mutants-") as folder:
        tree = Path(folder) / "main"
        _copy(tree)
        _check_imported(tree, chosen)
        tests = sorted({test for guard in chosen for test in guard.tests})
        if failure := _failure(tree, tests, TIMEOUT_S * len(chosen)):
            raise SystemExit(f"{failure}the tests fail without a mutant: mend them first")
        survived = [guard.name for guard in chosen if not _is_killed(tree, guard)]
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


def _check_imported(tree: Path, guards: list[Guard]) -> None:
    """End unless each mutated module is imported from the copy."""
    for path in sorted({change.file for guard in guards for change in guard.change}):
        module = path.split("/src/")[1].removesuffix(".py").replace("/", ".")
        code = f"import {module} as m; print(m.__file__)"
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=tree, env=_environment(tree), capture_output=True, text=True, check=True
        ).stdout.strip()
        if Path(found).resolve() != (tree / path).resolve():
            raise SystemExit(f"{module} is imported from {found}, not from the copy")


def _failure(tree: Path, tests: list[str], timeout_s: float = TIMEOUT_S) -> str:
    """Run the tests against the copy; return what failed, nothing where they pass; end where they cannot be run.

    Tests that hang have noticed too.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=_environment(tree), capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"not done after {timeout_s:.0f} s\n"
    if done.returncode not in (0, 1):
        raise SystemExit(f"the tests cannot be run: {' '.join(tests)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout[-3000:] if done.returncode else ""


def _is_killed(tree: Path, guard: Guard) -> bool:
    originals = {change.file: (tree / change.file).read_text() for change in guard.change}
    for change in guard.change:
        text = (tree / change.file).read_text()
        if (count := text.count(change.old)) != 1:
            raise SystemExit(f"{guard.name}: its text stands {count} times in {change.file}, not once:\n{change.old}")
        (tree / change.file).write_text(text.replace(change.old, change.new))
    begun = time.monotonic()
    try:
        is_killed = bool(_failure(tree, list(guard.tests)))
    finally:
        for path, text in originals.items():
            (tree / path).write_text(text)
    print(f"{guard.name:30} {'killed' if is_killed else 'SURVIVED':8} {time.monotonic() - begun:6.1f} s", flush=True)
    return is_killed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
