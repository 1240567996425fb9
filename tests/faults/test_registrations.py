"""Which sinks a journal knows: names that are no file's, files that cannot be written, sinks that are forgotten."""

import logging
from pathlib import Path

import pytest
from tests.e2e.commands import run
from tests.faults.feed import Feed
from tests.producer.bus import Peer, RunningGateway, eventually

from dtolbus.registrations import read_registrations, registration_path
from dtolbus.wire import Ack, Hello, Refused
from dtolbus_producer import listing, registry
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify

LONG = "ü" * 37  # 222 bytes as a file's name, in which ü is %C3%BC
LONGEST = "ü" * 36 + "abcd"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with an empty journal."""
    (tmp_path / "data" / "journal").mkdir(parents=True)
    return tmp_path / "data"


def names(data: Path) -> list[str]:
    return [known.name for known in read_registrations(data)]


def refusal(peer: Peer) -> Refused:
    answer = peer.next()
    assert isinstance(answer, Refused)
    return answer


# ---- names ----


def test_a_worker_whose_name_is_too_long_for_a_file_does_not_begin(tmp_path: Path) -> None:
    told = run("dtolbus-sqlite", "--out", str(tmp_path / "x.sqlite"), "--name", LONG)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1), told.stderr
    assert "--name" in told.stderr
    assert "is too long for a file's name: its first 36 characters would fit" in told.stderr
    assert not (tmp_path / "x.sqlite").exists()


@pytest.mark.parametrize(("name", "why"), [(LONG, "its first 36 characters would fit"), ("a\nb", "cannot be shown")])
def test_a_gateway_refuses_for_good_a_name_that_cannot_be_a_files(data: Path, name: str, why: str) -> None:
    with RunningGateway(data) as gateway, gateway.client() as worker:
        worker.send(Ack(name, "d", "t", "r", 1))
        worker.send(Ack("", "d", "t", "r", 1))
        worker.send(Hello(name, destination_id="d"))
        (*_, refused) = worker.until(lambda m: isinstance(m, Refused) and m.is_final)
        assert isinstance(refused, Refused)
        assert why in refused.why
        worker.hello(worker=LONGEST, destination_id="d")
        eventually(lambda: names(data) == [LONGEST])


# ---- what cannot be written ----


def test_a_worker_is_told_that_it_cannot_be_registered_goes_on_and_is_registered_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "bus.sqlite"
    with Feed(tmp_path / "data") as feed, caplog.at_level(logging.WARNING, "dtolbus.client"):
        in_the_way = registration_path(feed.data, "sqlite")
        in_the_way.mkdir(parents=True)
        destination = SqliteDestination(place, blocks="samples")
        with feed.thread("sqlite", destination, str(place), blocks="samples") as worker:
            eventually(lambda: any("cannot be registered" in str(vars(record)) for record in caplog.records))
            assert str(in_the_way) in str(vars(caplog.records[-1]))
            feed.grows()
            assert worker.failure is None
            in_the_way.rmdir()
            feed.catches_up("sqlite")
    assert sum("cannot be registered" in str(vars(record)) for record in caplog.records) == 1
    assert verify(feed.data).complete


# ---- forgetting ----


def test_a_hello_after_the_forget_counts_though_the_clock_was_set_back(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunningGateway(data) as gateway, gateway.client() as worker:
        worker.hello(worker="a", destination_id="d")
        eventually(lambda: names(data) == ["a"])
        listing.forget_sink(data, "a")
        monkeypatch.setattr(registry, "_now", lambda: "2001-01-01T00:00:00+00:00")
        worker.hello(worker="a", destination_id="d")
        eventually(lambda: names(data) == ["a"])
        worker.send(Ack("a", "d", "t", "r", 7))
        eventually(lambda: [p.position for p in read_registrations(data)[0].positions.values()] == [7])


def test_an_acknowledgement_under_way_does_not_undo_a_forget(data: Path) -> None:
    """Whoever sent it and lives is asked to say Hello."""
    with RunningGateway(data) as gateway, gateway.client() as worker:
        worker.hello(worker="a", destination_id="d")
        eventually(lambda: names(data) == ["a"])
        listing.forget_sink(data, "a")
        worker.send(Ack("a", "d", "t", "r", 7))
        assert refusal(worker).is_unregistered
    assert names(data) == []


def test_an_acknowledgement_not_yet_written_does_not_undo_a_forget(data: Path) -> None:
    with RunningGateway(data) as gateway, gateway.client() as worker:
        worker.hello(worker="a", destination_id="d")
        eventually(lambda: names(data) == ["a"])
        for position in range(20):
            worker.send(Ack("a", "d", "t", "r", position))
        worker.hello(worker="")  # answered once all of them are taken
        listing.forget_sink(data, "a")
        worker.hello(worker="b", destination_id="e")
        eventually(lambda: names(data) == ["b"])
    assert names(data) == ["b"]


def test_a_sink_that_was_forgotten_while_no_gateway_ran(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunningGateway(data) as gateway, gateway.client() as worker:
        worker.hello(worker="a", destination_id="d")
    listing.forget_sink(data, "a")
    monkeypatch.setattr(registry, "_now", lambda: "2001-01-01T00:00:00+00:00")
    with RunningGateway(data) as gateway, gateway.client() as worker:
        worker.send(Ack("a", "d", "t", "r", 7))
        assert refusal(worker).is_unregistered
        worker.hello(worker="a", destination_id="d")
    assert names(data) == ["a"]


def test_the_name_of_a_forgotten_sink_is_free_for_another_place(data: Path) -> None:
    with RunningGateway(data) as gateway, gateway.client() as worker:
        worker.hello(worker="a", destination_id="d", place="/one")
        eventually(lambda: names(data) == ["a"])
        worker.send(Hello(worker="a", destination_id="e", place="/two"))
        assert "sinks forget a" in refusal(worker).why
        listing.forget_sink(data, "a")
        worker.hello(worker="a", destination_id="e", place="/two")
        eventually(lambda: [known.place for known in read_registrations(data)] == ["/two"])


def test_a_worker_that_runs_on_is_registered_anew_with_all_that_it_has(tmp_path: Path) -> None:
    place = tmp_path / "bus.sqlite"
    with Feed(tmp_path / "data") as feed:
        destination = SqliteDestination(place, blocks="samples")
        with feed.thread("sqlite", destination, str(place), blocks="samples"):
            feed.advances("sqlite")
            listing.forget_sink(feed.data, "sqlite")
            feed.catches_up("sqlite")
    certificate = verify(feed.data)
    assert certificate.complete, certificate
