"""Runs benches one after another; one that fails does not keep the others from running."""

import gc
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.measuring import FULL, QUICK, Result, measure
from bench.registry import Cases, Setting, load


def results(names: Iterable[str], *, quick: bool) -> Iterator[Result]:
    """Yield what each case of the benches came to, as it is there."""
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=place()) as folder:
            setting = Setting(QUICK if quick else FULL, Path(folder), quick)
            try:
                yield from _measured(load(name), setting)
            except Exception as error:
                yield failed(name, error)


def _measured(cases: Cases, setting: Setting) -> Iterator[Result]:
    gc.collect()
    for case in cases(setting):
        gc.collect()
        yield measure(case, setting.plan)


def failed(name: str, error: BaseException) -> Result:
    """Return what is said of a bench that failed to run: it counts as not met."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return Result(name, "failed to run", "", None, None, None, None, None, met=False, error=told)


def place() -> str:
    """Return the folder below which temporary files are: TMPDIR's."""
    return tempfile.gettempdir()


def commit() -> str:
    """Return the commit that is measured, marked where files differ from it; empty outside a repository."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)  # noqa: S603  # a list of arguments, no shell
    return done.stdout.strip()


def now() -> str:
    """Return the time as ISO 8601, with its offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
