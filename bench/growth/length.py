"""Length of a run: what writing, opening, fetching and storing cost after an hour, and after a month."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import msgspec

from bench.growth.fits import Series, cost
from bench.growth.journals import long_run, run_id_at
from bench.growth.runs import worker_s
from bench.growth.writing import Written
from bench.items import block, codes, run_info
from bench.registry import Setting
from bench.stack import rss, stack
from bench.storing import Opened
from dtolbus.records import Gap, RunInfo
from dtolbus.remote import RemoteJournal
from dtolbus_workers.destination import Destination, RunBatch
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.text_destination import CsvDestination

HOURS = (1, 24, 168, 720)
QUICK = (1, 168)
BLOCKS_AN_HOUR = 3600
KEPT = 4
"""Of an hour's blocks, so many lie in its segment."""
ROWS_AN_HOUR = 60
_SAMPLES, _CHANNELS = 10, 2
_OPENS = 3

_Made = Callable[[Path], Destination]


def _csv(place: Path) -> Destination:
    made: Any = CsvDestination(place / "csv", blocks="summary")  # its destination_id is a property, read only
    return cast(Destination, made)


SINKS: dict[str, tuple[_Made, int]] = {
    "SQLite": (lambda place: SqliteDestination(place / "stored.sqlite"), ROWS_AN_HOUR),
    "Parquet": (lambda place: ParquetDestination(place / "parquet"), 1),
    "CSV": (_csv, ROWS_AN_HOUR),
}
"""How each is made, and its rows for an hour. Parquet has a commit for each: it is the parts that make it grow."""


class _Point(NamedTuple):
    writer: Written
    gateway_s: float
    gateway_mib: float
    worker_s: float
    fetch_ms: float
    open_ms: dict[str, float]
    """By sink."""


def run_lengths(setting: Setting) -> Iterator[Series]:
    """Yield how cost grows with the length of a run."""
    hours = QUICK if setting.quick else HOURS
    sizes = [3600.0 * hour for hour in hours]
    found = [_point(setting.folder / f"length-{hour}", hour) for hour in hours]
    yield Series(
        "length of a run",
        "a segment an hour, one block a second",
        "s",
        tuple(sizes),
        (
            cost("an append, as the last of the run", "µs", sizes, [point.writer.append_us for point in found]),
            cost("the writer's memory", "MiB", sizes, [point.writer.rss_mib for point in found]),
            cost("until the gateway answers", "s", sizes, [point.gateway_s for point in found]),
            cost("the gateway's memory", "MiB", sizes, [point.gateway_mib for point in found]),
            cost("a sink that has it all, --until-end", "s", sizes, [point.worker_s for point in found]),
            cost("the last record, fetched", "ms", sizes, [point.fetch_ms for point in found]),
            *(
                cost(f"{name}'s destination, opened", "ms", sizes, [point.open_ms[name] for point in found])
                for name in SINKS
            ),
        ),
        f"scaled: of the {BLOCKS_AN_HOUR} blocks of an hour the journal holds the last {KEPT}, at their own indexes "
        f"and times; the writer's segments have 8 records; SQLite and CSV hold a row a minute, Parquet a part an hour",
    )


def _point(data: Path, hours: int) -> _Point:
    with stack(data) as made:
        run = long_run(data / "journal", hours, BLOCKS_AN_HOUR, KEPT)
        final = hours * BLOCKS_AN_HOUR
        began = time.perf_counter()
        made.start_gateway()
        gateway_s = time.perf_counter() - began
        _store_as_gap(data / "stored.sqlite", run, final)
        again_s = worker_s(made, data / "stored.sqlite")
        fetch_ms = _fetch_ms(made.urls[1], run, final)
        gateway_mib = rss(made.children["gateway"].pid) / 2**20
    writer = _written(data / "writer", hours)
    open_ms = {name: _open_ms(data / f"sink-{name}", name, hours) for name in SINKS}
    shutil.rmtree(data)
    return _Point(writer, gateway_s, gateway_mib, again_s, fetch_ms, open_ms)


def _written(folder: Path, segments: int) -> Written:
    command = [sys.executable, "-m", "bench.growth.writing", str(folder), str(segments)]
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603  # a list of arguments, no shell
    return msgspec.json.decode(done.stdout, type=Written)


def _store_as_gap(path: Path, run: RunInfo, final: int) -> None:
    """Bring a sink to the end of the run by one commit, which says that all of it is missing."""
    batch = RunBatch(run=run, from_index=0, to_index=final, records=(), gaps=(Gap(0, final, "scaled"),))
    with Opened(SqliteDestination(path)) as opened:
        opened.commit_s([batch])


def _fetch_ms(url: str, run: RunInfo, final: int) -> float:
    took_s = []
    with RemoteJournal(url) as journal:
        for _ in range(_OPENS):
            began = time.perf_counter()
            records = list(journal.records(run, final - 1, final))
            took_s.append(time.perf_counter() - began)
            if len(records) != 1 or isinstance(records[0], Gap):
                raise RuntimeError(f"not the last record: {records}")
    return 1000 * median(took_s)


def _open_ms(place: Path, name: str, hours: int) -> float:
    """Return how long a destination takes to open that holds the rows of so many hours."""
    place.mkdir()
    make, rows_an_hour = SINKS[name]
    rows = rows_an_hour * hours
    with Opened(make(place)) as opened:
        opened.commit_s(list(_batches(rows, rows if name == "Parquet" else 1)))
    took_s = []
    for _ in range(_OPENS):
        destination = make(place)
        began = time.perf_counter()
        with asyncio.Runner() as loop:
            loop.run(destination.open())
            took_s.append(time.perf_counter() - began)
            loop.run(destination.close())
    return 1000 * median(took_s)


def _batches(rows: int, commits: int) -> Iterator[RunBatch]:
    """Yield a run of so many blocks, in so many commits."""
    run = run_info(_SAMPLES, channels=_CHANNELS, run_id=run_id_at(rows))
    data = codes(_SAMPLES, channels=_CHANNELS)
    for number in range(commits):
        begin, end = rows * number // commits, rows * (number + 1) // commits
        records = tuple(block(run, index, data) for index in range(begin, end))
        yield RunBatch(run=run, from_index=begin, to_index=end, records=records)
