import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dtolbus import files
from dtolbus.chunkfile import ChunkFile
from dtolbus.dtraw import iter_blocks
from dtolbus.errors import CannotStartError
from dtolbus.records import Channel, Clock, DaqBlock, Gap, RunInfo
from dtolbus.runblocks import block_of_run
from dtolbus.runs import Head, RunFolder, decode_head, encode_head, run_path
from dtolbus_producer.journal import JournalError, RunWriter, recover_run
from dtolbus_producer.recovery import recover_device
from dtolbus_producer.runid import new_run_id

SAMPLES = 50


def info_of(**changes):
    settings = {
        "run_id": new_run_id(),
        "device": "dev/1",
        "task": "täsk",
        "kind": "blocks",
        "channels": (Channel("a", scale=0.5, encoding="offset_binary"), Channel("b", scale=0.25, offset=-1.0)),
        "rate_hz": 1000.0,
        "started_utc_ns": 10**18,
        "started_mono_ns": 5,
        "dtype": "uint16",
        "block_samples": SAMPLES,
    }
    return RunInfo(**{**settings, **changes})


def block(info, index, samples=SAMPLES):
    codes = (np.arange(2 * samples, dtype=np.uint16).reshape(2, samples) + index).astype(np.uint16)
    return block_of_run(
        info, index=index, first_sample=index * SAMPLES, codes=codes, t_mono_ns=index, clock=Clock(10**18 + index, 1e6)
    )


def written(tmp_path, count, **settings):
    info = info_of()
    writer = RunWriter(tmp_path, info, **settings)
    for index in range(count):
        writer.append(block(info, index))
    return writer


def indexes(folder, count):
    with RunFolder(folder) as run:
        return [
            (found.from_index, found.to_index) if isinstance(found, Gap) else found.index
            for found in run.records(0, count)
        ]


def segments_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("0"))


def killed(tmp_path, count):
    """A run as a kill leaves it: everything written, nothing closed."""
    writer = written(tmp_path, count, sync_ms=0)
    writer._release()
    return writer.path


class BrokenDisk:
    """Stands before files.append or files.sync, and fails as often as it is told."""

    def __init__(self, monkeypatch, name, code):
        self.left = 0
        self._call = getattr(files, name)
        self._code = code
        monkeypatch.setattr(files, name, self)

    def __call__(self, fd, *rest):
        if self.left:
            self.left -= 1
            if rest:
                self._call(fd, [rest[0][0][:20]])
            raise OSError(self._code, os.strerror(self._code))
        return self._call(fd, *rest)


def test_what_is_written_is_read_back_and_the_run_says_how_it_ended(tmp_path):
    writer = written(tmp_path, 10)
    writer.close()

    with RunFolder(run_path(tmp_path, "dev/1", "täsk", writer.info.run_id)) as run:
        status, file = run.status(), run.refresh()
        found = list(run.records(0, 10))
    assert (status.state, status.head, status.final) == ("ended", 10, 10)
    assert (file.samples, file.bytes) == (10 * SAMPLES, (writer.path / segments_of(writer.path)[0]).stat().st_size)
    for index, record in enumerate(found):
        expected = block(writer.info, index)
        assert isinstance(record, DaqBlock)
        np.testing.assert_array_equal(record.raw_codes, expected.raw_codes)
        np.testing.assert_array_equal(record.data, expected.data)
        assert record.raw_codes.dtype == np.uint16
        assert (record.clock, record.t_mono_ns) == (expected.clock, expected.t_mono_ns)


def test_segments_are_version_2_files_for_any_reader(tmp_path):
    writer = written(tmp_path, 3)
    writer.close()
    assert segments_of(writer.path) == ["000000000000.dt-raw"]
    assert [b.block_index for b in iter_blocks(writer.path / "000000000000.dt-raw")] == [0, 1, 2]


def test_with_sync_ms_0_a_record_is_durable_when_append_returns(tmp_path):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0)
    for index in range(3):
        writer.append(block(info, index))
        assert writer.head == index + 1
        head = decode_head((writer.path / "head").read_bytes())
        assert head == Head(index + 1, (writer.path / "000000000000.dt-raw").stat().st_size)
    writer.close()


def test_the_head_never_passes_what_was_synced(tmp_path, monkeypatch):
    synced, may_sync, real = threading.Event(), threading.Event(), files.sync

    def slow_sync(fd):
        synced.set()
        assert may_sync.wait(20)
        real(fd)

    may_sync.set()
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=1)
    may_sync.clear()
    monkeypatch.setattr(files, "sync", slow_sync)
    for index in range(5):
        writer.append(block(info, index))
    assert synced.wait(20)
    with RunFolder(writer.path) as run:
        assert run.head() == 0
    may_sync.set()
    writer.close()
    with RunFolder(writer.path) as run:
        assert run.head() == 5


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to tell which file is synced")
def test_what_a_killed_producer_had_not_synced_is_durable_before_the_run_is_over(tmp_path, monkeypatch):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=3_600_000, segment_s=0.0)
    for index in range(3):
        writer.append(block(info, index))
    writer._release()
    synced, over = [], []
    sync, sync_dir, replace = files.sync, files.sync_dir, files.replace

    def noting_sync(fd):
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        sync(fd)

    def noting_sync_dir(folder):
        synced.append(folder.name)
        sync_dir(folder)

    def noting_replace(path, data):
        over.append((path.name, set(synced)))
        replace(path, data)

    monkeypatch.setattr(files, "sync", noting_sync)
    monkeypatch.setattr(files, "sync_dir", noting_sync_dir)
    monkeypatch.setattr(files, "replace", noting_replace)
    assert recover_run(writer.path).final == 3
    assert over == [("run.json", {*segments_of(writer.path), writer.path.name})]


def test_segments_roll_by_size_and_nothing_is_lost_between(tmp_path):
    writer = written(tmp_path, 40, segment_bytes=3000)
    writer.close()
    assert len(segments_of(writer.path)) > 3
    assert indexes(writer.path, 40) == list(range(40))
    assert sum((writer.path / name).stat().st_size for name in segments_of(writer.path)) == writer.size


def test_segments_roll_by_age(tmp_path):
    writer = written(tmp_path, 3, segment_s=0.0)
    writer.close()
    assert segments_of(writer.path) == [f"{n:012d}.dt-raw" for n in range(3)]


def test_a_run_is_never_written_over(tmp_path):
    writer = written(tmp_path, 2)
    with pytest.raises(CannotStartError, match="exists: no run is written twice"):
        RunWriter(tmp_path, writer.info)
    writer.append(block(writer.info, 2))
    writer.close()
    with pytest.raises(CannotStartError):
        RunWriter(tmp_path, writer.info)
    assert indexes(writer.path, 3) == [0, 1, 2]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStartError, match=r"cannot be written.*choose another data folder"):
        RunWriter(tmp_path / "file", info_of())


def test_a_record_out_of_order_is_refused(tmp_path):
    writer = written(tmp_path, 1)
    with pytest.raises(ValueError, match="record 5 appended where 1 is next"):
        writer.append(block(writer.info, 5))
    writer.close()


def test_after_a_failed_sync_the_file_is_left_and_no_record_is_lost(tmp_path, monkeypatch):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0)
    disk = BrokenDisk(monkeypatch, "sync", errno.EIO)
    for index in range(3):
        writer.append(block(info, index))
    left = writer.path / "000000000000.dt-raw"
    disk.left = 1
    writer.append(block(info, 3))
    size = left.stat().st_size
    for index in range(4, 6):
        writer.append(block(info, index))
    writer.close()

    assert left.stat().st_size == size
    assert segments_of(writer.path) == ["000000000000.dt-raw", "000000000003.dt-raw"]
    assert indexes(writer.path, 6) == list(range(6))


def test_a_failed_sync_before_any_record_was_durable(tmp_path, monkeypatch):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0)
    BrokenDisk(monkeypatch, "sync", errno.EIO).left = 2
    writer.append(block(info, 0))
    writer.append(block(info, 1))
    writer.close()
    assert [name for name in segments_of(writer.path) if not name.endswith(".bad")] == ["000000000000.dt-raw"]
    assert indexes(writer.path, 2) == [0, 1]


def test_a_disk_that_stays_broken_stops_the_run_loudly(tmp_path, monkeypatch):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0)
    writer.append(block(info, 0))
    BrokenDisk(monkeypatch, "sync", errno.EIO).left = 1000
    with pytest.raises(JournalError, match="cannot be written: Input/output error; 1 records of it are safe"):
        writer.append(block(info, 1))
    with pytest.raises(JournalError):
        writer.close()


def test_a_head_that_cannot_be_written_ends_the_run_loudly(tmp_path, monkeypatch):
    writer = written(tmp_path, 1, sync_ms=0)

    def refuse(fd, data):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "write_at_start", refuse)
    with pytest.raises(JournalError, match="cannot be written: Input/output error"):
        writer.append(block(writer.info, 1))
    with pytest.raises(JournalError):
        writer.close("interrupted")
    assert indexes(writer.path, 1) == [0]


def test_after_a_sync_that_found_the_disk_full_its_records_are_not_called_safe(tmp_path, monkeypatch):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0)
    writer.append(block(info, 0))
    BrokenDisk(monkeypatch, "sync", errno.ENOSPC).left = 1
    with pytest.raises(JournalError, match="1 records of it are safe"):
        writer.append(block(info, 1))
    with pytest.raises(JournalError):
        writer.close()
    with RunFolder(writer.path) as run:
        assert (run.status().state, run.status().final) == ("interrupted", 1)


def test_a_failed_write_while_a_sync_is_under_way(tmp_path, monkeypatch):
    in_sync, may_sync, real = threading.Event(), threading.Event(), files.sync
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=1)
    first = [True]

    def slow_sync(fd):
        if first[0]:
            first[0] = False
            in_sync.set()
            assert may_sync.wait(20)
        real(fd)

    monkeypatch.setattr(files, "sync", slow_sync)
    writer.append(block(info, 0))
    assert in_sync.wait(20)
    BrokenDisk(monkeypatch, "append", errno.EIO).left = 1
    writer.append(block(info, 1))
    may_sync.set()
    for index in range(2, 10):
        writer.append(block(info, index))
    writer.close()
    assert indexes(writer.path, 10) == list(range(10))
    with RunFolder(writer.path) as run:
        assert run.status().final == 10


def test_a_failed_write_leaves_no_half_record_and_goes_on_in_a_new_segment(tmp_path, monkeypatch):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0)
    writer.append(block(info, 0))
    disk = BrokenDisk(monkeypatch, "append", errno.EIO)
    disk.left = 1
    writer.append(block(info, 1))
    writer.close()
    assert indexes(writer.path, 2) == [0, 1]
    assert [b.block_index for b in iter_blocks(writer.path / "000000000000.dt-raw")] == [0]


def test_a_full_disk_stops_the_run_with_the_last_good_record_intact(tmp_path, monkeypatch):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=1000)
    for index in range(4):
        writer.append(block(info, index))
    disk = BrokenDisk(monkeypatch, "append", errno.ENOSPC)
    disk.left = 1
    with pytest.raises(JournalError, match=r"No space left on device.*make room"):
        writer.append(block(info, 4))
    with pytest.raises(JournalError):
        writer.append(block(info, 4))
    with pytest.raises(JournalError):
        writer.close("ended")
    with RunFolder(writer.path) as run:
        status = run.status()
    assert (status.state, status.final) == ("interrupted", 4)
    assert indexes(writer.path, 4) == [0, 1, 2, 3]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a tmpfs of a given size needs root on Linux"
)
def test_a_really_full_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        info = info_of()
        writer = RunWriter(place, info)
        with pytest.raises(JournalError, match="No space left"):  # noqa: PT012  # which append it is, is the disk's to say
            for index in range(100_000):
                writer.append(block(info, index))
        accepted = writer.next_index
        with pytest.raises(JournalError):
            writer.close()
        with RunFolder(writer.path) as run:
            status = run.status()
        assert accepted > 100
        assert (status.state, status.final) == ("interrupted", accepted)
        assert indexes(writer.path, accepted) == list(range(accepted))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_recovery_ends_a_killed_run_and_keeps_every_whole_record(tmp_path):
    folder = killed(tmp_path, 5)
    (folder / "head").write_bytes(encode_head(Head(2, 100)))

    file = recover_run(folder)

    assert (file.state, file.final) == ("interrupted", 5)
    assert indexes(folder, 5) == list(range(5))
    assert recover_run(folder) is None


@pytest.mark.parametrize("cut", [1, 30, 150, 300])
def test_a_torn_last_record_is_cut_off_and_kept_aside(tmp_path, cut):
    folder = killed(tmp_path, 5)
    segment = folder / "000000000000.dt-raw"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-cut])
    (folder / "head").write_bytes(encode_head(Head(4, len(whole) - cut)))

    assert recover_run(folder).final == 4

    kept = (folder / "000000000000.dt-raw.torn").read_bytes()
    assert segment.read_bytes() + kept == whole[:-cut]
    assert indexes(folder, 4) == [0, 1, 2, 3]


def test_a_tail_of_zeros_as_after_a_power_cut_is_cut_off(tmp_path):
    folder = killed(tmp_path, 5)
    segment = folder / "000000000000.dt-raw"
    good = segment.read_bytes()
    segment.write_bytes(good + bytes(100_000))
    (folder / "head").write_bytes(encode_head(Head(1000, 10**6)))

    assert recover_run(folder).final == 1000  # a head is written after the sync of what it counts
    assert segment.read_bytes() == good
    assert indexes(folder, 1000) == [0, 1, 2, 3, 4, (5, 1000)]


def test_damage_with_good_records_behind_it_is_a_gap_not_an_end(tmp_path):
    folder = killed(tmp_path, 5)
    segment = folder / "000000000000.dt-raw"
    data = bytearray(segment.read_bytes())
    with RunFolder(folder) as run:
        third = next(iter(run.records(2, 3)))
    place = data.index(third.raw_codes.tobytes())
    data[place + 7] ^= 1
    segment.write_bytes(data)

    assert recover_run(folder).final == 5
    assert indexes(folder, 5) == [0, 1, (2, 3), 3, 4]
    assert not list(folder.glob("*.torn"))


def test_a_damaged_header_is_told_in_plain_words(tmp_path):
    folder = killed(tmp_path, 5)
    segment = folder / "000000000000.dt-raw"
    data = bytearray(segment.read_bytes())
    with ChunkFile(segment) as file:
        third = list(file.chunks(file.start))[2]
    data[data.index(b"event_kind", third.offset)] ^= 1
    segment.write_bytes(data)

    assert recover_run(folder).final == 5
    with RunFolder(folder) as run:
        (gap,) = [record for record in run.records(0, 5) if isinstance(record, Gap)]
    assert gap.cause == "damaged in the journal: the chunk's header is damaged"


def test_a_flipped_bit_in_a_durable_last_record_is_a_gap_in_one_that_never_was_a_torn_tail(tmp_path):
    for head, final in [(5, 5), (4, 4)]:
        folder = killed(tmp_path / str(head), 5)
        segment = folder / "000000000000.dt-raw"
        data = bytearray(segment.read_bytes())
        data[-1] ^= 1
        segment.write_bytes(data)
        (folder / "head").write_bytes(encode_head(Head(head, len(data))))

        assert recover_run(folder).final == final
        assert indexes(folder, final)[:4] == [0, 1, 2, 3]
        assert bool(list(folder.glob("*.torn"))) == (final == 4)


def test_a_flipped_bit_in_a_segments_file_header_costs_no_record(tmp_path):
    folder = killed(tmp_path, 5)
    segment = folder / "000000000000.dt-raw"
    data = bytearray(segment.read_bytes())
    data[40] ^= 1
    segment.write_bytes(data)

    assert recover_run(folder).final == 5
    assert indexes(folder, 5) == list(range(5))
    assert not list(folder.glob("*.torn"))


def test_a_segment_without_a_whole_header_is_put_aside(tmp_path):
    folder = killed(tmp_path, 5)
    (folder / "000000000005.dt-raw").write_bytes(b"\x10\x00\x00\x00{")

    assert recover_run(folder).final == 5
    assert (folder / "000000000005.dt-raw.torn").exists()


def test_a_run_that_is_being_written_is_left_alone(tmp_path):
    writer = written(tmp_path, 2)
    assert recover_run(writer.path) is None
    assert recover_device(tmp_path, "dev/1") == []
    writer.append(block(writer.info, 2))
    writer.close()
    with RunFolder(writer.path) as run:
        assert (run.status().state, run.status().head) == ("ended", 3)


CHILD = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.producer.test_journal import RunWriter, block, info_of
info = info_of()
writer = RunWriter(Path({journal!r}), info, sync_ms=5, segment_bytes=200_000)
index = 0
while True:
    writer.append(block(info, index))
    index += 1
    if writer.head > 500:
        print("go", flush=True)
"""


def test_a_producer_killed_at_any_instant_leaves_a_readable_journal(tmp_path):
    root = Path(__file__).resolve().parents[2]
    code = CHILD.format(root=str(root), journal=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline().strip() == b"go"
        child.kill()

    (folder,) = [path.parent for path in tmp_path.glob("*/*/*/run.json")]
    with RunFolder(folder) as run:
        durable = run.head()
    assert recover_device(tmp_path, "dev/1") == [folder]
    with RunFolder(folder) as run:
        status = run.status()
    assert status.state == "interrupted"
    assert status.head >= durable > 500
    assert indexes(folder, status.head) == list(range(status.head))


def test_appending_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    may_sync, real = threading.Event(), files.sync
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=1)
    monkeypatch.setattr(files, "sync", lambda fd: (may_sync.wait(20), real(fd)))
    for index in range(200):
        writer.append(block(info, index))
        time.sleep(0)
    assert writer.next_index == 200
    assert writer.head == 0
    may_sync.set()
    writer.close()
    assert writer.head == 200
