"""TOML as its author wrote it: what is wrong is told with the line it stands on. Pure."""

import re
import tomllib
from typing import Any

_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_TWICE = "Cannot overwrite a value"
_LONGEST = 60


def read_toml(data: bytes) -> dict[str, Any]:
    """Return the document. Raises ValueError that says what is wrong, in which line, and what stands there."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        shown = data.splitlines()[line - 1].decode("latin-1").strip()
        raise ValueError(
            f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}): {_shortened(shown)!r}; save the file as UTF-8"
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(_problem(str(error), text)) from error


def _problem(message: str, text: str) -> str:
    found = _PLACE.fullmatch(message)
    if found is None:
        return f"not a TOML file: {message}"
    what = "this key, or a table of its name, is there already" if found[1] == _TWICE else _lowered(found[1])
    lines = text.splitlines()
    line = int(found[2] or len(lines))
    shown = lines[line - 1].strip() if line <= len(lines) else ""
    return f"not a TOML file: line {line}: {_shortened(shown)!r}: {what}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
