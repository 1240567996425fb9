"""The runs of a journal as they appear."""

import os
import time
from pathlib import Path

import msgspec

from dtolbus.records import Channel, RunInfo
from dtolbus.runs import RUN_FILE, RunFile, run_path
from dtolbus_producer.catalog import Catalog


def run(place: int) -> RunInfo:
    run_id = f"0190a5f4-0000-7000-8000-{place:012d}"
    return RunInfo(run_id, "dev", "task", "blocks", (Channel(name="a"),), 1000.0, 0, 0, block_samples=10)


def begin(journal: Path, info: RunInfo) -> Path:
    folder = run_path(journal, info.device, info.task, info.run_id)
    folder.mkdir(parents=True)
    return folder


def finish(folder: Path, info: RunInfo) -> None:
    (folder / RUN_FILE).write_bytes(msgspec.json.encode(RunFile(info, "ended", 0)))


def settle(journal: Path) -> None:
    """Let the folders' listings be old enough to be kept."""
    for folder in (journal, journal / "dev", journal / "dev" / "task"):
        os.utime(folder, (time.time() - 60, time.time() - 60))


def test_a_run_that_was_not_there_yet_is_found_in_a_folder_that_is_listed_no_more(tmp_path: Path):
    finish(begin(tmp_path, run(1)), run(1))
    late = begin(tmp_path, run(2))
    settle(tmp_path)
    catalog = Catalog(tmp_path)
    assert [found.info for found in catalog.discover()] == [run(1)]
    assert catalog.discover() == []

    finish(late, run(2))
    assert [found.info for found in catalog.discover()] == [run(2)]
    assert catalog.discover() == []


def test_each_run_is_given_once_and_a_new_one_when_it_comes(tmp_path: Path):
    finish(begin(tmp_path, run(1)), run(1))
    settle(tmp_path)
    catalog = Catalog(tmp_path)
    assert len(catalog.discover()) == 1
    assert catalog.discover() == []

    finish(begin(tmp_path, run(2)), run(2))
    assert [found.info for found in catalog.discover()] == [run(2)]
    (tmp_path / "dev" / "task" / run(1).run_id / RUN_FILE).unlink()
    (tmp_path / "dev" / "task" / run(1).run_id).rmdir()
    assert (catalog.discover(), [path.name for path in catalog.gone()]) == ([], [run(1).run_id])
