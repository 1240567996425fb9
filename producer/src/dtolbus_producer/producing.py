"""`dtolbus-producer run`: one device in this process, or a process for each."""

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import click

from dtolbus.errors import CannotStartError, UsageError
from dtolbus.metricsoptions import MetricsPlace, Tell, telling
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.boards.sharing import refuse_shared
from dtolbus_producer.children import Child, end_all
from dtolbus_producer.childrenfacts import ChildrenFacts, give_places
from dtolbus_producer.config import Config, load_config, with_duration
from dtolbus_producer.durations import check_durations
from dtolbus_producer.journal import JournalFullError
from dtolbus_producer.parts import acquisition_children, write_config

_TURN_S = 0.1
_END_S = 20.0
_AWAY_S = 10.0
"""How often a device is tried that cannot start."""

log = logging.getLogger(__name__)


def run_producer(
    config_path: Path,
    device: str | None,
    data: Path | None,
    duration_s: float | None,
    goes_on_from: Sequence[str],
    stop: threading.Event,
    metrics: MetricsPlace | None = None,
) -> int:
    """Acquire one device, or all of the config's, until they end or `stop` is set; return the exit code.

    `goes_on_from` are runs of one device. With `metrics` it tells of itself; of several devices each has the next port.
    Raises UsageError for a wrong config, CannotStartError where a board or the
    journal is not to be had.
    """
    config = load_config(config_path)
    if duration_s is not None:
        config = with_duration(config, duration_s)
    check_durations(config, duration_s, str(config_path))
    folder = (data or Path(config.data)).absolute()
    if device is None and len(config.devices) == 1:
        device = config.devices[0].name
    if device is not None:
        with telling(metrics, f"producer {device}") as tell:
            acquire(config, device, folder, stop, goes_on_from, tell)
        return 0
    if goes_on_from:
        raise UsageError(f"--goes-on-from {goes_on_from[0]}: it is a run of one device: give --device too")
    with telling(metrics, "producer") as tell:
        return _run_all(config, folder, duration_s, stop, metrics, tell)


def _run_all(
    config: Config,
    data: Path,
    duration_s: float | None,
    stop: threading.Event,
    metrics: MetricsPlace | None,
    tell: Tell,
) -> int:
    """Run a process for each device, and start again what dies; return 1 where one of them never got done.

    A device that cannot start is tried again as long as another one records: it must not cost that one its run.
    """
    refuse_shared(config.devices)
    logs = data / "logs"
    path = logs / "producer.json"
    write_config(config, path)
    children = list(acquisition_children(config, data, path, logs, duration_s).values())
    give_places(children, metrics)
    tell(ChildrenFacts(children))
    relay = _Relay([child.log for child in children])
    try:
        for child in children:
            child.start(time.monotonic())
        while not all(child.is_done for child in children) and not stop.wait(_TURN_S):
            for child in children:
                _tend(child, children)
            relay.go_on()
    finally:
        end_all(children, _END_S)
        relay.go_on()
    failures = [child.failure for child in children if child.failure is not None]
    if failures:
        raise JournalFullError(failures[0])
    return 0 if stop.is_set() or all(child.has_finished for child in children) else 1


def _tend(child: Child, children: Sequence[Child]) -> None:
    now = time.monotonic()
    try:
        child.tend(now)
    except CannotStartError as error:
        if not any(other.pid is not None for other in children):
            raise
        log.warning("a device cannot start, tried again", extra={"part": child.spec.name, "why": str(error)})
        child.try_again(now, _AWAY_S)


class _Relay:
    """Says what is written to logs from now on, line by line: whoever follows this process need not know of them."""

    def __init__(self, logs: Sequence[Path]) -> None:
        self._said = {path: path.stat().st_size if path.exists() else 0 for path in logs}

    def go_on(self) -> None:
        """Say what is new."""
        for path, said in self._said.items():
            with contextlib.suppress(OSError):  # not there yet; or nobody is at the other end
                with path.open("rb") as file:
                    file.seek(said)
                    new = file.read()
                lines = new[: new.rfind(b"\n") + 1]
                self._said[path] += len(lines)
                if lines:
                    click.echo(lines, err=True, nl=False)
