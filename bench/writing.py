"""A journal written at a pace, in a process of its own: `python -m bench.writing DATA SAMPLES BLOCKS_S SECONDS`.

Writes blocks of 8 channels × SAMPLES, then, on stdout, 16 bytes for each: its index, and the perf_counter_ns when it
was durable.
"""

import struct
import sys
import time
from pathlib import Path

from bench.items import block, codes, run_info
from dtolbus.records import RunInfo
from dtolbus.runs import Head
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.runid import new_run_id

DURABLE = struct.Struct("<qq")


class _TimedWriter(RunWriter):
    """Notes when each record was durable: the sync has returned, and the head is about to say so."""

    def __init__(self, journal: Path, run: RunInfo) -> None:
        self.seen: list[tuple[int, int]] = []
        super().__init__(journal, run)

    def _write_head(self, head: Head) -> None:
        now_ns = time.perf_counter_ns()
        self.seen += [(index, now_ns) for index in range(len(self.seen), head.head)]
        super()._write_head(head)


def main() -> None:
    data, samples, blocks_s, seconds = sys.argv[1:]
    run, made = run_info(int(samples), run_id=new_run_id()), codes(int(samples))
    writer = _TimedWriter(Path(data) / "journal", run)
    began = time.perf_counter()
    for index in range(round(float(blocks_s) * float(seconds))):
        ahead_s = began + index / float(blocks_s) - time.perf_counter()
        if ahead_s > 0:
            time.sleep(ahead_s)
        writer.append(block(run, index, made))
    writer.close()
    sys.stdout.buffer.write(b"".join(DURABLE.pack(*seen) for seen in writer.seen))


if __name__ == "__main__":
    main()
