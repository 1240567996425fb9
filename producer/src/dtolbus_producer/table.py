"""What `up` shows while it runs: a live table on a terminal, a plain line a second elsewhere."""

import errno
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import click

from dtolbus import logs
from dtolbus_producer.progress import Rates, Snapshot

log = logging.getLogger(__name__)

_LINE_EVERY_S = 1.0
_TABLE_EVERY_S = 0.25
_GONE = (errno.EIO, errno.EPIPE)
"""Nobody is at the other end."""


@dataclass(frozen=True)
class View:
    """What is shown."""

    elapsed_s: float
    phase: str
    snapshot: Snapshot
    rates: Rates
    restarts: Mapping[str, int]
    """By the name of a child process."""
    commit_ages_s: Mapping[str, float]
    """By the name of a sink: after how many s it commits what it has."""
    remarks: tuple[str, ...] = ()
    """What there is to say of the signals."""


class Display(Protocol):
    """Shows views until it is closed."""

    def show(self, view: View) -> None:
        """Show the newest view."""

    def close(self) -> None:
        """Leave the last view standing."""


def say(line: str, *, err: bool = False) -> None:
    """Print a line; where it cannot be shown (a terminal that is gone, a full disk), what runs goes on without it.

    On stderr it is an object where logs are for machines: all that stands there is.
    """
    if err and logs.is_json():
        line = logs.json_line(time.time(), "warning", "dtolbus.up", line, {})
    with _unheard():
        click.echo(line, err=err)


@contextmanager
def _unheard() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:
            for stream in (sys.__stdout__, sys.__stderr__):
                _forget(stream)
        log.debug("not shown", extra={"cause": str(error)})


def _forget(stream: TextIO | None) -> None:
    """Let the stream lead nowhere, where nobody is at its other end: what it still holds must not fail at exit."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError as error:
        if error.errno in _GONE:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def make_display() -> Display:
    """Return the display that fits stdout."""
    return _LiveTable() if sys.stdout.isatty() else _PlainLines()


class _PlainLines:
    def __init__(self) -> None:
        self._next_s = 0.0
        self._phase = ""
        self._unsaid: View | None = None

    def show(self, view: View) -> None:
        self._unsaid = view
        if view.elapsed_s >= self._next_s or view.phase != self._phase:
            self._next_s, self._phase = view.elapsed_s + _LINE_EVERY_S, view.phase
            self.close()

    def close(self) -> None:
        if self._unsaid is not None:
            say(line_of(self._unsaid))
            self._unsaid = None


def line_of(view: View) -> str:
    """Return a view as one line."""
    streams = [
        f"{stream} {head} ({view.rates.of_stream(stream):.0f}/s)" for stream, head in view.snapshot.heads.items()
    ]
    sinks = [f"{name} {progress.position} lag {progress.lag}" for name, progress in view.snapshot.sinks.items()]
    again = [f"{name} restarted {count}×" for name, count in view.restarts.items() if count]
    parts = ["  ".join(streams), "  ".join([*sinks, *again]), *view.remarks]
    return f"{view.elapsed_s:6.1f} s {view.phase}: {' | '.join(parts)}"


class _LiveTable:
    def __init__(self) -> None:
        from rich.live import Live  # noqa: PLC0415  # heavy, and for terminals only

        self._live = Live(auto_refresh=False)  # what a thread of its own meets, nobody would catch
        self._next_s = 0.0
        self._phase = ""
        with _unheard():
            self._live.start()

    def show(self, view: View) -> None:
        with _unheard():
            is_due = view.elapsed_s >= self._next_s or view.phase != self._phase
            self._live.update(table_of(view), refresh=is_due)
            if is_due:
                self._next_s, self._phase = view.elapsed_s + _TABLE_EVERY_S, view.phase

    def close(self) -> None:
        with _unheard():
            self._live.stop()


def table_of(view: View) -> Any:
    """Return a view as a rich table: the streams, then the sinks, then other processes that were restarted."""
    from rich.table import Table  # noqa: PLC0415  # heavy, and for terminals only
    from rich.text import Text  # noqa: PLC0415  # as above

    about = "a record is a block, or a poll; lag: records not stored yet"
    table = Table(title=f"dtolbus up · {view.phase} · {view.elapsed_s:.0f} s", caption=about)
    table.add_column("")
    for name in ("records", "lag", "rate", "restarts", "commits every"):
        table.add_column(name, justify="right")
    for stream, head in view.snapshot.heads.items():
        restarts = view.restarts.get(f"acquisition-{stream.partition('/')[0]}", 0)
        table.add_row(stream, f"{head}", "", f"{view.rates.of_stream(stream):.0f} samples/s", f"{restarts}")
    table.add_section()
    for name, progress in view.snapshot.sinks.items():
        rate = f"{view.rates.of_sink(name):.0f} records/s"
        restarts = view.restarts.get(f"sink-{name}", 0)
        age_s = view.commit_ages_s.get(name)
        every = "" if age_s is None else f"{age_s:g} s"
        table.add_row(name, f"{progress.position}", f"{progress.lag}", rate, f"{restarts}", every)
    table.add_section()
    table.add_row("gateway", "", "", "", f"{view.restarts.get('gateway', 0)}")
    if view.remarks:
        table.caption = Text("\n".join([about, *view.remarks]), style="bold yellow")
        table.caption_justify = "left"
    return table
