"""Disks that fill up under a recording: the sinks say so and catch up later; the journal's end is loud and clean."""

import os
import re
import sys
from pathlib import Path

import pytest
from tests.e2e.stacks import Up, runs
from tests.faults.feed import Feed
from tests.producer.bus import eventually

from dtolbus_workers.testing import fill, small_disk
from dtolbus_workers.verify import verify

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux may mount the small disk"
)

FAILED = re.compile(r"commit failed, trying again.*(No space left|disk is full).*wait_s=([0-9.]+)")


@pytest.mark.parametrize("kind", ["parquet", "sqlite", "csv", "jsonl"])
def test_a_sink_whose_disk_is_full_says_so_and_has_everything_once_there_is_room(tmp_path: Path, kind: str) -> None:
    samples = ("--blocks", "samples") if kind != "parquet" else ()
    log, beside = tmp_path / "worker.log", tmp_path / "beside.sqlite"
    with (
        small_disk(tmp_path / "disk", size_kib=16384) as disk,
        Feed(tmp_path / "data") as feed,
        feed.process(kind, *samples, "--out", str(disk / "out"), log=log) as full,
        feed.process("sqlite", "--out", str(beside), "--name", "beside", log=tmp_path / "beside.log") as other,
    ):
        feed.advances(kind)
        fill(disk / "filler")
        eventually(lambda: len(FAILED.findall(log.read_text())) >= 2)
        feed.advances("beside")
        (disk / "filler").unlink()
        feed.catches_up(kind, "beside")
        assert full.poll() is other.poll() is None
        certificate = verify(feed.data)
    assert certificate.complete, certificate
    assert {(line.sink, line.stored) for line in certificate.lines} == {(kind, feed.head // 2), ("beside", feed.head // 2)}
    waits = [float(wait) for _, wait in FAILED.findall(log.read_text())]
    assert waits == sorted(set(waits)), "one line for each step of the backoff"
    assert "trying again" not in (tmp_path / "beside.log").read_text()


def test_a_journal_whose_disk_is_full_ends_the_recording_loudly_and_loses_nothing_before(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with small_disk(data / "journal", size_kib=6144):
        with Up(data, "--duration", "300", "--rate", "100000", "--sinks", "parquet,sqlite") as up:
            code = up.end()
        print(code, up.output, up.errors)
        assert code != 0
