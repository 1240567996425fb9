"""The end of `dtolbus up`: the certificate, printed, and kept in `logs/certificate.txt` for whoever looks later."""

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from dtolbus import files
from dtolbus.waiting import Waiting
from dtolbus_producer.children import environment
from dtolbus_producer.table import say

log = logging.getLogger(__name__)

CERTIFICATE_FILE = "certificate.txt"
_PROGRESS = re.compile(r"verifying .*: \d+ %")
_TOLD_EVERY = ("--progress-every", "0.5")
_TELL_EVERY_S = 10.0
"""Where there is no terminal."""


class Certificate:
    """What one `up` has to say at its end; the file is replaced when the `with` block is left, however it is left.

    Until then there is none: what is found there is always the last `up`'s.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data / "logs" / CERTIFICATE_FILE
        self._lines: list[str] = []
        self._is_whole = True

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            why = str(error) or type(error).__name__
            self._lines.append(f"not verified: {why}; `dtolbus verify --data {self._data}` compares what there is")
        try:
            files.replace(self._path, "".join(f"{line}\n" for line in self._lines).encode())
        except OSError as problem:  # it was printed
            log.warning("certificate not kept", extra={"file": str(self._path), "cause": str(problem)})

    def note(self, line: str) -> None:
        """Keep a line, already said, of something that makes the exit code 1."""
        self._is_whole = False
        self._lines.append(line)

    def remark(self, line: str) -> None:
        """Say a line after the certificate, and keep it."""
        say(line)
        self._lines.append(line)

    def fault(self, line: str) -> None:
        """Say such a line, and keep it."""
        say(line, err=True)
        self.note(line)

    def verify(self, run_ids: Sequence[str], sinks: Sequence[str], dsn: str | None) -> int:
        """Print the certificate of these runs and sinks (none named: all), and return the exit code."""
        chosen = [word for run_id in run_ids for word in ("--run", run_id)]
        chosen += [word for sink in sinks for word in ("--sink", sink)]
        added = {} if dsn is None else {"DTOLBUS_DSN": dsn}
        with subprocess.Popen(  # noqa: S603  # a list of arguments, no shell
            [sys.executable, "-m", "dtolbus", "verify", "--data", str(self._data), *_TOLD_EVERY, *chosen],
            env=environment({"DTOLBUS_LOG_LEVEL": "warning", "PYTHONIOENCODING": "utf-8", **added}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=os.name != "nt",  # the end of a terminal is not its end
        ) as process:
            try:
                said, errors = _heard(process)
            except BaseException:
                process.kill()
                raise
        for lines, is_error in ((errors, True), (said, False)):
            for line in lines:
                self._lines.append(line)
                say(line, err=is_error)
        return process.returncode or (0 if self._is_whole else 1)


def _heard(process: "subprocess.Popen[str]") -> tuple[list[str], list[str]]:
    """Return the lines of its stdout and of its stderr, but those that tell how far it is: they are shown at once."""
    said: list[str] = []
    assert process.stdout is not None  # noqa: S101  # narrows the type, nothing rests on it
    assert process.stderr is not None  # noqa: S101  # narrows the type, nothing rests on it
    reader = threading.Thread(target=lambda lines: said.extend(lines), args=(process.stdout,), daemon=True)
    reader.start()
    errors: list[str] = []
    with contextlib.closing(Waiting(sys.stdout, _TELL_EVERY_S)) as waiting:
        for line in process.stderr:
            if _PROGRESS.fullmatch(line.rstrip()):
                waiting.show(line.rstrip)
            else:
                errors.append(line.rstrip("\n"))
    reader.join()
    return [line.rstrip("\n") for line in said], errors
