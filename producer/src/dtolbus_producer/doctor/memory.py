"""Memory that is free."""

import os
import re
from pathlib import Path

from dtolbus_producer.doctor.asking import answer
from dtolbus_producer.doctor.finding import Finding
from dtolbus_producer.quantities import show_size

_PARTS_BYTES = 512 << 20
"""About what the processes of a stack with five sinks take together."""


def examine_memory() -> Finding:
    """Return what there is to say about this machine's memory."""
    if os.name == "nt":
        query = "(Get-CimInstance Win32_OperatingSystem).FreePhysicalMemory"
        return memory(windows_free_bytes(answer("powershell", "-NoProfile", "-Command", query) or ""))
    place = Path("/proc/meminfo")
    return memory(linux_free_bytes(place.read_text()) if place.exists() else None)


def memory(free_bytes: int | None) -> Finding:
    """Tell whether a stack fits."""
    if free_bytes is None:
        return Finding("memory", "ok", "how much is free cannot be told here")
    what = f"{show_size(free_bytes)} free"
    if free_bytes < _PARTS_BYTES:
        todo = f"a stack takes about {show_size(_PARTS_BYTES)}: end something else, or run fewer sinks"
        return Finding("memory", "warning", what, todo)
    return Finding("memory", "ok", what)


def linux_free_bytes(text: str) -> int | None:
    """Read `/proc/meminfo`."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def windows_free_bytes(text: str) -> int | None:
    """Read FreePhysicalMemory, kB."""
    return int(text) * 1024 if text.strip().isdecimal() else None
