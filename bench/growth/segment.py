"""What a segment holds: how long a gateway takes to begin in the middle of one that is short, or long."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.growth.fits import Series, cost
from bench.growth.journals import run_id_at, write_run
from bench.items import block, codes, run_info
from bench.registry import Setting
from bench.stack import stack
from dtolbus.records import Gap, RunInfo
from dtolbus.remote import RemoteJournal

RECORDS = (100, 1_000, 10_000, 100_000)
QUICK = (100, 3_000)
_SAMPLES, _CHANNELS = 10, 2
_STARTED_MS = 1_764_000_000_000
_PLACES = (0.3, 0.5, 0.7, 0.9)
"""Of the segment; one after another would be reading on."""


def segments(setting: Setting) -> Iterator[Series]:
    """Yield how the time to find a record grows with what its segment holds."""
    sizes = QUICK if setting.quick else RECORDS
    found = [_fetch_ms(setting.folder / f"segment-{records}", records) for records in sizes]
    yield Series(
        "records in a segment",
        "one segment, of small blocks: 256 MB, its usual bound, are 500,000 of them",
        "records",
        tuple(map(float, sizes)),
        (cost("a record in its midst, fetched by somebody new", "ms", sizes, found),),
    )


def _fetch_ms(data: Path, records: int) -> float:
    run = run_info(_SAMPLES, channels=_CHANNELS, run_id=run_id_at(_STARTED_MS))
    content = codes(_SAMPLES, channels=_CHANNELS)
    with stack(data) as made:
        write_run(data / "journal", run, records, [(0, [block(run, index, content) for index in range(records)])])
        made.start_gateway()
        took_s = [_taken_s(made.urls[1], run, int(place * records)) for place in _PLACES]
    shutil.rmtree(data)
    return 1000 * median(took_s)


def _taken_s(url: str, run: RunInfo, index: int) -> float:
    """Return how long it takes who just came to get one record."""
    with RemoteJournal(url) as journal:
        began = time.perf_counter()
        found = list(journal.records(run, index, index + 1))
        took_s = time.perf_counter() - began
    if len(found) != 1 or isinstance(found[0], Gap):
        raise RuntimeError(f"not the record {index}: {found}")
    return took_s
