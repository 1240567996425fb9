"""Modules behind an extra of this distribution: imported where they are first needed, with a hint when missing."""

from types import ModuleType

from dtolbus import extras


def load(module: str, *, package: str, extra: str) -> ModuleType:
    """Import `module`, which needs `package`.

    Raises:
        DtolSinkDependencyError: the package is not installed; the message names the extra that brings it.
    """
    return extras.load(module, package=package, extra=f"dtolbus-workers[{extra}]")
