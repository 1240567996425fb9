"""What the conformance suite needs: a destination's place, checks of what lies there, a child to kill, a small disk."""

import contextlib
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, DaqReading, RunInfo, RunKind
from dtolbus_workers.crashing import SURVIVED
from dtolbus_workers.destination import Destination, Position, RunBatch, Stored
from dtolbus_workers.specimens import make_batch, make_run


class ConformanceBase:
    """A destination under test: how to make it, how to read it back, what it promises to keep."""

    kinds: ClassVar[tuple[RunKind, ...]] = ("blocks", "readings")
    """Kinds of runs that the destination takes."""
    gives_samples: ClassVar[bool] = True
    """Whether it gives samples back, and not summaries only."""
    keeps_nan: ClassVar[bool] = True
    keeps_inf: ClassVar[bool] = True
    keeps_negative_zero: ClassVar[bool] = True
    keeps_ints: ClassVar[bool] = True
    """Whether ints and bools come back as ints (a bool as 0 or 1), and not as equal floats."""
    keeps_big_ints: ClassVar[bool] = False
    """Whether it stores ints beyond 64 bits; else it refuses the record."""

    def make(self, place: Path) -> Destination:
        """Return a new, unopened destination that lies in `place`; the same place means the same destination."""
        raise NotImplementedError

    async def stored(self, place: Path, run: RunInfo) -> Stored | None:
        """Return what lies in `place` of the run, the way `verify` reads it."""
        raise NotImplementedError

    def construct(self, place: Path) -> str:
        """Return Python source that binds `destination` to what `make` returns; it runs in a child process.

        Calls of dtolbus.files (as `files.append(…)`) and SQLite's statements are crash points by themselves; the source
        may add more by making other calls pass `dtolbus_workers.crashing.crash_point`.
        """
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, place: Path) -> AsyncIterator[Destination]:
        """Open the destination at `place`, and close it."""
        destination = self.make(place)
        await destination.open()
        try:
            yield destination
        finally:
            await destination.close()

    async def commit(self, place: Path, *batches: RunBatch) -> None:
        """Open the destination, commit the batches, close it."""
        async with self.opened(place) as destination:
            for batch in batches:
                await destination.commit(batch)

    async def check(self, place: Path, *batches: RunBatch) -> None:
        """Assert that exactly the batches' content is stored, of one run, with the position after them."""
        run = batches[0].run
        stored = await self.stored(place, run)
        assert stored is not None
        assert stored.position == Position(batches[-1].to_index, sum(batch.backfilled for batch in batches))
        assert stored.gaps == [gap for batch in batches for gap in batch.gaps]
        assert [event.record_index for event in stored.events] == [e.index for batch in batches for e in batch.events]
        assert [record.record_index for record in stored.put_aside] == [i for batch in batches for i in batch.put_aside]
        self.check_blocks(stored, [block for batch in batches for block in batch.blocks])
        self.check_readings(stored, [reading for batch in batches for reading in batch.readings])

    def check_blocks(self, stored: Stored, expected: Sequence[DaqBlock]) -> None:
        """Assert that the blocks are stored, in order, once, with equal values."""
        given = list(stored.blocks)
        if self.gives_samples:  # a block without samples has no rows
            expected = [block for block in expected if block.samples_per_channel]
            given = [block for block in given if block.values is None or block.values.shape[1]]
        assert [block.block_index for block in given] == [block.block_index for block in expected]
        for back, block in zip(given, expected, strict=True):
            assert back.first_sample_index == block.first_sample_index
            if self.gives_samples:
                assert back.values is not None
                assert_same_floats(self.as_kept(back.values), self.as_kept(block.data))

    def check_readings(self, stored: Stored, expected: Sequence[DaqReading]) -> None:
        """Assert that the readings are stored, in order, once, with equal values."""
        given = list(stored.readings)
        assert [back.reading_index for back in given] == [reading.reading_index for reading in expected]
        for back, reading in zip(given, expected, strict=True):
            values = back.values
            kept = {name: value for name, value in values.items() if name in reading.values}
            assert set(kept) == set(reading.values)
            assert {name: value for name, value in values.items() if value is not None and name not in kept} == {}
            for name, value in reading.values.items():
                self.check_value(kept[name], value)

    def check_value(self, back: Any, value: Any) -> None:
        """Assert that a reading's value came back as the destination promises."""
        if isinstance(value, float) and not (
            self.keeps_nan if math.isnan(value) else self.keeps_inf or math.isfinite(value)
        ):
            assert back is None
        elif isinstance(value, float):
            given = np.array([back], dtype=np.float64)
            assert_same_floats(self.as_kept(given), self.as_kept(np.array([value])))
        else:
            assert back == value
            assert not self.keeps_ints or not isinstance(back, float)

    def as_kept(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values without what the destination may lose of them."""
        kept = values.copy()
        if not self.keeps_negative_zero:
            kept[kept == 0.0] = 0.0
        if not self.keeps_inf:
            kept[np.isinf(kept)] = np.nan
        return kept

    def killed(self, place: Path, step: int | None) -> int:
        """Commit 3 and 3 records in a child that dies at `step` of the second commit; return its steps, or −1."""
        place.mkdir(exist_ok=True)
        source = (
            f"{self.construct(place)}\nfrom dtolbus_workers.crashing import die_in_commit\n"
            f"die_in_commit(destination, {self.kinds[0]!r}, {step!r})\n"
        )
        child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False)  # noqa: S603  # a list of arguments, no shell
        assert child.returncode != 1, child.stderr
        return int(child.stdout.split()[-1]) if SURVIVED in child.stdout else -1

    async def check_after_kill(self, place: Path, allowed: set[int]) -> None:
        """Assert that the child's destination is at one of the allowed positions, consistent, and goes on."""
        run = make_run(self.kinds[0])
        async with self.opened(place):
            pass
        async with self.opened(place) as destination:
            positions = await self.stored(place, run)
            assert positions is not None
            reached = positions.position.next
            assert reached in allowed
            await destination.commit(make_batch(run, reached, 8 - reached))
        await self.check(place, make_batch(run, 0, 8))


def assert_same_floats(given: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    """Assert equality bit by bit, except that any NaN equals any other."""
    assert given.shape == expected.shape
    given, expected = (np.where(np.isnan(values), np.nan, values) for values in (given, expected))
    np.testing.assert_array_equal(given.view(np.int64), expected.view(np.int64))


def fill(filler: Path) -> None:
    """Write to the file until its disk is full."""
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextmanager
def small_disk(place: Path, size_kib: int = 2048) -> Iterator[Path]:
    """Mount a small tmpfs at `place`; skips the test where mounting is not allowed."""
    place.mkdir()
    options = ["-o", f"size={size_kib}k"]
    mount = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, check=False)  # noqa: S607, S603  # wherever mount is
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mount.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607, S603  # wherever umount is
