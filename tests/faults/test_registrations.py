"""Which sinks a journal knows: names that are no file's, files that cannot be written, sinks that are forgotten."""

import contextlib
import logging
from pathlib import Path

import pytest
from tests.e2e.commands import run
from tests.faults.feed import Feed
from tests.producer.bus import Peer, RunningGateway, eventually
from tests.protocol.specimens import block, block_run

from dtolbus.registrations import read_registrations, registration_path
from dtolbus.runs import run_path
from dtolbus.wire import Ack, Hello, Refused, RunPosition
from dtolbus_producer import listing, registering, registry
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify

LONG = "ü" * 37  # 222 bytes as a file's name, in which ü is %C3%BC
LONGEST = "ü" * 36 + "abcd"
RUN = block_run("0190a5f4-0000-7000-8000-000000000001")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a journal, which has a run `r` of `d/t` that cannot be read now."""
    (tmp_path / "data" / "journal" / "d" / "t" / "r").mkdir(parents=True)
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


# ---- what no journal has ----


def test_acknowledgements_of_runs_that_the_journal_never_had_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may acknowledge could name runs without end; it is told, and the gateway's log says it once."""
    run = RUN
    with (
        contextlib.closing(RunWriter(tmp_path / "journal", run)),
        RunningGateway(tmp_path) as gateway,
        gateway.client() as worker,
    ):
        assert worker.hello().runs
        worker.hello(worker="a", destination_id="d", place="/a")
        for number in range(50):
            worker.send(Ack("a", run.device, run.task, f"{run.run_id}-{number}", 7))
            assert refusal(worker).why == registry.UNKNOWN_RUN
        worker.send(Ack("a", "x" * 10_000, "y", run.run_id, 1))
        eventually(lambda: positions(tmp_path, "a") != {})
    (sink,) = read_registrations(tmp_path)
    assert {run_id: (at.stream, at.position) for run_id, at in sink.positions.items()} == {
        run.run_id: ("dt9806/vibration", 1)
    }
    assert sum(record.message == "message dropped" for record in caplog.records) == 1


def test_a_run_that_went_is_acknowledged_all_the_same(data: Path) -> None:
    """Its records were on their way; `verify` is to tell that the journal lacks what a sink has."""
    with contextlib.closing(RunWriter(data / "journal", RUN)) as writer:
        writer.append(block(RUN, 0))
    path = run_path(data / "journal", RUN.device, RUN.task, RUN.run_id)
    with RunningGateway(data) as gateway, gateway.client() as worker:
        assert RUN.run_id in {
            status.info.run_id for status in worker.hello(worker="a", destination_id="d", place="/a").runs
        }
        path.rename(data / "elsewhere")
        eventually(lambda: RUN.run_id not in {status.info.run_id for status in worker.hello().runs})
        worker.send(Ack("a", RUN.device, RUN.task, RUN.run_id, 1))
        eventually(lambda: positions(data, "a") == {RUN.run_id: 1})
    with RunningGateway(data) as gateway, gateway.client() as worker:
        said = (RunPosition(RUN.device, RUN.task, RUN.run_id, 1),)
        worker.hello(worker="a", destination_id="d", place="/a", positions=said)
        worker.send(Ack("a", RUN.device, RUN.task, RUN.run_id, 2))
        eventually(lambda: positions(data, "a") == {RUN.run_id: 2})
    failures = verify(data, sink_names=("a",)).failures
    assert [failure for failure in failures if f"has run {RUN.run_id}, which the journal does not have" in failure]


def test_of_what_the_journal_does_not_have_a_sink_may_name_so_much(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest stay, and all that the journal has, however old."""
    monkeypatch.setattr(registering, "MOST_ELSEWHERE", 5)
    with contextlib.closing(RunWriter(data / "journal", RUN)):
        pass
    foreign = [f"0190b5f4-0000-7000-8000-{number:012d}" for number in range(40)]
    with RunningGateway(data) as gateway, gateway.client() as worker:
        said = [RunPosition("", "", run_id, 1) for run_id in (RUN.run_id, "x" * 5000, *foreign)]
        for start in range(0, len(said), 10):
            part = tuple(said[start : start + 10])
            worker.send(Hello("a", destination_id="d", positions=part, more=True))
        worker.hello(worker="a", destination_id="d")
        eventually(lambda: positions(data, "a") == dict.fromkeys((RUN.run_id, *foreign[-5:]), 1))


def test_a_journal_has_so_many_sinks_and_those_it_has_go_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_SINKS", 3)
    monkeypatch.setattr(registry, "_COUNT_EVERY_S", 0.0)
    with RunningGateway(data) as gateway, gateway.client() as worker:
        for name in ("a", "b", "c"):
            worker.hello(worker=name, destination_id=name)
        worker.send(Hello("d", destination_id="d"))
        refused = refusal(worker)
        assert (refused.is_final, "3 sinks are registered" in refused.why) == (True, True)
        worker.hello(worker="b", destination_id="b")
        eventually(lambda: names(data) == ["a", "b", "c"])
        listing.forget_sink(data, "a")
        worker.hello(worker="d", destination_id="d")
        eventually(lambda: names(data) == ["b", "c", "d"])


def positions(data: Path, name: str) -> dict[str, int]:
    known = read_registrations(data)
    return {run_id: at.position for sink in known if sink.name == name for run_id, at in sink.positions.items()}
