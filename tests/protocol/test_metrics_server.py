"""The server of /metrics and /health, asked by whoever reaches it."""

import json
import socket
from collections.abc import Iterator

import pytest
from tests.e2e.scraping import Scraped, get, health
from tests.producer.bus import eventually

from dtolbus import metricsserver
from dtolbus.errors import CannotStartError
from dtolbus.metrics import MOST_SAMPLES, OTHERS, Durations, Histogram, counter, gauge
from dtolbus.metricsserver import MetricsServer


class Telling:
    """Tells what it is given."""

    def __init__(self, *problems: str, streams: int = 1) -> None:
        self.found = list(problems)
        self.streams = streams
        self.durations = Durations()

    def metrics(self) -> Iterator[object]:
        yield counter("dtolbus_x_total", "X.", [({"stream": f"d/t{n}"}, 1) for n in range(self.streams)])
        yield gauge("dtolbus_odd", "Odd.", [({"stream": 'a"b\\c\nd\x1b[2J'}, 1.5)])
        yield Histogram("dtolbus_took_seconds", "Took.", [self.durations.series({"stream": s}) for s in "ab"])

    def problems(self) -> list[str]:
        return self.found

    def facts(self) -> list[str]:
        return ["runs"]


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer("127.0.0.1", 0, "part")
    yield made
    made.close()


def test_it_is_not_healthy_before_anything_is_told(server: MetricsServer) -> None:
    assert health(server.port) == (503, {"part": "part", "healthy": False, "problems": ["starting"], "facts": []})
    server.tell(Telling())
    assert health(server.port) == (200, {"part": "part", "healthy": True, "problems": [], "facts": ["runs"]})


def test_a_password_in_an_error_is_not_told(server: MetricsServer) -> None:
    server.tell(Telling("postgresql://ada:s3cret@db/lab refuses\nall", "x" * 5000))
    status, body = get(server.port, "/health")
    assert status == 503
    assert b"s3cret" not in body
    problems = json.loads(body)["problems"]
    assert problems[0] == "postgresql://ada:…@db/lab refuses\\nall"
    assert len(problems[1]) == 1000


def test_however_many_streams_there_are_the_series_are_bounded(server: MetricsServer) -> None:
    server.tell(Telling(streams=1000))
    found = Scraped(server.port).by("stream", "dtolbus_x_total")
    assert len(found) == MOST_SAMPLES + 1
    assert found[OTHERS] == 1000 - MOST_SAMPLES


def test_names_forge_no_line(server: MetricsServer) -> None:
    server.tell(Telling())
    body = get(server.port, "/metrics")[1].decode()
    assert "\x1b" not in body
    assert 'dtolbus_odd{stream="a\\"b\\\\c\\\\nd\\\\x1b[2J"} 1.5' in body


def test_durations_are_counted_by_bounds(server: MetricsServer) -> None:
    told = Telling()
    for took_s in (0.0005, 0.005, 0.05, 20.0):
        told.durations.add(took_s)
    server.tell(told)
    seen = Scraped(server.port)
    counts = [
        seen.one("dtolbus_took_seconds_bucket", stream="a", le=le) for le in ("0.001", "0.01", "0.1", "10.0", "+Inf")
    ]
    assert counts == [1, 2, 3, 3, 4]
    assert seen.one("dtolbus_took_seconds_sum", stream="b") == pytest.approx(20.0555)


def test_those_who_are_slow_keep_nobody_from_asking(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metricsserver, "_EACH_S", 0.2)
    server.tell(Telling())
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    try:
        for one in slow:
            one.sendall(b"GET /metr")
        eventually(lambda: health_or_nothing(server.port) == 200)
        for one in slow:
            one.settimeout(20)
            try:
                assert one.recv(1) == b""
            except ConnectionError:
                continue
    finally:
        for one in slow:
            one.close()


def health_or_nothing(port: int) -> int:
    try:
        return health(port)[0]
    except Exception:
        return 0


def test_a_port_that_is_taken_is_named(server: MetricsServer) -> None:
    with pytest.raises(CannotStartError, match=f"port {server.port} is in use: stop what uses it, or choose another"):
        MetricsServer("127.0.0.1", server.port, "other")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CannotStartError, match=r"--metrics-host 192\.0\.2\.1: this machine has no such address"):
        MetricsServer("192.0.2.1", 0, "part")
