"""Text as people may see it: without passwords, and without characters by which it is more than text."""

import re
import sys
import threading
import traceback
from types import TracebackType

_WORD = re.compile(r"""[^\s'"]+""")
_BY_NAME = re.compile(r"""\b((?:ssl)?password)=[^\s&'"]*""", re.IGNORECASE)
_KEYS = ("dsn", "password", "sslpassword")


def masked(text: str) -> str:
    """Return the text with `…` in the place of every password of an address in it."""
    if "://" in text:
        text = _WORD.sub(lambda word: _masked_word(word[0]), text)
    return _BY_NAME.sub(r"\1=…", text) if "=" in text else text


def _masked_word(word: str) -> str:
    """Return a word, which may be an address; split, not matched: a pattern would take long for a long one."""
    scheme, sign, rest = word.partition("://")
    entry, at, host = rest.rpartition("@")
    user, colon, _ = entry.partition(":")
    return f"{scheme}://{user}:…@{host}" if sign and at and colon and "/" not in user else word


def masked_line(line: str) -> str:
    """Return a line of a config as it may be shown: of a key that may have a password only the key."""
    key, sign, _ = line.partition("=")
    return f"{key.rstrip()} = …" if sign and key.strip().strip("\"'").lower() in _KEYS else masked(line)


def printable(text: str) -> str:
    """Return one line of text, control characters as their escapes: a peer's names move no cursor, forge no line."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def mask_tracebacks() -> None:
    """Have what nobody caught told without the passwords in it, in this process."""

    def told(kind: type[BaseException], error: BaseException | None, at: TracebackType | None) -> None:
        sys.stderr.write(masked("".join(traceback.format_exception(kind, error, at))))

    sys.excepthook = told
    threading.excepthook = lambda ended: told(ended.exc_type, ended.exc_value, ended.exc_traceback)
