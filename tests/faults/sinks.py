"""The destinations that lie in files, and what must hold of one whose process or whose power was cut."""

import asyncio
from pathlib import Path

from tests.faults.powerloss import Disk

from dtolbus.errors import CannotStartError
from dtolbus.records import RunInfo
from dtolbus_workers.conformance import ConformanceBase
from dtolbus_workers.destination import Destination, Stored
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.parquet_destination import stored as parquet_stored
from dtolbus_workers.specimens import make_batch, make_run
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.text_destination import CsvDestination, JsonlDestination

RUN = make_run("blocks")
RECORDS = 8
BEFORE_REOPEN = 6
BOUNDARIES = {0, 3, 4, 6, RECORDS}
"""Where the commits of victims.py end."""
CANNOT_OPEN = (CannotStartError,)


class Parquet(ConformanceBase):
    def make(self, place: Path) -> Destination:
        return ParquetDestination(place / "parquet")

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        return parquet_stored(place / "parquet", run)


class Sqlite(ConformanceBase):
    def make(self, place: Path) -> Destination:
        return SqliteDestination(place / "bus.sqlite", blocks="samples")

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        return SqliteDestination.stored(str(place / "bus.sqlite"), {}, run)


class Csv(ConformanceBase):
    text: type[CsvDestination] | type[JsonlDestination] = CsvDestination

    def make(self, place: Path) -> Destination:
        return self.text(place / "text", blocks="samples")

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        return self.text.stored(str(place / "text"), {}, run)


class Jsonl(Csv):
    text = JsonlDestination


SINKS: dict[str, type[ConformanceBase]] = {"parquet": Parquet, "sqlite": Sqlite, "csv": Csv, "jsonl": Jsonl}


def told(sink: str, disk: Disk) -> int:
    """Return the newest position that was acknowledged."""
    del sink
    return disk.marked


def check(sink: str, place: Path, least: int) -> None:
    """Assert that the destination holds whole commits, at least those told, value for value; and that it goes on."""

    async def go() -> None:
        tests = SINKS[sink]()
        async with tests.opened(place) as destination:
            stored = await tests.stored(place, RUN)
            reached = 0 if stored is None else stored.position.next
            assert reached >= least, f"{least} records were acknowledged, {reached} are there"
            assert reached in BOUNDARIES
            if reached:
                await tests.check(place, make_batch(RUN, 0, reached))
            await destination.commit(make_batch(RUN, reached, RECORDS + 1 - reached))
        await tests.check(place, make_batch(RUN, 0, RECORDS + 1))

    asyncio.run(go())
