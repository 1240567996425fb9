"""Commands of the system that only tell something."""

import os
import subprocess

_TIMEOUT_S = 10.0


def answer(*words: str) -> str | None:
    """Return what a command prints; None where there is no such command, or it fails."""
    try:
        done = subprocess.run(  # noqa: S603  # a list of arguments, no shell
            words,
            capture_output=True,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
