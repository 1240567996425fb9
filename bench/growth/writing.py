"""A producer's writer over many segments, in a process of its own: `python -m bench.growth.writing FOLDER SEGMENTS`.

Writes to stdout what an append took near the end, µs, and the memory of the process then, MiB.
"""

import os
import sys
import time
from pathlib import Path
from statistics import median

import msgspec

from bench.growth.journals import run_id_at
from bench.items import block, codes, run_info
from bench.stack import rss
from dtolbus_producer.journal import RunWriter

SEGMENT_RECORDS = 8
_SAMPLES = 100
_LAST = 64
"""So many appends at the end are looked at."""


class Written(msgspec.Struct, frozen=True):
    """What the writer came to."""

    append_us: float
    rss_mib: float


def main() -> None:
    folder, segments = Path(sys.argv[1]), int(sys.argv[2])
    run = run_info(_SAMPLES, run_id=run_id_at(segments))
    data = codes(_SAMPLES)
    writer = RunWriter(folder, run, segment_bytes=(SEGMENT_RECORDS - 1) * data.nbytes)
    took_s = []
    for index in range(max(segments * SEGMENT_RECORDS, _LAST)):
        made = block(run, index, data)
        began = time.perf_counter()
        writer.append(made)
        took_s.append(time.perf_counter() - began)
    memory = rss(os.getpid()) / 2**20
    writer.close()
    sys.stdout.write(msgspec.json.encode(Written(1e6 * median(took_s[-_LAST:]), memory)).decode())


if __name__ == "__main__":
    main()
