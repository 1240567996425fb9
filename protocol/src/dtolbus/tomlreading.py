"""TOML as its author wrote it: what is wrong is told with the line it stands on. Pure."""

import codecs
import re
import tomllib
from typing import Any

from dtolbus.shown import masked_line

_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_TWICE = "Cannot overwrite a value"
_ESCAPES = ("Unescaped '\\' in a string", "Invalid hex value", "Escaped character is not a Unicode scalar value")
_LONGEST = 60
ESCAPED = "in double quotes a \\ begins an escape: use single quotes, or / in the place of \\"


def read_toml(data: bytes) -> dict[str, Any]:
    """Return the document. Raises ValueError that says what is wrong, in which line, and what stands there."""
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        shown = _shortened(masked_line(data.splitlines()[line - 1].decode("latin-1").strip()))
        raise ValueError(
            f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}): {shown!r}; save the file as UTF-8"
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(_problem(str(error), text)) from error
    except RecursionError as error:
        raise ValueError("not a TOML file: it is nested too deeply") from error


def _problem(message: str, text: str) -> str:
    found = _PLACE.fullmatch(message)
    if found is None:
        return f"not a TOML file: {message}"
    lines = text.splitlines()
    line = int(found[2] or len(lines))
    whole = lines[line - 1] if line <= len(lines) else ""
    what = _reason(found[1], whole, int(found[3] or len(whole)) - 1)
    return f"not a TOML file: line {line}: {_shortened(masked_line(whole.strip()))!r}: {what}"


def _reason(reason: str, line: str, column: int) -> str:
    """Return what is wrong at that place of the line, and what to do where that is known."""
    if reason == _TWICE:
        return "this key, or a table of its name, is there already"
    if reason in _ESCAPES:
        return f"{_lowered(reason)}; {ESCAPED}"
    rest = line[column:].partition("#")[0].strip()
    if "{" in line[:column] and not rest:
        return (
            "a table in { } must end in the line it begins in: join the lines, or use a table of its own, [ ] or [[ ]]"
        )
    if rest.startswith("}") and line[:column].rstrip().endswith(","):
        return "there is no comma before the }"
    return _lowered(reason)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
