"""Paths of the configuration, and keys that stand where they mean something else. Pure, but for the home folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dtolbus.tomlreading import ESCAPED
from dtolbus_producer.tasks import WrongKeyError

_TABLES = ("device", "gateway", "journal", "sink")


def check_path(key: str, path: str) -> None:
    """Raise WrongKeyError where the text can be no path."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise WrongKeyError(key, f"{path!r} has a control character: {ESCAPED}")
    if not path:
        raise WrongKeyError(key, "'' is no path: give one, or leave the key out")


def expanded(key: str, path: str) -> str:
    """Return the path with `~` as the home folder. Raises WrongKeyError where it is none."""
    check_path(key, path)
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise WrongKeyError(key, f"{path!r}: {error} Give the whole path") from error


def misplaced(run: Mapping[str, Any], data: str) -> Iterator[str]:
    """Yield what of `[run]` means something else at the top of the file; `data` is the data folder."""
    for key, value in run.items():
        if key == "data" and isinstance(value, str):
            yield (
                f"data = {value!r} stands in [run]: it is metadata, and the data folder is {data!r}; "
                f"for the folder move the line to the top, above [run]"
            )
        elif key in _TABLES and isinstance(value, dict | list):
            right, wrong = (f"[[{key}]]", f"[[run.{key}]]") if isinstance(value, list) else (f"[{key}]", f"[run.{key}]")
            yield f"{wrong} is metadata: write {right}"
