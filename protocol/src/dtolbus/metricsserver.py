"""Serves what a process tells of itself: `/metrics` for Prometheus, `/health` for whoever starts things again.

Bounded: a few connections at a time, each for a few seconds; two paths, GET alone. It has no secret to tell, and no
thread of it is ever waited for.
"""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from dtolbus.errors import CannotStartError
from dtolbus.metrics import Histogram, Metric, Told, gauge
from dtolbus.shown import masked, printable

TEXT = "text/plain; version=0.0.4; charset=utf-8"
_CONNECTIONS = 8
_EACH_S = 5.0
"""After this long a connection is cut off, whatever it does."""
_LOOK_S = 0.2
_PROBLEMS = 20
_LONGEST = 1000


class _Starting:
    """What is told before there is anything."""

    def metrics(self) -> Iterable[Metric | Histogram]:
        return ()

    def problems(self) -> list[str]:
        return ["starting"]

    def facts(self) -> list[str]:
        return []


class MetricsServer:
    """Serves on a thread of its own from its making on; `part` says what the process is, as in `sink parquet`.

    Raises CannotStartError where the port is not to be had.
    """

    def __init__(self, host: str, port: int, part: str) -> None:
        self._part = part
        self._told: Told = _Starting()
        self._started_at = time.time()
        self._registry = CollectorRegistry()
        self._registry.register(_Collected(self))
        ProcessCollector(registry=self._registry)
        try:
            self._server = _Server((host, port), _handler(self))
        except OSError as error:
            raise CannotStartError(_why_not(error, host, port)) from error
        self.port: int = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": _LOOK_S}, name="metrics", daemon=True
        ).start()

    def tell(self, told: Told) -> None:
        """From now on tell this."""
        self._told = told

    def close(self) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._server.server_close()

    def metrics(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self._registry)

    def health(self) -> tuple[HTTPStatus, bytes]:
        """Return whether all is well, and why not."""
        problems = [_shown(problem) for problem in self._told.problems()[:_PROBLEMS]]
        facts = [_shown(fact) for fact in self._told.facts()[:_PROBLEMS]]
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        told = {"part": self._part, "healthy": not problems, "problems": problems, "facts": facts}
        return status, json.dumps(told).encode() + b"\n"

    def collected(self) -> Iterator[Metric | Histogram]:
        """Yield what is told, and what every process tells."""
        labels = {"part": self._part}
        yield gauge("dtolbus_info", "Which version runs.", [({**labels, "version": version("dtolbus")}, 1)])
        yield gauge("dtolbus_start_time_seconds", "When it was started, since 1970.", [(labels, self._started_at)])
        yield gauge("dtolbus_healthy", "1 where /health answers 200.", [(labels, float(not self._told.problems()))])
        yield from self._told.metrics()


class _Collected(Collector):
    """Everything that a server tells, in the form of Prometheus' client."""

    def __init__(self, server: MetricsServer) -> None:
        self._server = server

    def collect(self) -> Iterator[Any]:
        return map(_family, self._server.collected())

    def describe(self) -> Iterator[Any]:
        return iter(())


def _family(metric: Metric | Histogram) -> Any:
    if isinstance(metric, Histogram):
        names = list(metric.series[0].labels) if metric.series else []
        family = HistogramMetricFamily(metric.name, metric.about, labels=names)
        for series in metric.series:
            family.add_metric([printable(series.labels[name]) for name in names], series.buckets, series.sum)
        return family
    names = list(metric.samples[0][0]) if metric.samples else []
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    found = make(metric.name, metric.about, labels=names)
    for labels, value in metric.samples:
        found.add_metric([printable(labels[name]) for name in names], value)
    return found


class _Server(ThreadingTCPServer):
    """A few connections at a time, each on a thread, none for long."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name != "nt"  # there it would let two have the port
    request_queue_size = _CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseRequestHandler]) -> None:
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:  # no descriptor is left: to try on at once would take a whole core
            time.sleep(_LOOK_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            is_too_much = len(self._open) >= _CONNECTIONS
            if not is_too_much:
                self._open[request] = time.monotonic() + _EACH_S
        if is_too_much:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        now = time.monotonic()
        with self._lock:
            for connection, until in self._open.items():
                if now > until:
                    _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever asks may go at any time."""


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _handler(server: MetricsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _EACH_S

        def do_GET(self) -> None:  # the base class's name
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, TEXT, server.metrics())
            elif path == "/health":
                status, body = server.health()
                self._answer(status, "application/json", body)
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics and /health are served\n")

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def version_string(self) -> str:
            return "dtolbus"

        def log_message(self, format: str, *args: Any) -> None:  # the base class's name
            """Log nothing: a scrape is no news."""

    return Handler


def _shown(text: str) -> str:
    return printable(masked(text))[:_LONGEST]


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: stop what uses it, or choose another with --metrics-port"
    if error.errno == errno.EACCES:
        return f"port {port} is not allowed for this user: choose one above 1023 with --metrics-port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"--metrics-host {host}: this machine has no such address; choose one that it has"
    return f"port {port} cannot be had ({error}): choose another with --metrics-port"
