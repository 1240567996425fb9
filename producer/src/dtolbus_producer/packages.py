"""Packages that sinks need beside their code."""

from importlib.util import find_spec

_EXTRAS = {"parquet": ("pyarrow", "parquet"), "postgres": ("asyncpg", "postgres")}
"""By kind of sink: the module it needs, and the extra of dtolbus-workers that brings it."""


def missing_package(kind: str) -> str | None:
    """Return what is not installed for a kind of sink, with the command that installs it; None where all is there."""
    if find_spec("dtolbus_workers") is None:
        return "the sinks are not installed: pip install 'dtolbus-workers[all]'"
    module, extra = _EXTRAS.get(kind, ("", ""))
    if module and find_spec(module) is None:
        return f"{module} is not installed: pip install 'dtolbus-workers[{extra}]'"
    return None
