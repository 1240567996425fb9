"""Clocks: fine enough, and the wall clock kept right by somebody."""

import os
import re
import time

from dtolbus_producer.doctor.asking import answer
from dtolbus_producer.doctor.finding import Finding

_COARSEST_S = 1e-4
_COARSEST_WALL_S = 0.02
_KEEP_RIGHT = "the samples' distances are right all the same, their UTC instants drift: "


def examine_clocks() -> list[Finding]:
    """Return what there is to say about this machine's clocks."""
    return [
        resolution(time.get_clock_info("perf_counter").resolution, time.get_clock_info("time").resolution),
        _wall_clock(),
    ]


def resolution(monotonic_s: float, wall_s: float) -> Finding:
    """Tell whether the clocks are fine enough to stamp buffers."""
    what = f"monotonic to {monotonic_s * 1e9:.3g} ns, wall clock to {wall_s * 1e9:.3g} ns"
    if monotonic_s > _COARSEST_S:
        todo = f"buffers cannot be stamped to better than {monotonic_s * 1e3:.3g} ms: use another machine"
        return Finding("clock resolution", "problem", what, todo)
    if wall_s > _COARSEST_WALL_S:
        return Finding("clock resolution", "warning", what, f"UTC is known to {wall_s * 1e3:.3g} ms only")
    return Finding("clock resolution", "ok", what)


def _wall_clock() -> Finding:
    if os.name == "nt":
        text = answer("w32tm", "/query", "/status")
        return windows_time(text)
    text = answer("chronyc", "-n", "tracking")
    if text is not None:
        return chrony(text)
    text = answer("timedatectl", "show")
    return unknown() if text is None else timedatectl(text)


def unknown() -> Finding:
    """Tell that nothing on this machine says whether the wall clock is right."""
    todo = f"{_KEEP_RIGHT}see to it that NTP runs (chrony, systemd-timesyncd)"
    return Finding("wall clock", "warning", "nothing here tells whether it is kept right", todo)


def timedatectl(text: str) -> Finding:
    """Read `timedatectl show`."""
    facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if facts.get("NTPSynchronized") == "yes":
        return Finding("wall clock", "ok", "kept right by NTP (timedatectl)")
    if facts.get("NTP") == "yes":
        todo = f"{_KEEP_RIGHT}wait, or see to it that a time server can be reached (timedatectl timesync-status)"
        return Finding("wall clock", "warning", "NTP runs, and has not set the clock yet", todo)
    if "NTPSynchronized" not in facts:
        return unknown()
    todo = f"{_KEEP_RIGHT}timedatectl set-ntp true"
    return Finding("wall clock", "warning", "nothing keeps it right: NTP is off", todo)


def chrony(text: str) -> Finding:
    """Read `chronyc -n tracking`."""
    facts = {
        key.strip(): value.strip() for key, sign, value in (line.partition(":") for line in text.splitlines()) if sign
    }
    offset = facts.get("System time", "offset unknown")
    if facts.get("Leap status") == "Normal" and not facts.get("Reference ID", "").startswith("00000000"):
        return Finding("wall clock", "ok", f"kept right by chrony: {offset}")
    todo = f"{_KEEP_RIGHT}see which time servers chrony reaches (chronyc sources)"
    return Finding("wall clock", "warning", "chrony runs, and has no time server", todo)


def windows_time(text: str | None) -> Finding:
    """Read `w32tm /query /status`; None where the service does not run."""
    start = "w32tm /config /manualpeerlist:pool.ntp.org /syncfromflags:manual /update, then w32tm /resync"
    if text is None:
        todo = f"{_KEEP_RIGHT}net start w32time, and set it to start by itself (sc config w32time start=auto)"
        return Finding("wall clock", "warning", "the Windows time service does not run", todo)
    if re.search(r"local cmos clock|free-running", text, re.IGNORECASE) or re.search(r"0x4C4F434C", text):
        return Finding("wall clock", "warning", "the Windows time service has no time server", f"{_KEEP_RIGHT}{start}")
    # the labels are in the language of the system; the stratum's line and its number are not
    stratum = re.search(r"Stratum[^:]*:\s*(\d+)", text)
    if stratum is not None and not 1 <= int(stratum[1]) <= 15:
        return Finding(
            "wall clock", "warning", "the Windows time service has not synchronised", f"{_KEEP_RIGHT}{start}"
        )
    return Finding("wall clock", "ok", "kept right by the Windows time service (w32tm)")
