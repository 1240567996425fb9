"""Journals of many runs, or of a long one, as a producer leaves them; written without a sync, so in seconds."""

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from bench.items import block, codes, run_info
from dtolbus.chunks import encode_record
from dtolbus.framing import encode_file_header
from dtolbus.records import DaqBlock, RunInfo
from dtolbus.runs import HEAD_FILE, RUN_FILE, Head, RunFile, encode_head, run_path, segment_name

TASKS = 4
BLOCKS = 2
"""Records of each of many runs."""
_SAMPLES, _CHANNELS = 10, 2
_FIRST_MS = 1_764_000_000_000
_OLD_S = 30 * 86_400.0
"""Runs that ended so long ago are told of nobody any more, but to who asks."""


def many_runs(journal: Path, count: int) -> list[RunInfo]:
    """Write so many old runs of a few records, and return their headers."""
    data = codes(_SAMPLES, channels=_CHANNELS)
    runs = []
    for place in range(count):
        run = msgspec.structs.replace(
            run_info(_SAMPLES, channels=_CHANNELS, run_id=run_id_at(_FIRST_MS + 60_000 * place)),
            task=f"task{place % TASKS}",
        )
        write_run(journal, run, BLOCKS, [(0, [block(run, index, data) for index in range(BLOCKS)])])
        runs.append(run)
    return runs


def long_run(journal: Path, hours: int, blocks_an_hour: int, kept: int) -> RunInfo:
    """Write a run of so many hours, a segment each, of which each segment holds only its last `kept` blocks."""
    run = run_info(_SAMPLES, channels=_CHANNELS, run_id=run_id_at(_FIRST_MS))
    run = msgspec.structs.replace(run, rate_hz=_SAMPLES * blocks_an_hour / 3600)
    data = codes(_SAMPLES, channels=_CHANNELS)

    def segments() -> Iterator[tuple[int, list[DaqBlock]]]:
        for hour in range(hours):
            end = (hour + 1) * blocks_an_hour
            yield hour * blocks_an_hour, [block(run, index, data) for index in range(end - kept, end)]

    write_run(journal, run, hours * blocks_an_hour, segments())
    return run


def write_run(journal: Path, run: RunInfo, final: int, segments: Iterable[tuple[int, list[DaqBlock]]]) -> None:
    """Write the folder of an ended run; a segment is its first index and what it holds."""
    folder = run_path(journal, run.device, run.task, run.run_id)
    folder.mkdir(parents=True)
    size = total = 0
    for first, blocks in segments:
        parts = [encode_file_header(run)]
        for seq, made in enumerate(blocks):
            parts += [bytes(part) for part in encode_record(made, seq)]
        written = b"".join(parts)
        (folder / segment_name(run.kind, first)).write_bytes(written)
        size, total = len(written), total + len(written)
    (folder / HEAD_FILE).write_bytes(encode_head(Head(final, size)))
    file = RunFile(run, "ended", final, final * run.block_samples, total)
    (folder / RUN_FILE).write_bytes(msgspec.json.encode(file))
    ended_at = time.time() - _OLD_S
    os.utime(folder / RUN_FILE, (ended_at, ended_at))


def run_id_at(unix_ms: int) -> str:
    """Return a UUIDv7 of that instant, the same each time."""
    rest = int.from_bytes(np.random.default_rng(unix_ms).bytes(10), "big")
    number = (unix_ms << 80) | rest
    number = number & ~(0xF << 76) | (0x7 << 76)
    return str(uuid.UUID(int=number & ~(0x3 << 62) | (0x2 << 62)))
