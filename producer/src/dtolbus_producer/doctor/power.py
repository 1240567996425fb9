"""Whether this machine would go to sleep in the middle of a recording."""

import os
import re
import sys
from pathlib import Path

from dtolbus_producer.doctor.asking import answer
from dtolbus_producer.doctor.finding import Finding

_SLEEP_TARGETS = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")
_LOGIND = (Path("/usr/lib/systemd/logind.conf"), Path("/etc/systemd/logind.conf"))
_NEVER = 0


def examine_power() -> list[Finding]:
    """Return what there is to say about sleep and hibernation."""
    if os.name == "nt":
        return [windows_sleep(answer("powercfg", "/query", "SCHEME_CURRENT", "SUB_SLEEP") or "")]
    if sys.platform != "linux":
        return [Finding("sleep", "ok", "whether this machine goes to sleep cannot be told here")]
    states = {target: (_target_state(target) or "").strip() for target in _SLEEP_TARGETS}
    return [linux_sleep(states, _logind_settings())]


def _target_state(target: str) -> str | None:
    """Return what systemd says of a target, such as `static` or `masked`."""
    return answer("systemctl", "show", "--property=UnitFileState", "--value", target)


def _logind_settings() -> str:
    places = [*_LOGIND, *sorted(Path("/etc/systemd/logind.conf.d").glob("*.conf"))]
    return "\n".join(place.read_text(errors="replace") for place in places if place.is_file())


def linux_sleep(targets: dict[str, str], logind: str) -> Finding:
    """Read the states of systemd's sleep targets, and logind's settings, the last of which count."""
    off = "systemctl mask sleep.target suspend.target hibernate.target hybrid-sleep.target"
    if targets and all(state.startswith("masked") for state in targets.values()):
        return Finding("sleep", "ok", "switched off (systemd's targets are masked)")
    if not any(targets.values()):
        return Finding("sleep", "ok", "whether this machine goes to sleep cannot be told here")
    settings = dict(re.findall(r"^\s*(\w+)\s*=\s*(\S*)", logind, re.MULTILINE))
    idle = settings.get("IdleAction", "ignore")
    if idle not in ("ignore", "lock"):
        return Finding("sleep", "warning", f"when idle this machine does: {idle} (logind)", off)
    lid = settings.get("HandleLidSwitch", "suspend")
    closes = f"closing a lid does: {lid}" if lid != "ignore" else "closing a lid does nothing"
    return Finding("sleep", "ok", f"not by itself when idle (logind); {closes}; to rule it out: {off}")


def windows_sleep(text: str) -> Finding:
    """Read `powercfg /query SCHEME_CURRENT SUB_SLEEP`: after how many seconds on mains it sleeps or hibernates."""
    waits_s = {
        what: wait
        for what, alias in (("sleep", "STANDBYIDLE"), ("hibernate", "HIBERNATEIDLE"))
        for wait in [_on_mains_s(text, alias)]
        if wait is not None
    }
    if not waits_s:
        return Finding("sleep", "ok", "whether this machine goes to sleep cannot be told (powercfg)")
    does = [f"{what} after {wait / 60:g} min" for what, wait in waits_s.items() if wait != _NEVER]
    if does:
        todo = "powercfg /change standby-timeout-ac 0, and powercfg /change hibernate-timeout-ac 0"
        return Finding("sleep", "warning", f"on mains this machine goes to {' and '.join(does)}", todo)
    return Finding("sleep", "ok", "switched off on mains (powercfg)")


def _on_mains_s(text: str, alias: str) -> int | None:
    """Return the AC value of one setting, s.

    The words are in the language of the system; the aliases and the order of the numbers are not: least, most, step,
    on mains, on battery.
    """
    _, found, rest = text.partition(alias)
    section = re.split(r"GUID[^\n]*\(", rest.partition("\n")[2])[0] if found else ""
    numbers = re.findall(r"0x([0-9a-fA-F]{8})\s*$", section, re.MULTILINE)
    return int(numbers[-2], 16) if len(numbers) >= 2 else None
