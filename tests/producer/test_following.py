"""A run followed as it grows: prepared before it is durable, published after, and nothing left out at its end."""

import contextlib
import os
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.producer.bus import TIMEOUT_S, RunningGateway, free_ports
from tests.protocol.specimens import block, block_run, event

from dtolbus import files
from dtolbus.chunkfile import ChunkFile
from dtolbus.errors import RawFormatError
from dtolbus.records import DaqBlock
from dtolbus.runs import RunFolder, segment_name
from dtolbus.wire import Heartbeat, RunRecord, decode
from dtolbus_producer import headwatch
from dtolbus_producer.following import FollowedRun, Outgoing
from dtolbus_producer.headwatch import HeadWatch
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.sockets import GatewaySockets
from dtolbus_producer.tailing import JournalTail

RUN = block_run()
NEVER_MS = 3_600_000.0
"""A journal with this `sync_ms` makes durable what it has when it is closed."""


@pytest.fixture
def watch() -> Iterator[HeadWatch]:
    made = HeadWatch()
    yield made
    made.close()


def indexes(found: Iterator[Outgoing]) -> list[int]:
    """The indexes of what is taken, each by what its frames say."""
    messages = [decode(outgoing.frames) for outgoing in found]
    assert all(isinstance(message, RunRecord) and isinstance(message.record, DaqBlock) for message in messages)
    return [message.record.index for message in messages if isinstance(message, RunRecord)]


def begun(writer: RunWriter, watch: HeadWatch) -> FollowedRun:
    """Follow the run of a writer that has appended nothing, and have its segment open."""
    writer.append(block(RUN, 0))
    writer._sync()
    followed = FollowedRun(RunFolder(writer.path), 0, watch)
    followed.look(0.0)
    assert indexes(followed.take(9)) == [0]
    return followed


def test_what_is_prepared_waits_for_the_head_and_is_not_read_again(
    tmp_path: Path, watch: HeadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=NEVER_MS)
    followed = begun(writer, watch)
    for index in range(1, 6):
        writer.append(block(RUN, index))
    followed.prepare(99, 1 << 20)
    followed.look(1.0)
    assert indexes(followed.take(9)) == []
    writer.close()
    followed.look(2.0)
    reads: list[int] = []
    monkeypatch.setattr(files, "read_at", lambda *_: reads.append(1))
    assert indexes(followed.take(9)) == [1, 2, 3, 4, 5]
    assert not reads
    followed.close()


def test_what_is_prepared_is_bounded_whatever_it_holds(tmp_path: Path) -> None:
    """Of all runs together, in messages: an event says how long it is nowhere but in its text."""
    runs = [block_run(f"run-{number}", task=f"t{number}") for number in range(3)]
    with contextlib.closing(JournalTail(tmp_path, lambda path: None)) as tail, contextlib.ExitStack() as held:
        assert not list(tail.step(0.0))  # runs that come later are published from their start
        writers = [RunWriter(tmp_path, run, sync_ms=NEVER_MS) for run in runs]
        for writer in writers:
            held.callback(writer.close)
            writer.append(block(writer.info, 0))
            writer._sync()
        assert len(list(published(tail, 1.0))) == 3
        for writer in writers:
            for index in range(1, 100):  # 15 MB
                writer.append(event(writer.info, index, message="x" * 150_000))
        for turn in range(99):
            assert list(published(tail, 1 + turn / 1000)) == []
        ready = [known.followed for known in tail._lively.values()]
        assert 4e6 < sum(len(frame) for one in ready for out in one._ready for frame in out.frames) < 5e6
        held.close()
        found = [out for turn in range(99) for out in published(tail, 2 + turn / 1000)]
    for run in runs:
        assert [out.next for out in found if out.run == run] == list(range(2, 101))


def published(tail: JournalTail, now: float) -> Iterator[Outgoing]:
    return (message for message in tail.step(now) if isinstance(message, Outgoing))


def test_what_is_half_written_is_not_read_again_and_again(
    tmp_path: Path, watch: HeadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=NEVER_MS)
    followed = begun(writer, watch)
    path = writer.path / segment_name("blocks", 0)
    writer.append(block(RUN, 1, samples=1000))
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 10)
    read_at, reads = files.read_at, list[int]()
    monkeypatch.setattr(files, "read_at", lambda *words: reads.append(1) or read_at(*words))
    assert followed.prepare(99, 1 << 20) == 0
    assert reads
    reads.clear()
    assert followed.prepare(99, 1 << 20) == 0
    assert not reads
    path.write_bytes(whole)
    assert followed.prepare(99, 1 << 20) == 1
    writer.close()
    followed.close()


def test_it_goes_on_in_the_next_segment(tmp_path: Path, watch: HeadWatch) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=0, segment_bytes=3000)
    followed = FollowedRun(RunFolder(writer.path), 0, watch)
    for index in range(30):
        followed.prepare(99, 1 << 20)
        writer.append(block(RUN, index))
        followed.look(index)
        assert indexes(followed.take(9)) == [index]
    writer.close()
    assert len(RunFolder(writer.path).segments()) > 3
    followed.close()


def test_what_came_between_a_look_at_the_head_and_one_at_the_end_is_not_lost(
    tmp_path: Path, watch: HeadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=0)
    writer.append(block(RUN, 0))
    folder = RunFolder(writer.path)
    followed = FollowedRun(folder, 1, watch)
    head = folder.head

    def head_then_the_run_ends() -> int:
        found = head()
        if writer.ended is None:
            writer.append(block(RUN, 1))
            writer.close()
        return found

    monkeypatch.setattr(folder, "head", head_then_the_run_ends)
    followed.look(1e9)
    assert not followed.is_over
    followed.look(2e9)
    assert indexes(followed.take(9)) == [1]
    assert followed.is_over
    followed.close()


def test_what_is_new_goes_before_the_look_for_an_end_but_not_for_ever(
    tmp_path: Path, watch: HeadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=0)
    followed = FollowedRun(RunFolder(writer.path), 0, watch)
    looked: list[float] = []
    looks = []
    for index, now in enumerate((100.0, 100.05, 100.15, 100.3)):
        monkeypatch.setattr(followed, "_look_for_end", lambda now=now: looked.append(now))
        writer.append(block(RUN, index))
        followed.look(now)
        looks.append((followed.head, list(looked)))
    assert looks == [(1, [100.0]), (2, [100.0]), (3, [100.0]), (4, [100.0, 100.3])]
    followed.close()
    writer.close()


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), RawFormatError("of another version")])
def test_a_run_whose_head_cannot_be_read_is_over_all_the_same(
    tmp_path: Path, watch: HeadWatch, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=0)
    followed = FollowedRun(RunFolder(writer.path), 0, watch)
    writer.append(block(RUN, 0))
    writer.close()

    def unreadable(*_: object) -> bytes:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(files, "read_at", unreadable)
        followed.look(1e9)
    assert indexes(followed.take(9)) == [0]
    assert followed.is_over
    followed.close()


def test_two_readers_of_a_folder_by_turns(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=0, segment_bytes=3000)
    for index in range(20):
        writer.append(block(RUN, index))
    writer.close()
    with RunFolder(writer.path) as folder:
        first, second = folder.segments()[:2]
        one = folder.records(first, second)
        assert next(one).index == first
        assert next(folder.records(second, 20)).index == second
        assert [found.index for found in one] == list(range(first + 1, second))
        assert [found.index for found in folder.records(second, 20)] == list(range(second, 20))


def test_what_was_read_while_it_was_written_is_read_anew(tmp_path: Path) -> None:
    """A system may show a file's new length before what stands there: zeros until then."""
    writer = RunWriter(tmp_path, RUN, sync_ms=0)
    for index in range(5):
        writer.append(block(RUN, index))
    writer.close()
    path = writer.path / segment_name("blocks", 0)
    with ChunkFile(path) as file:
        third = list(file.chunks(file.start))[2].offset
    whole = path.read_bytes()
    path.write_bytes(whole[: third + 300] + bytes(len(whole) - third - 300))
    with RunFolder(writer.path) as folder:
        assert [found.index for found in folder.records(0, 2)] == [0, 1]
        assert not list(folder.read_on(2, 5))
        with path.open("r+b") as again:
            again.write(whole)
        assert [found.index for found in folder.read_on(2, 4)] == [2, 3]
        assert [found.index for found in folder.records(4, 5)] == [4]


@pytest.mark.skipif(sys.platform != "linux", reason="no word of files elsewhere")
class TestWatch:
    def test_there_is_word_of_each_write_until_it_was_heard(self, tmp_path: Path, watch: HeadWatch) -> None:
        path = tmp_path / "head"
        assert watch.add(path) is None
        path.write_bytes(b"1")
        number = watch.add(path)
        assert number is not None
        assert not is_told(watch)
        path.write_bytes(b"2")
        assert is_told(watch)
        watch.heard()
        assert not is_told(watch)
        watch.drop(number)
        path.write_bytes(b"3")
        watch.heard()  # that it is watched no longer
        assert not is_told(watch)

    def test_word_of_a_head_ends_a_gateways_wait(self) -> None:
        sockets = GatewaySockets("127.0.0.1", *free_ports())
        told, tell = os.pipe()
        os.write(tell, b"1")
        waiting = threading.Thread(target=sockets.wait, args=(3600.0,), kwargs={"also": told}, daemon=True)
        waiting.start()
        waiting.join(TIMEOUT_S)
        assert not waiting.is_alive()
        sockets.close()
        os.close(told)
        os.close(tell)

    def test_a_gateway_without_word_looks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_left(**_: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(headwatch, "INotify", none_left)
        writer = RunWriter(tmp_path / "journal", RUN, sync_ms=0)
        with RunningGateway(tmp_path) as gateway, gateway.subscriber() as sub:
            sub.until(lambda message: isinstance(message, Heartbeat))
            writer.append(block(RUN, 0))
            sub.until(lambda message: isinstance(message, RunRecord))
        writer.close()


def is_told(watch: HeadWatch) -> bool:
    assert watch.fd is not None
    return bool(select.select([watch.fd], [], [], 0)[0])
