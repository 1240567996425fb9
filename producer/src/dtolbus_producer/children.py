"""Child processes: started with a pipe as their stdin, which ends them; started again when they die."""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dtolbus.cli import STOP_WITH_PARENT, STOP_WORD
from dtolbus.errors import CannotStartError, UsageError
from dtolbus_producer.journal import JournalFullError

log = logging.getLogger(__name__)

_BACKOFF_S = (0.2, 5.0)
"""First and longest wait before a child is started again."""
_STEADY_S = 10.0
"""A child that lived this long begins anew with the shortest wait."""
_TRIES = 5
_PASSED_ON = {"DTOLBUS_LOG_FORMAT", "DTOLBUS_DEBUG"}
_GIVE_UP = {2: UsageError, 3: CannotStartError}
_LAST_BYTES = 4096


@dataclass(frozen=True)
class ChildSpec:
    """What to run."""

    name: str
    arguments: Callable[[], Sequence[str] | None]
    """What follows `python -m`, asked at each start; None: nothing is left to do."""
    environment: Mapping[str, str] = field(default_factory=dict)
    ends_by_itself: bool = False
    """Whether exit code 0 means that its work is done; else it is started again whatever it exits with."""
    may_fail: bool = False
    """Whether the others go on without it where it can never start; `failure` says why."""


def environment(added: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: its own options only, none of those that were meant for `up`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DTOLBUS_") or k in _PASSED_ON}
    level = os.environ.get("DTOLBUS_LOG_LEVEL", "info")
    return {**inherited, "DTOLBUS_LOG_LEVEL": level, "PYTHONUNBUFFERED": "1", **added}


class Child:
    """One child and its restarts. `tend` it often; it never blocks."""

    def __init__(self, spec: ChildSpec, logs: Path) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.restarts = 0
        self.is_settled = False
        """Set once it has done its work for the first time; before, exit codes 2 and 3 mean that it never will."""
        self.is_done = False
        """Whether its work is over, or it was told to stop and has ended."""
        self.has_finished = False
        """Whether it ended by itself because its work was done."""
        self.failure: str | None = None
        """Why its work ended early and for good."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._is_log_problem_told = False
        self._started_at = 0.0
        self._restart_at = 0.0
        self._wait_s = _BACKOFF_S[0]
        self._is_started = False
        self._is_stopping = False

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self, now: float) -> None:
        """Start it; `now` is monotonic, s. Its output goes to its log file."""
        self._is_started = True
        arguments = self.spec.arguments()
        if arguments is None:
            self.is_done = True
            return
        with self._output() as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(  # noqa: S603  # a list of arguments, no shell
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment({**self.spec.environment, STOP_WITH_PARENT: "1"}),
                # Ctrl-C reaches only this process, which then ends its children in order
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        self._started_at = now

    def _output(self) -> BinaryIO:
        """Open its log file; where that cannot be, on a full disk, it runs without one."""
        try:
            return self.log.open("ab")
        except OSError as error:
            if not self._is_log_problem_told:
                self._is_log_problem_told = True
                log.warning("no log", extra={"file": str(self.log), "cause": str(error)})
            return Path(os.devnull).open("ab")

    def tend(self, now: float) -> None:
        """Notice its end and start it again when that is due.

        Raises UsageError and CannotStartError with its last words where it can never start.
        """
        if self._process is None:
            if self._is_started and not self.is_done and not self._is_stopping and now >= self._restart_at:
                self.restarts += 1
                self.start(now)
            return
        code = self._process.poll()
        if code is None:
            return
        self._forget()
        self.has_finished = self.spec.ends_by_itself and code == 0 and not self._is_stopping
        if self._is_stopping or (self.spec.ends_by_itself and code == 0):
            self.is_done = True
        elif self.spec.ends_by_itself and code == JournalFullError.exit_code:
            self.is_done, self.failure = True, self.last_words(code)
        elif not self.is_settled and (code in _GIVE_UP or self.restarts >= _TRIES):
            if not self.spec.may_fail:
                raise _GIVE_UP.get(code, CannotStartError)(self.last_words(code))
            self.is_done, self.failure = True, self.last_words(code)
        else:
            self._wait_s = _BACKOFF_S[0] if now - self._started_at > _STEADY_S else self._wait_s
            self._restart_at = now + self._wait_s
            self._wait_s = min(2 * self._wait_s, _BACKOFF_S[1])

    def try_again(self, now: float, wait_s: float) -> None:
        """Start it once more in `wait_s`, although `tend` said that it can never start; `now` is monotonic, s."""
        self._restart_at = now + wait_s

    def stop(self) -> None:
        """Ask it to end, by a word on its stdin, which is closed then."""
        self._is_stopping = True
        if self._process is None:
            self.is_done = True
        elif self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it is gone, or was asked before
                self._process.stdin.write(STOP_WORD)
                self._process.stdin.close()

    def kill(self) -> None:
        """End it at once, where it still runs."""
        if self._process is not None:
            self._process.kill()

    def end(self, timeout_s: float) -> bool:
        """Wait for its end after `stop`; kill it after the time. Return whether it ended by itself."""
        if self._process is None:
            return True
        is_clean = True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            is_clean = False
            self._process.kill()
            self._process.wait()
        self._forget()
        self.is_done = True
        return is_clean

    def last_words(self, code: int) -> str:
        """Return the last line of its output since its last start, without its own name."""
        lines = self._last_lines()
        words = _said(lines[-1]) if lines else "no word why"
        if code in _GIVE_UP or code == JournalFullError.exit_code:
            return words
        return f"{self.spec.name} ends with exit code {code}: {words} (see {self.log})"

    def _last_lines(self) -> list[str]:
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - _LAST_BYTES))
                return file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return []

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process = None


def _said(line: str) -> str:
    """Return what a last line says, one for machines too, without the command's name."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            return str(json.loads(line).get("message", line))
    return re.sub(r"^dtolbus-[a-z]+: ", "", line)


def end_all(children: Sequence[Child], timeout_s: float) -> list[Child]:
    """Ask all to stop and wait for them, `timeout_s` for all together; return those that had to be killed."""
    for child in children:
        child.stop()
    end = time.monotonic() + timeout_s
    return [child for child in children if not child.end(max(0.0, end - time.monotonic()))]
