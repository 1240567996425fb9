"""A journal written at a pace, in a process of its own: `python -m bench.writing DATA SAMPLES BLOCKS_S SECONDS`.

Writes blocks of 8 channels × SAMPLES, then, on stdout, 16 bytes for each that the head has passed: its index, and the
perf_counter_ns when the head was last seen before it: it was not durable earlier.
"""

import struct
import sys
import threading
import time
from pathlib import Path

from bench.items import block, codes, run_info
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.runid import new_run_id

DURABLE = struct.Struct("<qq")
_LOOK_S = 0.0002


def main() -> None:
    data, samples, blocks_s, seconds = sys.argv[1:]
    run, made = run_info(int(samples), run_id=new_run_id()), codes(int(samples))
    writer = RunWriter(Path(data) / "journal", run)
    watch = _Watch(writer)
    began = time.perf_counter()
    for index in range(round(float(blocks_s) * float(seconds))):
        ahead_s = began + index / float(blocks_s) - time.perf_counter()
        if ahead_s > 0:
            time.sleep(ahead_s)
        writer.append(block(run, index, made))
    watch.end()
    writer.close()
    sys.stdout.buffer.write(b"".join(DURABLE.pack(*seen) for seen in watch.seen))


class _Watch:
    """Notes on a thread when the head passes each record."""

    def __init__(self, writer: RunWriter) -> None:
        self.seen: list[tuple[int, int]] = []
        self._writer = writer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        last_ns = time.perf_counter_ns()
        while not self._stop.wait(_LOOK_S):
            now_ns, head = time.perf_counter_ns(), self._writer.head
            self.seen += [(index, last_ns) for index in range(len(self.seen), head)]
            last_ns = now_ns


if __name__ == "__main__":
    main()
