"""Sizes and ages as people write them: `200G`, `7d`."""

import re

from dtolbus.errors import UsageError

_AGE_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_STEPS = "KMGTP"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])(iB|B)?|B)?", re.IGNORECASE)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_LARGEST_BYTES = 1 << 62


def parse_size(text: str) -> int:
    """Return `200G` or `200GiB` (powers of 1024), `200GB` (powers of 1000) or `1048576`, in bytes.

    Raises UsageError where it is none of them.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no size: give one like 200G or 500M")
    number, prefix, unit = found.groups()
    base = 1000 if (unit or "").upper() == "B" else 1024
    size = float(number) * float(base ** (_STEPS.index(prefix.upper()) + 1 if prefix else 0))
    if size > _LARGEST_BYTES:
        raise UsageError(f"{text!r} is larger than any disk: give a size like 200G or 500M")
    return round(size)


def parse_age(text: str) -> float:
    """Return `7d`, `12h`, `30m`, `90s` or `2w` in seconds. Raises UsageError where it is none of them."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no age: give one like 7d, 12h or 30m")
    return float(found[1]) * _AGE_S[found[2]]


def show_size(size: int) -> str:
    """Return the bytes as people read them, in powers of 1024."""
    value, unit = float(size), "B"
    for step in _STEPS:
        if value < 1024:
            break
        value, unit = value / 1024, f"{step}iB"
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def show_age(seconds: float) -> str:
    """Return a span of time as people read it: its two largest units."""
    left = round(seconds)
    words: list[str] = []
    for unit in "dhms":
        count, left = divmod(left, _AGE_S[unit])
        if count or words:
            words.append(f"{count} {unit}")
        if len(words) > 1:
            break
    return " ".join(word for word in words if not word.startswith("0 ")) or "0 s"
