"""A run followed as it grows: prepared before it is durable, published after, and nothing left out at its end."""

import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.producer.bus import RunningGateway
from tests.protocol.specimens import block, block_run

from dtolbus import files
from dtolbus.chunkfile import ChunkFile
from dtolbus.records import DaqBlock
from dtolbus.runs import RunFolder, segment_name
from dtolbus.wire import Heartbeat, RunRecord, decode
from dtolbus_producer import headwatch
from dtolbus_producer.following import FollowedRun, Outgoing
from dtolbus_producer.headwatch import HeadWatch
from dtolbus_producer.journal import RunWriter

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
    followed.prepare()
    followed.look(1.0)
    assert indexes(followed.take(9)) == []
    writer.close()
    followed.look(2.0)
    reads: list[int] = []
    monkeypatch.setattr(files, "read_at", lambda *_: reads.append(1))
    assert indexes(followed.take(9)) == [1, 2, 3, 4, 5]
    assert not reads
    followed.close()


def test_what_is_prepared_is_bounded(tmp_path: Path, watch: HeadWatch) -> None:
    run = block_run(channels=8, block_samples=12_500)
    writer = RunWriter(tmp_path, run, sync_ms=NEVER_MS)
    writer.append(block(run, 0, samples=12_500))
    writer._sync()
    followed = FollowedRun(RunFolder(writer.path), 0, watch)
    followed.look(0.0)
    assert indexes(followed.take(9)) == [0]
    for index in range(1, 40):  # 8 MB
        writer.append(block(run, index, samples=12_500))
    for _ in range(9):
        followed.prepare()
    assert 2e6 < sum(len(frame) for outgoing in followed._ready for frame in outgoing.frames) < 3e6
    writer.close()
    followed.look(1.0)
    assert indexes(followed.take(99)) == list(range(1, 40))
    followed.close()


def test_it_goes_on_in_the_next_segment(tmp_path: Path, watch: HeadWatch) -> None:
    writer = RunWriter(tmp_path, RUN, sync_ms=0, segment_bytes=3000)
    followed = FollowedRun(RunFolder(writer.path), 0, watch)
    for index in range(30):
        followed.prepare()
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
    assert indexes(followed.take(9)) == [1]
    assert followed.is_over
    followed.close()


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

    def test_a_gateway_without_word_looks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_left() -> None:
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
