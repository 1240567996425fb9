"""What a worker tells of itself, step by step."""

import time
from collections.abc import Iterator

import pytest
from tests.protocol.specimens import block, block_run

from dtolbus.client import Client, Endpoints
from dtolbus.records import Gap, RunInfo, RunStatus
from dtolbus.wire import Heartbeat, RunRecord
from dtolbus_workers import tally as telling
from dtolbus_workers.destination import Position, RunBatch
from dtolbus_workers.tally import Behind, Tally

RUN = block_run("0190a5f4-0000-7000-8000-000000000001", device="d", task="t")
NEXT = block_run("0190a5f4-0000-7000-8000-000000000002", device="d", task="t")


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client(Endpoints("tcp://127.0.0.1:9", "tcp://127.0.0.1:9"))
    yield made
    made.close()


def tally_of(client: Client, positions: dict[str, Position]) -> Tally:
    made = Tally("s", positions)
    made.follow(client)
    return made


def heard(tally: Tally, client: Client, run: RunInfo, head: int, *, over: bool = False) -> None:
    tally.heard(run)
    client.sequencer.heard(Heartbeat(RunStatus(run, "ended" if over else "running", 0, head)))


def taken(client: Client, run: RunInfo, count: int) -> None:
    for index in range(count):
        client.sequencer.heard(RunRecord(run, block(run, index)))


def test_lag_is_what_is_not_committed_over_all_runs_of_a_stream(client: Client) -> None:
    positions: dict[str, Position] = {}
    tally = tally_of(client, positions)
    heard(tally, client, RUN, 5, over=True)
    heard(tally, client, NEXT, 3)
    assert tally.behind() == {"d/t": Behind(8, 0)}
    taken(client, RUN, 5)
    assert tally.behind() == {"d/t": Behind(8, 0)}, "it is received, not committed"
    positions[RUN.run_id] = Position(5, 0)
    assert tally.behind() == {"d/t": Behind(8, 5)}
    assert tally._heard.keys() == {NEXT.run_id}, "a run that is whole is kept as a number"
    positions[NEXT.run_id] = Position(2, 0)
    assert tally.behind() == {"d/t": Behind(8, 7)}


def test_runs_that_are_whole_are_not_kept_one_by_one(client: Client) -> None:
    runs = [block_run(f"0190a5f4-0000-7000-8000-{n:012d}", device="d", task="t") for n in range(2500)]
    tally = tally_of(client, {run.run_id: Position(1, 0) for run in runs})
    client.sequencer._positions.update({run.run_id: 1 for run in runs})
    for run in runs:
        heard(tally, client, run, 1, over=True)
    assert len(tally._heard) < 2000
    assert tally.behind() == {"d/t": Behind(2500, 2500)}


def test_records_that_come_again_are_counted(client: Client) -> None:
    tally = tally_of(client, {})
    tally.heard(RUN)
    taken(client, RUN, 3)
    taken(client, RUN, 2)
    assert client.sequencer.duplicates == 2


def test_what_a_commit_held_is_counted() -> None:
    tally = Tally("s", {})
    records = tuple(block(RUN, index) for index in (0, 1, 4))
    tally.begins()
    tally.stored(RunBatch(RUN, 0, 5, records, (Gap(2, 4, "lost"),), 2, {1: "odd"}))
    assert (tally.records, tally.put_aside, tally.backfilled) == ({"d/t": 2}, {"d/t": 1}, {"d/t": 2})
    assert (tally.gaps, tally.gap_records) == ({"d/t": 1}, {"d/t": 2})
    assert sum(tally.durations.counts) == 1


def test_a_sink_that_fails_for_long_is_not_healthy_until_it_stores(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = tally_of(client, {})
    client.heard_at = time.monotonic()
    tally.begins()
    tally.failed(OSError("no room"))
    assert tally.problems() == []
    monkeypatch.setattr(telling, "FAILING_S", -1.0)
    assert tally.problems() == ["the sink has not stored for 0 s: no room"]
    tally.begins()
    assert tally.problems() == ["the sink has not stored for 0 s: no room"], "it is only tried again"
    tally.stored(RunBatch(RUN, 0, 1, (block(RUN, 0),)))
    assert tally.problems() == []
    assert tally.failures == 1


def test_a_commit_that_hangs_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = tally_of(client, {})
    client.heard_at = time.monotonic()
    monkeypatch.setattr(telling, "HANGING_S", -1.0)
    tally.begins()
    assert tally.problems() == ["a commit has taken 0 s until now"]
    tally.finalized()
    assert tally.problems() == []


def test_a_gateway_is_awaited_longer_where_nothing_is_recorded(client: Client) -> None:
    tally = tally_of(client, {})
    assert tally.problems()[0].startswith("the gateway at tcp://127.0.0.1:9 has not been heard since the start")
    client.heard_at = time.monotonic() - 30
    assert tally.problems() == []
    heard(tally, client, NEXT, 5, over=True)
    assert tally.problems() == [], "of a run that is over nothing comes by itself"
    heard(tally, client, RUN, 5)
    assert tally.problems() == ["the gateway at tcp://127.0.0.1:9 has not been heard for 30 s"]


def test_a_catch_up_that_does_not_answer_is_told_although_live_records_come(client: Client) -> None:
    tally = tally_of(client, {})
    client.heard_at = time.monotonic()
    assert tally.problems() == []
    tally._started_at -= 20
    told = "the gateway's catch-up at tcp://127.0.0.1:9 has not told its runs since the start, 20 s ago"
    assert tally.problems() == [told]
    client.welcomed, client.answered_at = True, time.monotonic() - 80
    assert tally.problems() == []
    client.answered_at -= 20
    assert tally.problems() == ["the gateway's catch-up at tcp://127.0.0.1:9 has not answered for 100 s"]


def test_no_connection_made_anew_is_none(client: Client) -> None:
    (told,) = [one for one in tally_of(client, {}).metrics() if one.name == "dtolbus_worker_reconnects_total"]
    assert [value for _, value in told.samples] == [0]
