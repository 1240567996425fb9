"""Killing a process at a chosen step of a commit, from inside; a child of the conformance suite runs this."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from dtolbus import files
from dtolbus.records import RunKind
from dtolbus_workers.destination import Destination
from dtolbus_workers.specimens import make_batch, make_run

SURVIVED = "survived"
FILE_CALLS = ("open_new", "append", "sync", "publish_new", "sync_dir", "replace", "truncate", "make_folder")


class _Points:
    """Counts the steps once armed, and ends the process at one of them."""

    armed = False
    passed = 0
    last: int | None = None


def crash_point() -> None:
    """Pass one step of a commit; the process dies here, as by kill −9, if this is the step chosen."""
    if not _Points.armed:
        return
    if _Points.passed == _Points.last:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    _Points.passed += 1


def die_in_commit(destination: Destination, kind: RunKind, step: int | None) -> None:
    """Commit 3 records, then 3 more, and die at `step` of the second commit; None: right after it.

    With None the number of steps is printed before. The destination is never closed.
    """
    _pass_points_at_file_calls()
    _pass_points_at_statements()
    run = make_run(kind)
    _Points.last = step

    async def go() -> None:
        await destination.open()
        await destination.commit(make_batch(run, 0, 3))
        _Points.armed = True
        await destination.commit(make_batch(run, 3, 3))
        _Points.armed = False
        sys.stdout.write(f"{SURVIVED} {_Points.passed}\n")
        sys.stdout.flush()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    asyncio.run(go())


def _pass_points_at_file_calls() -> None:
    for name in FILE_CALLS:
        setattr(files, name, _passing(getattr(files, name)))


def _passing(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        crash_point()
        return call(*args, **kwargs)

    return wrapped


def _pass_points_at_statements() -> None:
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.set_trace_callback(lambda _: crash_point())
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]  # every statement passes a point
