"""Disks that fill up under a recording: the sinks say so and catch up later; the journal's end is loud and clean."""

import os
import re
import shutil
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


@pytest.mark.parametrize("kind", ["parquet", "sqlite", "csv", pytest.param("jsonl", marks=pytest.mark.soak)])
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
    count = feed.head // 2
    assert {(line.sink, line.stored) for line in certificate.lines} == {(kind, count), ("beside", count)}
    waits = [float(wait) for _, wait in FAILED.findall(log.read_text())]
    assert waits == sorted(set(waits)), "one line for each step of the backoff"
    assert "trying again" not in (tmp_path / "beside.log").read_text()


LEFT_BYTES = 290_000
"""Less than the 5 % of the small disk that stay free by default, and more than is written before that is seen."""

CONFIG = """
{journal}
[[device]]
name = "rig"
[[device.task]]
name = "fast"
rate_hz = 20_000
channels = ["a", "b"]
[[device]]
name = "oven"
[[device.task]]
name = "slow"
kind = "readings"
rate_hz = 50
channels = [{{ name = "tc", thermocouple = "K" }}]
"""


@pytest.mark.parametrize(
    ("journal", "why"), [("", "to stay so (min_free)"), ('[journal]\nmin_free = "0"', "No space left on device")]
)
def test_a_journal_whose_disk_is_full_ends_the_recording_loudly_and_loses_nothing_before(
    tmp_path: Path, journal: str, why: str
) -> None:
    data, config = tmp_path / "data", tmp_path / "dtolbus.toml"
    data.mkdir()
    config.write_text(CONFIG.format(journal=journal))
    options = ("--config", str(config), "--duration", "300", "--sinks", "parquet,sqlite,csv", "--blocks", "both")
    with small_disk(data / "journal", size_kib=6144) as disk:
        with Up(data, *options) as up:
            up.wait_for_positions(20, ("sqlite",), runs=2)
            if journal:
                fill(disk / "filler")
            else:
                (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - LEFT_BYTES))
            code = up.end()
        told = [line for line in up.errors.splitlines() if "records no more" in line]
        assert (code, len(told)) == (1, 2), up.output[-3000:] + up.errors
        assert {line.split()[0] for line in told} == {"rig", "oven"}
        assert all(why in line and "make room" in line and "start again" in line for line in told), told
        certificate = verify(data)
        assert certificate.complete, certificate
        assert all(line.expected > 0 for line in certificate.lines)
        assert {(line.sink, line.stream) for line in certificate.lines} == {
            *((sink, stream) for sink in ("parquet", "sqlite") for stream in ("rig/fast", "oven/slow")),
            ("csv", "oven/slow"),
        }
        assert {folder.status().state for found in runs(data).values() for folder in found} <= {"ended", "interrupted"}
        assert {len(found) for found in runs(data).values()} == {1}
