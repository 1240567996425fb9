"""Modules behind an extra: imported where they are first needed, with a hint when they are missing."""

import importlib
from types import ModuleType

from dtolbus.errors import DtolSinkDependencyError


def load(module: str, *, package: str, extra: str) -> ModuleType:
    """Import `module`, which needs `package`; `extra` is the one that brings it, such as `dtolbus[parquet]`.

    Raises:
        DtolSinkDependencyError: the package is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise DtolSinkDependencyError(f"{package} is not installed; install it with: pip install '{extra}'") from error
