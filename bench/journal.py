"""Appending records to the journal, without syncs, against os.write of the codes alone."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from unittest import mock

import xxhash

from bench.cpu import Cpu, cpu_us, shares
from bench.items import LARGE, SMALL, block, codes, run_info
from bench.measuring import Case, at_least
from bench.registry import Setting
from dtolbus import files
from dtolbus.blocktext import usual_header
from dtolbus.records import DaqBlock, RunInfo
from dtolbus_producer.journal import RunWriter

GOAL = at_least(0.8)
TRIAL_BYTES, QUICK_BYTES = 192 << 20, 16 << 20
"""Little enough that the system need not write it to the disk before the trial is over and the file is removed."""
_HEADER_BYTES = 420
"""About as many as ours."""
_BAREST_TRIALS = 5


def cases(setting: Setting) -> Iterator[Case]:
    for samples, size in ((SMALL, "16 kB"), (LARGE, "200 kB")):
        run = run_info(samples)
        data = codes(samples)
        records = (QUICK_BYTES if setting.quick else TRIAL_BYTES) // data.nbytes
        made = [block(run, index, data) for index in range(records)]
        yield _case(setting.folder, size, run, made)


def _case(folder: Path, size: str, run: RunInfo, made: Sequence[DaqBlock]) -> Case:
    numbers, append_cpu, write_cpu = count(), Cpu(len(made)), Cpu(len(made))
    payloads = [one.raw_codes.data.cast("B") for one in made if one.raw_codes is not None]
    megabytes = sum(payload.nbytes for payload in payloads) / 1e6

    def ours() -> float:
        with writing(folder / f"ours-{next(numbers)}", run, synced=False) as writer:
            began = time.perf_counter()
            with append_cpu:
                for one in made:
                    writer.append(one)
            return megabytes / (time.perf_counter() - began)

    def reference() -> float:
        path = folder / "reference"
        fd = files.open_new(path)
        try:
            began = time.perf_counter()
            with write_cpu:
                for payload in payloads:
                    os.write(fd, payload)
            return megabytes / (time.perf_counter() - began)
        finally:
            os.close(fd)
            path.unlink()

    def limit() -> str:
        """Return what an append takes, what the goal leaves for it, and how far the barest loop gets."""
        parts = {
            "the write": write_cpu.us,
            "the header's text": cpu_us(lambda: [usual_header(one, one.block_index) for one in made], len(made)),
            "the checksum": cpu_us(lambda: [xxhash.xxh3_64_intdigest(payload) for payload in payloads], len(made)),
        }
        told = shares(append_cpu.us, parts)
        return (
            f"CPU of an append {append_cpu.us:.1f} µs: {told}; the goal leaves {write_cpu.us / GOAL.value:.1f}; a loop "
            f"that appends one and the same header with its checksum: {_barest(folder, payloads):.2f} of os.write"
        )

    what = f"append of {size} with checksum, against os.write"
    return Case("journal", what, "MB/s", ours, reference, GOAL, note=limit)


def _barest(folder: Path, payloads: Sequence[memoryview]) -> float:
    """Return the rate, against os.write's, of what every journal with a checksum has to do, and nothing more."""
    header = bytes(_HEADER_BYTES)

    def write(fd: int, payload: memoryview) -> None:
        os.write(fd, payload)

    def append(fd: int, payload: memoryview) -> None:
        digest = xxhash.xxh3_64(header)
        digest.update(payload)
        os.writev(fd, [b"%b%016x" % (header, digest.intdigest()), payload])

    took_s: dict[Callable[[int, memoryview], None], list[float]] = {write: [], append: []}
    for _ in range(_BAREST_TRIALS):
        for call, noted in took_s.items():
            path = folder / "barest"
            fd = files.open_new(path)
            try:
                began = time.perf_counter()
                for payload in payloads:
                    call(fd, payload)
                noted.append(time.perf_counter() - began)
            finally:
                os.close(fd)
                path.unlink()
    return median(took_s[write]) / median(took_s[append])


@contextlib.contextmanager
def writing(folder: Path, run: RunInfo, *, synced: bool) -> Iterator[RunWriter]:
    """Give a journal's writer, whose files are removed afterwards; where not `synced`, its syncs do nothing."""
    with contextlib.ExitStack() as stack:
        if not synced:
            stack.enter_context(mock.patch.object(files, "sync", return_value=None))
        writer = RunWriter(folder, run)
        try:
            yield writer
        finally:
            writer.close()
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
