"""Files of a sink that are deleted, moved or replaced under its worker: never acknowledged, told, stored anew."""

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.commands import running
from tests.e2e.test_late import Bus, positions, verified
from tests.faults.sinks import RECORDS, RUN, SINKS
from tests.producer.bus import eventually
from tests.protocol.specimens import block, block_run

from dtolbus.errors import DtolSinkError, DtolSinkWriteError
from dtolbus.records import RunInfo
from dtolbus.registrations import read_registrations
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.specimens import make_batch, make_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no file that is in use")

OTHER = make_run("readings", number=2)


def delete(place: Path) -> None:
    """Delete all that the sink has."""
    for entry in list(place.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def move(place: Path) -> None:
    """Move all that the sink has elsewhere."""
    place.rename(place.with_name("elsewhere"))
    place.mkdir()


def go_back(place: Path) -> None:
    """Put the backup of an earlier state in its place, as people do: the data, not what lies beside it."""
    for entry in place.with_name("backup").iterdir():
        if not entry.is_dir():
            shutil.copy(entry, place / ".new")
            (place / ".new").replace(place / entry.name)
        else:
            shutil.rmtree(place / entry.name)
            shutil.copytree(entry, place / entry.name)


def delete_run(place: Path) -> None:
    """Delete the run's own files, nothing else."""
    for folder in place.glob("*/*"):
        if folder.is_dir():
            shutil.rmtree(folder)


FILES = ("parquet", "csv", "jsonl")
CASES = [(sink, change, run) for sink in SINKS for change in (delete, move, go_back) for run in (RUN, OTHER)]
CASES += [(sink, delete_run, RUN) for sink in FILES]


@pytest.mark.parametrize(
    ("sink", "change", "run"), CASES, ids=lambda value: getattr(value, "__name__", getattr(value, "kind", value))
)
def test_what_is_not_there_any_more_is_not_acknowledged_and_stored_anew(
    tmp_path: Path, sink: str, change: Callable[[Path], None], run: RunInfo
) -> None:
    place, tests = tmp_path / "place", SINKS[sink]()
    place.mkdir()

    async def store(begin: int, end: int) -> None:
        async with tests.opened(place) as destination:
            await destination.commit(make_batch(RUN, begin, end - begin))

    async def lose() -> None:
        async with tests.opened(place) as destination:
            await destination.commit(make_batch(RUN, 3, 2))
            change(place)
            batch = make_batch(RUN, 5, 1) if run is RUN else make_batch(OTHER, 0, 1)
            with pytest.raises(DtolSinkError, match=r"deleted, moved or replaced|was removed") as told:
                await destination.commit(batch)
            assert not isinstance(told.value, DtolSinkWriteError), "it would be tried again for ever"

    async def again() -> None:
        destination = tests.make(place)
        at = (await destination.open()).get(RUN.run_id)
        begin = at.next if at else 0
        assert change is not go_back or begin == 1, "what is there is not the backup: something is mixed into it"
        await destination.commit(make_batch(RUN, begin, RECORDS - begin))
        await destination.close()
        await tests.check(place, make_batch(RUN, 0, RECORDS))

    asyncio.run(store(0, 1))
    shutil.copytree(place, place.with_name("backup"))
    asyncio.run(store(1, 3))
    asyncio.run(lose())
    asyncio.run(again())


def test_a_worker_whose_file_is_deleted_ends_and_the_next_fills_a_new_one(tmp_path: Path) -> None:
    bus, out = Bus(tmp_path / "data"), tmp_path / "bus.sqlite"
    run = block_run("0190a5f4-0000-7000-8000-000000000001")
    writer = RunWriter(bus.data / "journal", run)
    with bus.gateway():
        writer.append(block(run, 0))
        with running(*bus.sqlite(out)) as worker:
            eventually(lambda: positions(out) == {run.run_id: 1})
            for path in tmp_path.glob("bus.sqlite*"):
                path.unlink()
            writer.append(block(run, 1))
            assert worker.wait(30) == 1
        (sink,) = read_registrations(bus.data)
        assert sink.positions[run.run_id].position <= 1, "what went into a deleted file was acknowledged"
        writer.append(block(run, 2))
        with running(*bus.sqlite(out)):
            eventually(lambda: positions(out) == {run.run_id: 3})
        writer.close()
        verified(bus, out)
