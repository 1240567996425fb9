"""Command lines of dtolbus as child processes, ended with the test."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

TIMEOUT_S = 120.0


def command(*words: str) -> list[str]:
    """The command line of a script of ours, run by this Python."""
    script = os.path.join(os.path.dirname(sys.executable), words[0])
    return [script, *words[1:]]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without settings of ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DTOLBUS_")}
    return {**kept, **(extra or {})}


def run(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(
        command(*words),
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def running(*words: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command line while the `with` block lasts."""
    with subprocess.Popen(
        command(*words), env=environment(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=TIMEOUT_S)
