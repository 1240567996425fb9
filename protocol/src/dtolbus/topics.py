"""Names on the wire and on disk: topics, streams, and names quoted so that neither can be broken out of."""

from functools import lru_cache
from typing import Literal
from urllib.parse import quote as _percent
from urllib.parse import unquote

TopicKind = Literal["block", "reading", "note", "heartbeat"]

_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}

_LONGEST_NAME = 220
"""Bytes of a quoted name: a file name has up to 255, and something is put before and behind it."""

_MOST_LETTERS = 1000
"""Of a name that is looked at any further: it may be a message's, whose text has no end."""
_SHOWN = 40

__all__ = ["TopicKind", "name_fault", "prefix", "quote", "shortened", "stream_name", "topic", "unquote"]


def quote(name: str) -> str:
    """Return the name percent-quoted: one path element on every system, and one part of a topic.

    `unquote` gives the name back. Raises ValueError for an empty name.
    """
    return _quoted(name) if len(name) <= _LONGEST_NAME else _quoted.__wrapped__(name)


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    if not name:
        raise ValueError("a device or task needs a name, got ''")
    text = _percent(name, safe=" ,=+()", errors="surrogatepass")
    if text[0] in ". " or text.split(".")[0].casefold().strip() in _WINDOWS_DEVICES:
        text = f"%{ord(text[0]):02X}{text[1:]}"
    if text[-1] in ". ":
        text = f"{text[:-1]}%{ord(text[-1]):02X}"
    return text


def name_fault(name: str) -> str:
    """Return why no device, task or sink can have the name (a file has it, and a command line); empty where it can."""
    if not name:
        return "a name is missing"
    if len(name) > _MOST_LETTERS:
        return f"{name[:_SHOWN]!r}… has {len(name)} characters, too many for a file's name"
    if not name.isprintable():
        return f"{name!r} has characters that cannot be shown: choose another name"
    if len(quote(name)) > _LONGEST_NAME:
        return f"{name!r} is too long for a file's name: its first {len(shortened(name))} characters would fit"
    return ""


def shortened(name: str) -> str:
    """Return as much of a name as a file's name can hold."""
    name = name[:_LONGEST_NAME]
    while len(quote(name)) > _LONGEST_NAME:
        name = name[:-1]
    return name


def stream_name(device: str, task: str) -> str:
    """Return the stream's name `<device>/<task>`, both quoted."""
    return f"{quote(device)}/{quote(task)}"


def prefix(text: str) -> str:
    """Return a topic's prefix as on the wire, names quoted. Raises ValueError where it can match no record."""
    kind, *names = text.split("/")
    if kind not in ("block", "reading", "note") or len(names) > 3:
        raise ValueError(f"{text!r} is not like block/, reading/, block/DEVICE/ or block/DEVICE/TASK/")
    return "/".join([kind, *(quote(unquote(name)) if name else "" for name in names)])


def topic(kind: TopicKind, device: str, task: str) -> bytes:
    """Return the topic of a stream's messages; the closing `/` keeps `dt1` from matching `dt10`."""
    return f"{kind}/{stream_name(device, task)}/".encode()
