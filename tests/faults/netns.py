"""A network of the test's own: a namespace with nothing but a loopback, in which connections can be cut silently."""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator

import pytest
from tests.e2e.commands import TIMEOUT_S

_TABLE = "inet dtolbus"


class Network:
    """A namespace by its name."""

    def __init__(self, name: str) -> None:
        self.within = ["ip", "netns", "exec", name]
        """Before a command: `ip` becomes the command, one process."""

    def clients(self, *ports: int) -> set[int]:
        """The clients' ports of the connections to these ports."""
        listed = _run(*self.within, "ss", "-Htn", "state", "established")
        ends = (line.split()[2:4] for line in listed.splitlines())
        pairs = [[int(end.rpartition(":")[2]) for end in both] for both in ends]
        return {local for local, remote in pairs if remote in ports}

    def drop(self, ports: Iterable[int]) -> None:
        """Drop all packets from and to these ports from now on, and no others: no end is told."""
        listed = ", ".join(map(str, ports))
        rules = "".join(f"add rule {_TABLE} input tcp {way} {{ {listed} }} drop\n" for way in ("sport", "dport"))
        self._nft(f"flush chain {_TABLE} input\n" + (rules if listed else ""))

    def _nft(self, script: str) -> None:
        _run(*self.within, "nft", "-f", "-", given=script)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make one, and remove it in the end; skips where that is not possible."""
    missing = [tool for tool in ("ip", "ss", "nft") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a network namespace needs root, iproute2 and nftables; missing: {missing or 'root'}")
    name = f"dtolbus-{uuid.uuid4().hex[:8]}"
    try:
        _run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        made = Network(name)
        made._nft(f"add table {_TABLE}\nadd chain {_TABLE} input {{ type filter hook input priority 0; }}\n")
        yield made
    finally:
        _run("ip", "netns", "del", name)


def _run(*words: str, given: str | None = None) -> str:
    return subprocess.run(words, input=given, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout
