"""What a gateway tells of itself: what it publishes, whom it serves, how far behind each sink is."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from dtolbus.errors import RawFormatError
from dtolbus.metrics import Metric, by_stream, counter, gauge
from dtolbus.registrations import SINKS_FOLDER, Registration, read_registration
from dtolbus.topics import stream_name
from dtolbus_producer.registry import Registry
from dtolbus_producer.serving import FetchService
from dtolbus_producer.tailing import JournalTail, RunHead

STILL_S = 10.0
"""A gateway whose loop has not turned for so long is not healthy."""
_ESTABLISHED = "01"
"""Of a connection, in Linux' own list."""
_SERVED = {"live": 0, "catchup": 1}


class Watched(Protocol):
    """What is looked at of a gateway: numbers that its loop bumps."""

    turned_at: float
    """When the loop last turned, monotonic s."""
    published: Counter[tuple[str, str]]
    """Records published, by device and task."""
    refused: Counter[str]
    """Requests refused, by cause: one of a few."""

    @property
    def welcoming(self) -> int:
        """Clients that are being told the runs."""


class GatewayFacts:
    """Of one gateway, whose parts these are; `ports` are that of the live records and that of the catch-up."""

    def __init__(
        self,
        data: Path,
        gateway: Watched,
        tail: JournalTail,
        fetches: FetchService,
        registry: Registry,
        ports: tuple[int, int],
    ) -> None:
        self._data = data
        self._gateway = gateway
        self._tail = tail
        self._fetches = fetches
        self._registry = registry
        self._ports = ports
        self._lags = Lags(data)

    def problems(self) -> list[str]:
        """Return why it does not serve the journal."""
        still_s = time.monotonic() - self._gateway.turned_at
        found = [f"its loop has stood still for {still_s:.0f} s"] if still_s > STILL_S else []
        try:
            with os.scandir(self._data / "journal") as entries:
                next(entries, None)
        except OSError as error:
            found.append(f"the journal cannot be read: {error}")
        return found + self._tail.problems(time.monotonic())

    def facts(self) -> list[str]:
        """Return what it does."""
        published = sum(self._gateway.published.copy().values())
        return [f"serves; {published} records published since its start"]

    def metrics(self) -> Iterable[Metric]:
        """Yield all of it."""
        published = {stream_name(*stream): n for stream, n in self._gateway.published.copy().items()}
        yield counter("dtolbus_gateway_published_records_total", "Records published.", by_stream(published))
        runs = self._tail.heads()
        heads: Counter[str] = Counter()
        for info, head, _ in runs:
            heads[stream_name(info.device, info.task)] += head
        yield gauge("dtolbus_gateway_head_records", "Durable records of all runs in the journal.", by_stream(heads))
        yield gauge("dtolbus_gateway_runs", "Runs in the journal.", [({}, len(runs))])
        yield gauge("dtolbus_gateway_runs_recording", "Runs under way.", [({}, sum(not over for *_, over in runs))])
        served = self._fetches
        yield counter("dtolbus_gateway_backfilled_records_total", "Records fetched by clients.", [({}, served.records)])
        yield counter("dtolbus_gateway_backfilled_bytes_total", "Bytes of them.", [({}, served.bytes)])
        yield gauge("dtolbus_gateway_fetches", "Clients that are fetching.", [({}, served.clients)])
        yield gauge("dtolbus_gateway_welcomes", "Clients that are told the runs.", [({}, self._gateway.welcoming)])
        causes = [({"cause": cause}, float(n)) for cause, n in sorted(self._gateway.refused.copy().items())]
        yield counter("dtolbus_gateway_refused_total", "What was refused, or could not be read.", causes)
        yield from self._connections()
        sinks = self._lags.of(self._registry.known(), runs)
        lags = [({"sink": sink}, float(lag)) for sink, lag in sorted(sinks.items())]
        yield gauge("dtolbus_gateway_sinks", "Sinks that are registered.", [({}, len(sinks))])
        yield gauge("dtolbus_gateway_sink_lag_records", "Records that a sink has not acknowledged.", lags)

    def _connections(self) -> Iterable[Metric]:
        """Yield how many connections there are, where the system tells."""
        if sys.platform != "linux":
            return
        try:
            counts = connections(Path("/proc/self/net/tcp").read_text(), self._ports)
        except OSError:
            return
        samples = [({"socket": name}, float(counts[self._ports[place]])) for name, place in _SERVED.items()]
        yield gauge("dtolbus_gateway_connections", "Connections of clients.", samples)


def connections(listed: str, ports: Iterable[int]) -> dict[int, int]:
    """Return how many connections there are at each of the ports, of Linux' list of all."""
    counts = dict.fromkeys(ports, 0)
    for line in listed.splitlines()[1:]:
        words = line.split()
        port = int(words[1].rpartition(":")[2], 16)
        if port in counts and words[3] == _ESTABLISHED:
            counts[port] += 1
    return counts


class Lags:
    """How far the registered sinks are behind."""

    def __init__(self, data: Path) -> None:
        self._folder = data / SINKS_FOLDER
        self._read: dict[Path, tuple[int, Registration]] = {}
        """What the files say, by when they changed."""

    def of(self, known: Mapping[str, Registration], runs: Iterable[RunHead]) -> dict[str, int]:
        """Return how many records each sink lacks; `known` are those that spoke since the gateway's start."""
        sinks = {**self._unheard(known), **known}
        everything = list(runs)
        return {name: _lag(sink, everything) for name, sink in sinks.items()}

    def _unheard(self, known: Mapping[str, Registration]) -> dict[str, Registration]:
        """Return those that have said nothing since the gateway's start."""
        found = {}
        try:
            paths = sorted(self._folder.glob("*.json"))
        except OSError:
            return {}
        for path in paths:
            try:
                changed_ns = path.stat().st_mtime_ns
                before = self._read.get(path)
                if before is None or (before[0] != changed_ns and before[1].name not in known):
                    before = self._read[path] = (changed_ns, read_registration(path))
                found[before[1].name] = before[1]
            except (OSError, RawFormatError):
                continue
        return found


def _lag(sink: Registration, runs: list[RunHead]) -> int:
    lag = 0
    for info, head, _ in runs:
        position = sink.positions.get(info.run_id)
        missing = head - (0 if position is None else position.position)
        if missing > 0 and sink.takes(info):
            lag += missing
    return lag
