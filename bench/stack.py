"""A stack of dtolbus processes on a folder of its own, as its command lines start it, and what each of them costs."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import zmq

from bench.sending import free_port
from dtolbus.connecting import connected
from dtolbus.keyring import KeyRing
from dtolbus.keys import Keys, load_keys
from dtolbus.registrations import read_registrations
from dtolbus.wire import Hello, encode

_END_S = 20.0
_START_S = 30.0
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Stack:
    """Processes that follow one data folder; made by `stack`."""

    def __init__(self, data: Path, *, require_keys: bool = False) -> None:
        self.data = data
        self.ring = KeyRing(data) if require_keys else None
        """The keys of whom the gateway lets in; None: everybody."""
        self._ports = free_port(), free_port()
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def urls(self) -> tuple[str, str]:
        """Where the live records come from, and what was before."""
        live, before = self._ports
        return f"tcp://127.0.0.1:{live}", f"tcp://127.0.0.1:{before}"

    def start(self, name: str, *words: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start a process: a command of ours, or `-m MODULE` of the benches; its stdout goes to `output`."""
        command = [sys.executable, *words] if words[0] == "-m" else [_script(words[0]), *words[1:]]
        with self.output(name).open("wb") as out, (self.data / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(  # noqa: S603  # a list of arguments, no shell
                command, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )
        self.children[name] = child
        return child

    def output(self, name: str) -> Path:
        """Return the file that a process writes to."""
        return self.data / f"{name}.out"

    def start_gateway(self, *options: str) -> None:
        """Start the gateway, and return when it answers."""
        live, before = self._ports
        asks = [] if self.ring is None else ["--require-keys"]
        keys = None if self.ring is None else load_keys(self.key_of("bench"))
        self.start("gateway", "dtolbus-gateway", "serve", str(self.data), "--pub-port", str(live),
                   "--catchup-port", str(before), *asks, *options)  # fmt: skip
        wait_until(lambda: _answers(self.urls[1], keys), _START_S, "the gateway answers")

    def key_of(self, name: str) -> Path:
        """Return the key file of a sink, where the gateway asks for keys."""
        assert self.ring is not None  # noqa: S101  # narrows the type, nothing rests on it
        return self.ring.of_sink(name)

    def start_worker(self, kind: str, *options: str, env: Mapping[str, str] | None = None) -> None:
        """Start the sink's worker."""
        live, before = self.urls
        if self.ring is not None:
            env = {**(env or {}), "DTOLBUS_KEY": str(self.key_of(kind))}
        self.start(kind, f"dtolbus-{kind}", "--connect", live, "--catchup", before, *options, env=env)

    def stored(self, kind: str) -> int:
        """Return how many records the sink has acknowledged, of all runs."""
        found = (sink for sink in read_registrations(self.data) if sink.sink == kind)
        return sum(position.position for sink in found for position in sink.positions.values())

    def check(self) -> None:
        """Raise RuntimeError where a process has ended that was not asked to."""
        for name, child in self.children.items():
            if child.poll() not in (None, 0):
                raise RuntimeError(f"{name} ended with {child.returncode}: {self._last_words(name)}")

    def end(self, name: str) -> None:
        """Ask a process to end, and wait for that."""
        child = self.children.pop(name)
        if child.poll() is None:
            child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _last_words(self, name: str) -> str:
        lines = (self.data / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


@contextlib.contextmanager
def stack(data: Path, *, require_keys: bool = False) -> Iterator[Stack]:
    """Give a stack on a new folder; all its processes end afterwards, the youngest first."""
    (data / "journal").mkdir(parents=True)
    made = Stack(data, require_keys=require_keys)
    try:
        yield made
    finally:
        for name in reversed(list(made.children)):
            made.end(name)


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str, every_s: float = 0.02) -> None:
    """Return once it holds, asked every `every_s`. Raises RuntimeError where that takes longer."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {timeout_s:g} s: {what}")
        time.sleep(every_s)


def rss(pid: int) -> int:
    """Return the memory a process has in RAM now, bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def cpu_s(pid: int) -> float:
    """Return the time a process has had on a processor, s."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _answers(url: str, keys: Keys | None = None) -> bool:
    with zmq.Context() as context, connected(context, zmq.DEALER, url, keys=keys) as dealer:
        dealer.send_multipart(encode(Hello(worker="")))
        return bool(dealer.poll(200))
