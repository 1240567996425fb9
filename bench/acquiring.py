"""A board that runs as fast as is wanted: `sim-fast` by the producer's command, from a configuration made here."""

from dataclasses import dataclass

import msgspec

from bench.stack import Stack
from dtolbus.runs import list_runs

DEVICE, TASK = "scope", "fast"


@dataclass(frozen=True)
class Stream:
    """What the board is to give."""

    rate_hz: float
    """Samples a second and channel."""
    channels: int
    block_samples: int

    @property
    def blocks_s(self) -> float:
        """Blocks a second."""
        return self.rate_hz / self.block_samples

    @property
    def block_bytes(self) -> int:
        """Bytes of a block's codes, 16 bit each."""
        return 2 * self.channels * self.block_samples

    @property
    def mb_s(self) -> float:
        """MB of codes a second."""
        return self.blocks_s * self.block_bytes / 1e6


def start_board(made: Stack, stream: Stream, duration_s: float | None) -> None:
    """Start the producer; it ends by itself after `duration_s`, or with the stack."""
    task = {
        "name": TASK,
        "rate_hz": stream.rate_hz,
        "block_samples": stream.block_samples,
        "channels": [f"ch{place}" for place in range(stream.channels)],
    }
    config = made.data / "bench.json"
    config.write_bytes(msgspec.json.encode({"device": [{"name": DEVICE, "board": "sim-fast", "task": [task]}]}))
    ends = [] if duration_s is None else ["--duration", f"{duration_s:g}"]
    made.start("producer", "dtolbus-producer", "run", "--config", str(config), "--data", str(made.data), *ends)


def journaled(made: Stack) -> int:
    """Return how many records of the board are durable."""
    total = 0
    for folder in list_runs(made.data / "journal"):
        with folder:
            total += folder.head()
    return total
