"""Ranges as people read them. Pure."""


def in_words(start: int, end: int) -> str:
    """Return what the half-open range [start, end) holds: its first to its last, its only one, or none."""
    if end <= start:
        return "none"
    return str(start) if end - start == 1 else f"{start} to {end - 1}"
