"""The options `--metrics-port` and `--metrics-host` of whatever runs on. Without a port nothing is loaded."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import click

from dtolbus.cli import option
from dtolbus.extras import load
from dtolbus.metrics import Told

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MOST_PORT = 65535

Tell = Callable[[Told], None]
"""Says what is told from now on."""


class MetricsPlace(NamedTuple):
    """Where a process tells of itself."""

    port: int
    host: str = LOOPBACK

    def after(self, number: int) -> "MetricsPlace":
        """Return the place of the part of that number, counted from 1; the process that starts parts has the first."""
        return self._replace(port=self.port + number)

    def environment(self) -> dict[str, str]:
        """Return what tells a child of it."""
        return {"DTOLBUS_METRICS_PORT": str(self.port), "DTOLBUS_METRICS_HOST": self.host}


def metrics_options(call: Callable[..., Any]) -> Callable[..., Any]:
    """Add the two options; the command gets `metrics`, a MetricsPlace, or None where nothing is to be served."""

    @option(
        "--metrics-port",
        type=click.IntRange(1, MOST_PORT),
        help="Serve /metrics (Prometheus) and /health at this port of 127.0.0.1.  [default: not]",
    )
    @option("--metrics-host", default=LOOPBACK, help="Serve them at this address; whoever reaches it can read them.")
    @wraps(call)
    def with_place(metrics_port: int | None, metrics_host: str, **rest: Any) -> Any:
        return call(metrics=None if metrics_port is None else MetricsPlace(metrics_port, metrics_host), **rest)

    return with_place


@contextmanager
def telling(place: MetricsPlace | None, part: str) -> Iterator[Tell]:
    """Serve while the `with` block lasts; `part` says what the process is. Without a place nothing is served.

    Raises CannotStartError where the port is not to be had, DtolSinkDependencyError where a package is missing.
    """
    if place is None:
        yield _to_nobody
        return
    serving = load("dtolbus.metricsserver", package="prometheus_client", extra="prometheus-client")
    server = serving.MetricsServer(place.host, place.port, part)
    if place.host != "localhost" and not place.host.startswith("127."):
        what = "/metrics and /health are not for this machine alone: whoever reaches them reads names and rates"
        log.warning(what, extra={"host": place.host, "port": place.port})
    try:
        yield server.tell
    finally:
        server.close()


def _to_nobody(told: Told) -> None:
    """Tell nobody."""
