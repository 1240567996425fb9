"""Appending records to the journal, without syncs, against os.write of the codes alone."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from unittest import mock

from bench.items import LARGE, SMALL, block, codes, run_info
from bench.measuring import Case, at_least
from bench.registry import Setting
from dtolbus import files
from dtolbus.records import DaqBlock, RunInfo
from dtolbus_producer.journal import RunWriter

TRIAL_BYTES, QUICK_BYTES = 192 << 20, 16 << 20
"""Little enough that the system need not write it to the disk before the trial is over and the file is removed."""


def cases(setting: Setting) -> Iterator[Case]:
    for samples, size in ((SMALL, "16 kB"), (LARGE, "200 kB")):
        run = run_info(samples)
        data = codes(samples)
        records = (QUICK_BYTES if setting.quick else TRIAL_BYTES) // data.nbytes
        made = [block(run, index, data) for index in range(records)]
        numbers = count()

        def ours(run: RunInfo = run, made: Sequence[DaqBlock] = made, numbers: Iterator[int] = numbers) -> float:
            folder = setting.folder / f"ours-{next(numbers)}"
            with writing(folder, run, synced=False) as writer:
                began = time.perf_counter()
                for one in made:
                    writer.append(one)
                took_s = time.perf_counter() - began
            return _megabytes(made) / took_s

        def reference(made: Sequence[DaqBlock] = made) -> float:
            path = setting.folder / "reference"
            fd = files.open_new(path)
            payloads = [one.raw_codes.data.cast("B") for one in made if one.raw_codes is not None]
            try:
                began = time.perf_counter()
                for payload in payloads:
                    os.write(fd, payload)
                took_s = time.perf_counter() - began
            finally:
                os.close(fd)
                path.unlink()
            return _megabytes(made) / took_s

        yield Case(
            "journal", f"append of {size} with checksum, against os.write", "MB/s", ours, reference, at_least(0.8)
        )


def _megabytes(made: Sequence[DaqBlock]) -> float:
    return sum(one.raw_codes.nbytes for one in made if one.raw_codes is not None) / 1e6


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
