"""Python, our distributions, what sinks and boards need beside them."""

import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from dtolbus_producer.boards.finding import KindFound
from dtolbus_producer.doctor.finding import Finding
from dtolbus_producer.packages import missing_package

_OLDEST = (3, 11)
_DISTRIBUTIONS = ("dtolbus", "dtolbus-producer", "dtolbus-workers")


def examine_software(sinks: Iterable[str]) -> list[Finding]:
    """Return what there is to say about Python and the packages; `sinks` are the kinds that are configured."""
    return [
        python(sys.version_info[:3]),
        versions({name: _version(name) for name in _DISTRIBUTIONS}),
        *packages({kind: missing_package(kind) for kind in ("parquet", "postgres")}, set(sinks)),
    ]


def python(running: tuple[int, ...]) -> Finding:
    """Tell whether this Python is new enough."""
    what = ".".join(map(str, running))
    if running < _OLDEST:
        return Finding("Python", "problem", what, "install 3.11 or newer")
    return Finding("Python", "ok", what)


def versions(installed: Mapping[str, str | None]) -> Finding:
    """Tell whether our distributions are there, and of one version."""
    what = ", ".join(f"{name} {number or 'is missing'}" for name, number in installed.items())
    if None in installed.values():
        missing = " ".join(name for name, number in installed.items() if number is None)
        return Finding("versions", "warning", what, f"`dtolbus up` needs it on this machine: pip install {missing}")
    if len(set(installed.values())) > 1:
        return Finding("versions", "problem", what, f"they must agree: pip install --upgrade {' '.join(installed)}")
    return Finding("versions", "ok", what)


def packages(missing: Mapping[str, str | None], configured: set[str]) -> list[Finding]:
    """Tell of each kind of sink with an extra whether that is installed; it is a problem where it is configured."""
    found = []
    for kind, problem in missing.items():
        name = f"sink {kind}"
        if problem is None:
            found.append(Finding(name, "ok", "what it needs is installed"))
            continue
        what, _, todo = problem.partition(": ")
        found.append(Finding(name, "problem" if kind in configured else "ok", what, todo))
    return found


def boards(kinds: Iterable[KindFound], configured: set[str]) -> list[Finding]:
    """Tell of each kind of board whether it can be used; it is a problem where it is configured and cannot."""
    found = []
    for kind in kinds:
        name = f"board {kind.kind}"
        if not kind.is_usable:
            is_asked = kind.kind in configured
            what = (
                f"cannot be used here: {kind.about}" if is_asked else f"not configured, nor usable here: {kind.about}"
            )
            found.append(Finding(name, "problem" if is_asked else "ok", what))
            continue
        models = ", ".join(board.model for board in kind.boards)
        what = f"connected: {models}" if models else "nothing is connected" if kind.lists_boards else "can be used"
        is_lacking = kind.lists_boards and not models and kind.kind in configured
        todo = "connect the board and switch it on" if is_lacking else ""
        found.append(Finding(name, "problem" if is_lacking else "ok", what, todo))
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
