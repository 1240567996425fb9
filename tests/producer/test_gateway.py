import contextlib
import errno
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.producer.bus import RunningGateway, eventually, free_ports
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus import files, runs, wire
from dtolbus.errors import CannotStartError
from dtolbus.records import DaqBlock, RunInfo
from dtolbus.registrations import SINKS_FOLDER, read_registrations
from dtolbus.runs import RunFolder, run_path, segment_name
from dtolbus.wire import (
    Ack,
    Credit,
    Done,
    Fetch,
    Heartbeat,
    Hello,
    Message,
    Refused,
    RunGap,
    RunPosition,
    RunRecord,
    Welcome,
    encode,
)
from dtolbus_producer import serving
from dtolbus_producer.catalog import Catalog
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.serving import FetchService, Held
from dtolbus_producer.tailing import JournalTail


@contextlib.contextmanager
def writing(data: Path, info: RunInfo, **settings: float) -> Iterator[RunWriter]:
    writer = RunWriter(data / "journal", info, **{"sync_ms": 0.0, **settings})  # type: ignore[arg-type]
    try:
        yield writer
    finally:
        writer.close()


def written(data: Path, info: RunInfo, count: int, **settings: float) -> None:
    with writing(data, info, **settings) as writer:
        for index in range(count):
            writer.append(block(info, index) if info.kind == "blocks" else reading(info, index))


def fetch_of(run: RunInfo, start: int, end: int, number: int = 7) -> Fetch:
    return Fetch(run.device, run.task, run.run_id, start, end, number)


def indexes(messages: list[Message]) -> list[int]:
    return [message.record.index for message in messages if isinstance(message, RunRecord)]


def is_beat(state: str, head: int) -> Callable[[Message], bool]:
    return lambda m: isinstance(m, Heartbeat) and (m.status.state, m.status.head) == (state, head)


class TestLive:
    def test_every_record_in_order_with_its_codes_and_the_end(self, tmp_path: Path) -> None:
        run = block_run()
        with writing(tmp_path, run) as writer, RunningGateway(tmp_path) as gateway, gateway.subscriber() as sub:
            sub.until(is_beat("running", 0))
            records = [block(run, 0), event(run, 1), *(block(run, index) for index in range(2, 40))]
            for record in records:
                writer.append(record)
            heard = sub.until(is_beat("running", 40))
            writer.close()
            sub.until(is_beat("ended", 40))
        assert indexes(heard) == list(range(40))
        for message, given in zip([m for m in heard if isinstance(m, RunRecord)], records, strict=True):
            assert message.run == run
            if isinstance(given, DaqBlock):
                assert isinstance(message.record, DaqBlock)
                np.testing.assert_array_equal(message.record.raw_codes, given.raw_codes)
                assert message.record.raw_codes.dtype == np.uint16
                assert message.record.t_utc_ns == given.t_utc_ns

    def test_how_far_a_run_is_told_as_published_between_heartbeats_too(self, tmp_path: Path) -> None:
        run, tail = block_run(), JournalTail(tmp_path / "journal", lambda path: None)
        with writing(tmp_path, run) as writer, contextlib.closing(tail):
            writer.append(block(run, 0))
            now = time.monotonic()
            assert any(is_beat("running", 1)(message) for message in tail.step(now))
            writer.append(block(run, 1))
            assert not any(isinstance(message, Heartbeat) for message in tail.step(now))
            assert [status.head for status in tail.statuses()] == [2]

    def test_large_blocks_are_intact(self, tmp_path: Path) -> None:
        run = block_run(channels=8, block_samples=12_500)
        with writing(tmp_path, run) as writer, RunningGateway(tmp_path) as gateway, gateway.subscriber() as sub:
            sub.until(is_beat("running", 0))
            for index in range(20):
                writer.append(block(run, index, samples=12_500))
            heard = sub.until(is_beat("running", 20))
        for message in heard:
            if isinstance(message, RunRecord):
                expected = block(run, message.record.index, samples=12_500).raw_codes
                np.testing.assert_array_equal(message.record.raw_codes, expected)
        assert indexes(heard) == list(range(20))

    def test_nothing_is_published_that_is_not_durable(self, tmp_path: Path) -> None:
        run = block_run()
        with writing(tmp_path, run, sync_ms=3_600_000.0) as writer:
            with RunningGateway(tmp_path) as gateway, gateway.subscriber() as sub, gateway.client() as client:
                for index in range(5):
                    writer.append(block(run, index))
                beats = [sub.next() for _ in range(5)]
                assert all(isinstance(beat, Heartbeat) and beat.status.head == 0 for beat in beats)
                client.hello()
                assert client.fetch(fetch_of(run, 0, 5)) == [Done(run.run_id, 0, 7)]
                writer.close()
                assert indexes(sub.until(is_beat("ended", 5))) == list(range(5))

    def test_a_restarted_gateway_begins_at_the_head_and_serves_what_was_before(self, tmp_path: Path) -> None:
        run = block_run()
        with writing(tmp_path, run) as writer:
            for index in range(10):
                writer.append(block(run, index))
            with RunningGateway(tmp_path) as gateway, gateway.subscriber() as sub, gateway.client() as client:
                sub.until(is_beat("running", 10))
                writer.append(block(run, 10))
                assert indexes(sub.until(is_beat("running", 11))) == [10]
                assert client.hello().runs[0].head == 11
                assert indexes(client.fetch(fetch_of(run, 0, 10))) == list(range(10))

    def test_topics_keep_streams_apart(self, tmp_path: Path) -> None:
        one, ten = block_run("run-1", device="dt1"), block_run("run-2", device="dt10")
        with writing(tmp_path, one) as first, writing(tmp_path, ten) as second, RunningGateway(tmp_path) as gateway:
            with gateway.subscriber("block/dt1/", "heartbeat/dt1/") as sub:
                sub.until(is_beat("running", 0))
                second.append(block(ten, 0))
                first.append(block(one, 0))
                heard = sub.until(is_beat("running", 1))
        assert {message.run.device for message in heard if isinstance(message, RunRecord)} == {"dt1"}

    def test_a_new_run_is_published_from_its_first_record(self, tmp_path: Path) -> None:
        (tmp_path / "journal").mkdir()
        with RunningGateway(tmp_path) as gateway, gateway.subscriber() as sub:
            with gateway.client() as client:
                assert client.hello().runs == ()
            run = reading_run()
            with writing(tmp_path, run) as writer:
                sub.until(is_beat("running", 0))
                writer.append(reading(run, 0))
                assert indexes(sub.until(is_beat("running", 1))) == [0]

    @pytest.mark.parametrize("when", ["while the gateway runs", "before the gateway starts"])
    def test_a_killed_producer_leaves_an_interrupted_run_that_is_served(self, tmp_path: Path, when: str) -> None:
        source = (
            "import sys, time; from pathlib import Path; from dtolbus_producer.journal import RunWriter\n"
            "from tests.protocol.specimens import block, block_run\n"
            "run = block_run(); writer = RunWriter(Path(sys.argv[1]), run, sync_ms=0)\n"
            "for index in range(5): writer.append(block(run, index))\n"
            "print('written', flush=True); time.sleep(600)"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", source, str(tmp_path / "journal")], stdout=subprocess.PIPE, cwd=Path.cwd()
        )
        with child, contextlib.ExitStack() as held:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == b"written"
            if when == "before the gateway starts":
                os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                child.wait()
            gateway = held.enter_context(RunningGateway(tmp_path))
            sub = held.enter_context(gateway.subscriber("heartbeat/"))
            if when == "while the gateway runs":
                sub.until(is_beat("running", 5))
                os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            sub.until(is_beat("interrupted", 5))
            client = held.enter_context(gateway.client())
            (status,) = client.hello().runs
            assert (status.state, status.final) == ("interrupted", 5)
            assert indexes(client.fetch(fetch_of(block_run(), 0, 5))) == list(range(5))


class TestFetch:
    def test_limits_and_reading_on(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 600)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            welcome = client.hello()
            assert [(status.state, status.final) for status in welcome.runs] == [("ended", 600)]
            got: list[int] = []
            while len(got) < 600:
                *records, done = client.fetch(fetch_of(run, len(got), 600))
                assert 0 < len(records) <= welcome.fetch_records
                got += indexes(records)
                assert done == Done(run.run_id, len(got), 7)
        assert got == list(range(600))

    def test_a_fetch_is_bounded_in_bytes(self, tmp_path: Path) -> None:
        run = block_run(channels=8, block_samples=25_000)
        with writing(tmp_path, run) as writer:
            for index in range(30):
                writer.append(block(run, index, samples=25_000))
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            *records, done = client.fetch(fetch_of(run, 0, 30))
        assert isinstance(done, Done)
        assert done.next == len(records) == -(-(8 << 20) // (8 * 25_000 * 2))

    def test_a_record_too_large_for_a_message_is_a_gap_and_silences_nobody(self, tmp_path: Path) -> None:
        run = block_run(channels=8, block_samples=5_000_000)
        with writing(tmp_path, run) as writer, RunningGateway(tmp_path) as gateway, contextlib.ExitStack() as held:
            sub, client = held.enter_context(gateway.subscriber()), held.enter_context(gateway.client())
            sub.until(is_beat("running", 0))
            writer.append(block(run, 0, codes=np.zeros((8, 5_000_000), dtype=np.uint16)))
            writer.append(block(run, 1))
            assert indexes(sub.until(is_beat("running", 2))) == [1]
            client.hello()
            gap, record, done = client.fetch(fetch_of(run, 0, 2))
        assert isinstance(gap, RunGap)
        assert (gap.from_index, gap.to_index) == (0, 1)
        assert "larger than a message" in gap.cause
        assert (indexes([record]), done) == ([1], Done(run.run_id, 2, 7))

    def test_beyond_the_head_there_is_nothing(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 3)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            *records, done = client.fetch(fetch_of(run, 1, 1 << 40))
            assert (indexes(records), done) == ([1, 2], Done(run.run_id, 3, 7))
            assert client.fetch(fetch_of(run, 3, 3)) == [Done(run.run_id, 3, 7)]

    def test_damage_is_a_gap_and_the_rest_is_served(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 30)
        path = run_path(tmp_path / "journal", run.device, run.task, run.run_id) / segment_name("blocks", 0)
        content = bytearray(path.read_bytes())
        content[content.index(b'"block_index":12') - 60] ^= 0xFF
        path.write_bytes(content)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            answers = client.fetch(fetch_of(run, 0, 30))
        gaps = [answer for answer in answers if isinstance(answer, RunGap)]
        assert [(gap.from_index, gap.to_index) for gap in gaps] == [(12, 13)]
        assert "damaged" in gaps[0].cause
        assert indexes(answers) == [index for index in range(30) if index != 12]
        assert answers[-1] == Done(run.run_id, 30, 7)

    def test_a_shortage_of_the_gateway_is_no_gap(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = block_run()
        written(tmp_path, run, 5)
        shortages = [OSError(errno.EMFILE, "Too many open files"), PermissionError(errno.EACCES, "Permission denied")]
        opened = runs.ChunkFile

        def open_later(*arguments: Any, **named: Any) -> Any:
            if shortages:
                raise shortages.pop()
            return opened(*arguments, **named)

        monkeypatch.setattr(runs, "ChunkFile", open_later)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            assert all(isinstance(client.fetch(fetch_of(run, 0, 5))[0], Refused) for _ in range(2))
            assert indexes(client.fetch(fetch_of(run, 0, 5))) == list(range(5))

    @pytest.mark.parametrize("what", ["RunFolder.__init__", "RunFolder.first", "Path.iterdir"])
    def test_a_run_that_cannot_be_opened_now_is_opened_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        written(tmp_path, block_run(), 5)
        owner, name = {"RunFolder": RunFolder, "Path": Path}[what.split(".")[0]], what.split(".")[1]
        method, shortages = getattr(owner, name), [OSError(errno.EMFILE, "Too many open files")] * 3

        def later(*arguments: Any) -> Any:
            if shortages:
                raise shortages.pop()
            return method(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, later)
            with RunningGateway(tmp_path) as gateway, gateway.client() as client:
                eventually(lambda: len(client.hello().runs) == 1)
                assert indexes(client.fetch(fetch_of(block_run(), 0, 5))) == list(range(5))

    @pytest.mark.parametrize(
        "request_",
        [
            Fetch("dt9806", "vibration", "no-such-run", 0, 1, 3),
            Fetch("other", "vibration", "run-1", 0, 1, 3),
            Fetch("dt9806", "vibration", "run-1", -1, 1, 3),
            Fetch("dt9806", "vibration", "run-1", 2, 1, 3),
            Fetch("dt9806", "vibration", "run-1", 9, 10, 3),
            Fetch("../..", "etc", "passwd", 0, 1, 3),
        ],
    )
    def test_what_cannot_be_is_refused(self, tmp_path: Path, request_: Fetch) -> None:
        written(tmp_path, block_run(), 3)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            (answer,) = client.fetch(request_)
        assert isinstance(answer, Refused)
        assert (answer.run_id, answer.number) == (request_.run_id, 3)
        assert answer.why

    def test_several_clients_are_served_and_one_that_vanishes_harms_nobody(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 200)
        with RunningGateway(tmp_path) as gateway, contextlib.ExitStack() as held:
            clients = [held.enter_context(gateway.client()) for _ in range(20)]
            for _ in range(5):
                with gateway.client() as gone:
                    gone.hello()
                    gone.ask(fetch_of(run, 0, 200))
            for client in clients:
                client.hello()
                client.ask(fetch_of(run, 0, 200))
            for client in clients:
                answers = client.until(lambda m: isinstance(m, Done))
                assert indexes(answers) == list(range(200))

    def test_publishing_goes_on_while_many_fetch(self, tmp_path: Path) -> None:
        old, run = block_run("run-0"), block_run("run-1")
        written(tmp_path, old, 256)
        with writing(tmp_path, run) as writer, RunningGateway(tmp_path) as gateway, contextlib.ExitStack() as held:
            sub = held.enter_context(gateway.subscriber("block/", "heartbeat/"))
            sub.until(is_beat("running", 0))
            clients = [held.enter_context(gateway.client()) for _ in range(8)]
            for client in clients:
                client.ask(fetch_of(old, 0, 256))
            for index in range(100):
                writer.append(block(run, index))
            assert indexes(sub.until(is_beat("running", 100))) == list(range(100))
            for client in clients:
                assert indexes(client.until(lambda m: isinstance(m, Done))) == list(range(256))

    def test_one_fetch_at_a_time(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 10)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            for number in (1, 2, 3):
                client.send(fetch_of(run, 0, 10, number))
            refusals = [client.next(), client.next()]
            assert [(r.number, r.why) for r in refusals if isinstance(r, Refused)] == [
                (2, "one fetch at a time: wait for Done"),
                (3, "one fetch at a time: wait for Done"),
            ]
            client.send(Credit(10, 1))
            *records, done = client.until(lambda m: isinstance(m, Done))
            assert (indexes(records), done) == (list(range(10)), Done(run.run_id, 10, 1))
            assert indexes(client.fetch(fetch_of(run, 8, 10, 4))) == [8, 9]


class TestCredit:
    def test_what_is_sent_is_what_was_granted(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 30)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            client.send(fetch_of(run, 0, 20, 5))
            client.send(Credit(1000, 4))  # of another fetch
            client.send(Credit(-3, 5))
            client.send(Credit(3, 5))
            got = [client.next() for _ in range(3)]
            assert isinstance(client.hello(), Welcome)  # and nothing before it
            client.send(Credit(17, 5))
            *rest, done = client.until(lambda m: isinstance(m, Done))
        assert indexes([*got, *rest]) == list(range(20))
        assert done == Done(run.run_id, 20, 5)

    def test_clients_that_grant_nothing_or_stop_granting_harm_nobody(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 100)
        with RunningGateway(tmp_path) as gateway, contextlib.ExitStack() as held:
            mean = [held.enter_context(gateway.client()) for _ in range(60)]
            for number, client in enumerate(mean):
                client.ask(fetch_of(run, 0, 100), credit=number % 3)
            with gateway.client() as client:
                client.hello()
                for _ in range(5):
                    assert indexes(client.fetch(fetch_of(run, 0, 100))) == list(range(100))
            for number, client in enumerate(mean):
                assert len([client.next() for _ in range(number % 3)]) == number % 3
                assert client.socket.poll(0) == 0
                client.send(Credit(100, 7))
                assert isinstance(client.until(lambda m: isinstance(m, Done))[-1], Done)

    def test_who_grants_nothing_makes_room_for_who_does(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "_CLIENTS", 4)
        run = block_run()
        written(tmp_path, run, 10)
        with RunningGateway(tmp_path) as gateway, contextlib.ExitStack() as held:
            for _ in range(6):
                mean = held.enter_context(gateway.client())
                mean.send(fetch_of(run, 0, 10))
                mean.hello()
            with gateway.client() as client:
                assert indexes(client.fetch(fetch_of(run, 0, 10))) == list(range(10))

    def test_all_clients_together_are_held_to_the_rate(self, tmp_path: Path) -> None:
        sent: list[tuple[float, int]] = []
        run = block_run(channels=8, block_samples=12_500)
        with writing(tmp_path, run) as writer:
            for index in range(20):
                writer.append(block(run, index, samples=12_500))
        path = run_path(tmp_path / "journal", run.device, run.task, run.run_id)
        fetches = FetchService(lambda run_id: Held(run, path, 20), catchup_mb_s=10.0)
        keys = [b"one", b"two"]
        for key in keys:
            assert fetches.ask(key, fetch_of(run, 0, 20)) is None
            fetches.grant(key, Credit(100, 7))
        now = 1000.0
        while fetches.wait_s(now) is not None:
            fetches.serve(lambda key, frames: sent.append((now, sum(map(len, frames)))) is None, now)  # noqa: B023  # called at once
            now += 0.001
        fetches.close()
        total = sum(size for _, size in sent)
        assert total > 2 * 20 * 200_000
        assert sent[-1][0] - 1000.0 == pytest.approx(total / 10e6, abs=0.15)


class TestForeignMessages:
    def test_they_are_counted_logged_once_and_harm_nobody(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = block_run()
        written(tmp_path, run, 3)
        good = encode(fetch_of(run, 0, 3))
        bad: list[list[Any]] = [
            [b""],
            [b"control/"],
            [b"control/", b""],
            [b"control/", b"\xdc\x00\x02\x01"],
            [b"control/", random.Random(5).randbytes(2000)],
            [b"control/", b"\x93\x63\x0c\x90"],
            [b"control/", bytes(good[1])[:-3]],
            [b"control/", bytes(good[1]), b"more", b"frames", b"than", b"allowed"],
            [b"x"] * 500,
            [b"control/", b"\x93\x01\x01" + b"\x90" * 40],
            wire._sealed(b"control/", b"\x93\x02\x01" + b"\x90" * 40),
        ]
        with caplog.at_level(logging.WARNING), RunningGateway(tmp_path) as gateway, gateway.client() as client:
            for frames in bad * 3:
                client.socket.send_multipart(frames)
                client.until(lambda m: isinstance(m, Refused))
            client.send(Heartbeat(client.hello().runs[0]))
            assert isinstance(client.next(), Refused)
            assert indexes(client.fetch(fetch_of(run, 0, 3))) == [0, 1, 2]
        dropped = [record for record in caplog.records if record.message == "message dropped"]
        assert 5 <= len(dropped) <= len(bad)
        assert {vars(record)["from"] for record in dropped} == {"127.0.0.1"}

    @pytest.mark.parametrize(
        "what", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\xff" * 70]
    )
    def test_other_protocols_at_either_port(self, tmp_path: Path, what: bytes) -> None:
        run = block_run()
        written(tmp_path, run, 1)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            for port in (gateway.pub_port, gateway.catchup_port):
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.sendall(what)
            assert indexes(client.fetch(fetch_of(run, 0, 1))) == [0]

    def test_a_huge_frame(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 1)
        with RunningGateway(tmp_path) as gateway, gateway.client() as stranger, gateway.client() as client:
            stranger.socket.send_multipart([b"control/", bytes(8 << 20)])
            client.hello()
            assert indexes(client.fetch(fetch_of(run, 0, 1))) == [0]


class TestRegistrations:
    def test_hello_and_acknowledgements_are_kept(self, tmp_path: Path) -> None:
        run = block_run()
        written(tmp_path, run, 5)
        facts = {"worker": "my sink/1", "sink": "sqlite", "place": "/x.sqlite", "destination_id": "id-1"}
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello(**facts, topics=("block/",), options={"blocks": "both"})
            client.send(Ack("my sink/1", run.device, run.task, run.run_id, 3, 2))
            client.send(Ack("nobody", run.device, run.task, run.run_id, 3, 2))
            assert client.next() == Refused("no sink 'nobody' is registered: say Hello", is_unregistered=True)
            eventually(lambda: any(sink.positions for sink in read_registrations(tmp_path)))
            client.hello(**facts, positions=(RunPosition("", "", run.run_id, 1),))
            client.send(Ack("my sink/1", run.device, run.task, run.run_id, 4, 3))
            eventually(lambda: read_registrations(tmp_path)[0].positions[run.run_id].position == 4)
        (sink,) = read_registrations(tmp_path)
        assert (sink.name, sink.sink, sink.place) == ("my sink/1", "sqlite", "/x.sqlite")
        position = sink.positions[run.run_id]
        assert (position.stream, position.position, position.backfilled) == ("dt9806/vibration", 4, 3)

    def test_a_hello_says_what_there_is_now_also_where_that_is_less(self, tmp_path: Path) -> None:
        """A destination restored from a backup: what it lost must not be deleted from the journal."""
        run = block_run()
        written(tmp_path, run, 5)

        def hello(**fields: Any) -> dict[str, int]:
            with RunningGateway(tmp_path) as gateway, gateway.client() as client:
                client.hello(worker="w", **fields)
            (sink,) = read_registrations(tmp_path)
            return {run_id: where.position for run_id, where in sink.positions.items()}

        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello(worker="w", destination_id="id-1")
            client.send(Ack("w", run.device, run.task, run.run_id, 5))
        assert hello(destination_id="id-1", positions=(RunPosition("", "", run.run_id, 5),)) == {run.run_id: 5}
        assert hello(destination_id="id-1", positions=(RunPosition("", "", run.run_id, 2),)) == {run.run_id: 2}
        assert hello(destination_id="id-1") == {}
        assert hello(destination_id="id-2", positions=(RunPosition("", "", run.run_id, 1),)) == {run.run_id: 1}

    def test_a_hello_in_parts(self, tmp_path: Path) -> None:
        (tmp_path / "journal").mkdir()
        parts = [tuple(RunPosition("", "", f"run-{n}", n) for n in range(first, first + 3)) for first in (0, 3, 6)]
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            for positions in parts[:2]:
                client.send(Hello("w", destination_id="id-1", positions=positions, more=True))
            client.hello(worker="w", destination_id="id-1", positions=parts[2])
            assert client.socket.poll(0) == 0, "more than one Welcome"
        assert {key: where.position for key, where in read_registrations(tmp_path)[0].positions.items()} == {
            f"run-{n}": n for n in range(9)
        }
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.send(Hello("w", destination_id="id-1", positions=parts[0], more=True))
            client.hello(worker="w", destination_id="id-1", positions=parts[2])
        assert {key: where.position for key, where in read_registrations(tmp_path)[0].positions.items()} == {
            f"run-{n}": n for n in (0, 1, 2, 6, 7, 8)
        }

    def test_what_cannot_be_written_now_is_written_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "journal" / "d" / "t" / "run-1").mkdir(parents=True)
        replace, shortages = files.replace, [OSError(errno.EMFILE, "Too many open files")] * 2

        def with_shortages(path: Path, data: bytes) -> None:
            if path.parent.name == SINKS_FOLDER and shortages:
                raise shortages.pop()
            replace(path, data)

        monkeypatch.setattr(files, "replace", with_shortages)
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello(worker="w", destination_id="id-1")
            client.send(Ack("w", "d", "t", "run-1", 5))  # and no other word
            eventually(lambda: [sink.positions["run-1"].position for sink in read_registrations(tmp_path)] == [5])
        assert sum("registration not written" in record.message for record in caplog.records) == 1

    def test_a_name_that_is_no_file_name(self, tmp_path: Path) -> None:
        (tmp_path / "journal").mkdir()
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello(worker="../../escape")
            client.hello(worker="con")
        assert sorted(sink.name for sink in read_registrations(tmp_path)) == ["../../escape", "con"]
        assert not (tmp_path.parent / "escape.json").exists()


class TestManyAndDamagedRuns:
    def test_a_damaged_run_folder_is_logged_once_and_left_out(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = block_run()
        written(tmp_path, run, 2)
        stream = tmp_path / "journal" / "dt9806" / "vibration"
        (stream / "broken").mkdir()
        (stream / "broken" / "run.json").write_bytes(b'{"info": 5')
        (stream / "empty").mkdir()
        (stream / "stray").write_text("a file")
        (tmp_path / "journal" / "stray").write_text("a file")
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            assert [status.info.run_id for status in client.hello().runs] == [run.run_id]
            assert indexes(client.fetch(fetch_of(run, 0, 2))) == [0, 1]
        assert sum("run cannot be read" in record.message for record in caplog.records) == 1

    def test_a_journal_that_loses_a_running_run(self, tmp_path: Path) -> None:
        one, two = block_run("run-1"), reading_run("run-2")
        with writing(tmp_path, one) as first, writing(tmp_path, two) as second, RunningGateway(tmp_path) as gateway:
            with gateway.subscriber() as sub:
                sub.until(is_beat("running", 0))
                first.append(block(one, 0))
                sub.until(is_beat("running", 1))
                segment = first.path / segment_name("blocks", 0)
                segment.rename(segment.with_suffix(".away"))
                (first.path / "run.json").rename(first.path / "run.away")
                first.append(block(one, 1))
                second.append(reading(two, 0))
                heard = sub.until(lambda m: isinstance(m, RunRecord) and m.run.run_id == "run-2")
                assert indexes(heard)[-1] == 0
                (first.path / "run.away").rename(first.path / "run.json")
                segment.with_suffix(".away").rename(segment)

    def test_the_welcome_holds_every_run_however_many(self, tmp_path: Path) -> None:
        many = [block_run(f"run-{n:03d}", channels=16, meta={"note": "x" * 4000}) for n in range(300)]
        for run in many:
            RunWriter(tmp_path / "journal", run).close()
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            seen = list(client.hello().runs)
            while len(seen) < 300:
                more = client.next()
                assert isinstance(more, Welcome)
                seen += more.runs
        assert sorted(status.info.run_id for status in seen) == [run.run_id for run in many]

    def test_known_runs_are_not_listed_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = block_run()
        written(tmp_path, run, 1)
        folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
        for folder in folders:
            os.utime(folder, (time.time() - 100, time.time() - 100))
        catalog = Catalog(tmp_path / "journal")
        assert [folder.info.run_id for folder in catalog.discover()] == [run.run_id]
        listed: list[Path] = []
        iterdir = Path.iterdir
        monkeypatch.setattr(Path, "iterdir", lambda self: (listed.append(self), iterdir(self))[1])
        assert catalog.discover() == []
        assert listed == []
        written(tmp_path, block_run("run-9"), 1)
        assert [folder.info.run_id for folder in catalog.discover()] == ["run-9"]


class TestStart:
    def test_a_port_in_use(self, tmp_path: Path) -> None:
        (tmp_path / "journal").mkdir()
        for option in ("--pub-port", "--catchup-port"):
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                port = taken.getsockname()[1]
                ports = {"--pub-port": free_ports(1)[0], "--catchup-port": free_ports(1)[0], option: port}
                failed = gateway_command(str(tmp_path), *(str(part) for pair in ports.items() for part in pair))
            assert failed.returncode == 3
            assert one_line(failed.stderr) == (
                f"dtolbus-gateway: port {port} is in use: stop what uses it, or choose another with {option}"
            )

    def test_an_address_that_others_reach(self, tmp_path: Path) -> None:
        for host in ("0.0.0.0", "192.168.1.7"):
            failed = gateway_command(str(tmp_path), "--host", host)
            assert failed.returncode == 3
            assert "`dtolbus keys new NAME --data" in one_line(failed.stderr)
        for host in ("::", "daq-pc"):
            failed = gateway_command(str(tmp_path), "--host", host)
            assert failed.returncode == 3
            assert "give an IPv4 address of this machine" in one_line(failed.stderr)

    def test_a_second_gateway(self, tmp_path: Path) -> None:
        with RunningGateway(tmp_path) as gateway, gateway.client() as client:
            client.hello()
            with pytest.raises(CannotStartError, match="has a gateway already"):
                with RunningGateway(tmp_path) as other:
                    other._thread.join()

    def test_no_command(self) -> None:
        for name in ("gateway", "producer"):
            command = [sys.executable, "-m", "dtolbus_producer", name]
            failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert failed.returncode == 2
            assert one_line(failed.stderr) == f"dtolbus-{name}: Missing command. (see dtolbus-{name} --help)"

    def test_no_data_folder(self, tmp_path: Path) -> None:
        failed = gateway_command(str(tmp_path / "missing"))
        assert failed.returncode == 3
        assert "there is no data folder" in one_line(failed.stderr)


def gateway_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dtolbus_producer", "gateway", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text.strip()
