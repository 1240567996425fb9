"""A subscriber in a process of its own: `python -m bench.hearing LIVE BEFORE`.

Writes to stdout, for each block that it has in its hands, a HEARD.
"""

import signal
import struct
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtolbus.records import DaqBlock
from dtolbus.subscriber import Subscriber

HEARD = struct.Struct("<qqq")
"""The block's index, the monotonic instant when its last sample's period was over, and when it was heard, ns."""


def heard_by(path: Path) -> NDArray[np.int64]:
    """Return what a subscriber has written so far, shape (blocks, 3)."""
    written = path.read_bytes()
    return np.frombuffer(written[: len(written) // HEARD.size * HEARD.size], np.int64).reshape(-1, 3)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    live, before = sys.argv[1:]
    out = sys.stdout.buffer
    with Subscriber(live, catchup=before) as subscriber:
        for record in subscriber:
            if isinstance(record, DaqBlock):
                over_ns = record.t_mono_ns + round(record.samples_per_channel * record.period_ns)
                out.write(HEARD.pack(record.block_index, over_ns, time.perf_counter_ns()))
                out.flush()


if __name__ == "__main__":
    main()
