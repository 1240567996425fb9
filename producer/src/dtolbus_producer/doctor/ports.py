"""The gateway's ports: free, or who has them."""

import contextlib
import os
import re
from pathlib import Path

from dtolbus_producer.doctor.asking import answer
from dtolbus_producer.doctor.finding import Finding
from dtolbus_producer.ports import port_problem

_LISTEN = "0A"


def examine_port(use: str, option: str, host: str, port: int, is_ours: bool) -> Finding:
    """Tell whether a port is free; `is_ours`: a `dtolbus up` runs in the data folder, and is to have it."""
    name = f"port {port}" if port else f"port of the {use}"
    problem = port_problem(host, port)
    if problem is None:
        return Finding(name, "ok", f"free, for the {use}" if port else "any free one")
    holder = _holder(port) or "a process that cannot be told"
    if is_ours and "dtolbus" in holder:
        return Finding(name, "ok", f"served by the `dtolbus up` of this folder ({holder})")
    return Finding(
        name, "problem", f"{problem.partition(':')[0]}: {holder}", f"stop it, or choose another with {option}"
    )


def _holder(port: int) -> str | None:
    if os.name == "nt":
        pid = windows_listener(answer("netstat", "-ano", "-p", "TCP") or "", port)
        return (
            None
            if pid is None
            else windows_process(answer("tasklist", "/fo", "csv", "/nh", "/fi", f"pid eq {pid}") or "", pid)
        )
    table = Path("/proc/net/tcp")
    inode = linux_listener(table.read_text(), port) if table.exists() else None
    return None if inode is None else _process_with(f"socket:[{inode}]")


def linux_listener(table: str, port: int) -> str | None:
    """Read `/proc/net/tcp`: the inode of the socket that listens on a port."""
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
            return words[9]
    return None


def _process_with(link: str) -> str | None:
    """Return the process that holds a socket, for people; None where it is another user's."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if any(os.readlink(fd) == link for fd in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"pid {process.name}, {words[:80]}"
    return None


def windows_listener(text: str, port: int) -> int | None:
    """Read `netstat -ano -p TCP`: the pid that listens on a port; the words between are in the system's language."""
    found = re.search(rf"^\s*TCP\s+\S+:{port}\s+\S+:0\s+\S+\s+(\d+)\s*$", text, re.MULTILINE)
    return None if found is None else int(found[1])


def windows_process(text: str, pid: int) -> str:
    """Read `tasklist /fo csv /nh`: the name of a process."""
    found = re.match(r'\s*"([^"]+)","', text)
    return f"pid {pid}" if found is None else f"pid {pid}, {found[1]}"
