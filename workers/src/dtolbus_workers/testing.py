"""The suite that every destination passes: a sink's test class inherits SinkConformance and says how to make one.

::

    class TestSqliteDestination(SinkConformance):
        def make(self, place): return SqliteDestination(place / "bus.sqlite", blocks="samples")
        async def stored(self, place, run): return SqliteDestination.stored(str(place / "bus.sqlite"), {}, run)
        def construct(self, place): return f"from … import …; destination = SqliteDestination({str(place / …)!r})"
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dtolbus.errors import CannotStartError, DtolSinkError, DtolSinkWriteError
from dtolbus.records import Gap
from dtolbus_workers.conformance import ConformanceBase, fill, small_disk
from dtolbus_workers.destination import Position, RecordRefusedError
from dtolbus_workers.specimens import (
    ODD_FLOATS,
    ODD_NAMES,
    error_block,
    error_reading,
    float_block,
    make_batch,
    make_block,
    make_event,
    make_reading,
    make_run,
    sensor_block,
    sensor_run,
)

__all__ = ["SinkConformance", "fill", "small_disk"]

MAX_CRASH_POINTS = 8


class SinkConformance(ConformanceBase):
    """What every destination must do; a subclass gives `make`, `stored` and `construct`, and says what it keeps.

    Long because it is a list: one test a promise, each to be read alone.
    """

    # ---- write and read ----

    def test_write_read(self, tmp_path: Path) -> None:
        """What was committed is there, with positions, also after a reopen; another run is not."""

        async def go() -> None:
            for number, kind in enumerate(self.kinds):
                run = make_run(kind, number=number)
                first, second = make_batch(run, 0, 3), make_batch(run, 3, 2, backfilled=2)
                await self.commit(tmp_path, first, second)
                await self.check(tmp_path, first, second)
                async with self.opened(tmp_path):
                    pass
                await self.check(tmp_path, first, second)
            assert await self.stored(tmp_path, make_run(number=99)) is None

        asyncio.run(go())

    def test_positions_and_identity_outlive_a_reopen(self, tmp_path: Path) -> None:
        """`open` gives every run's position; the destination's id stays."""

        async def go() -> None:
            runs = [make_run(self.kinds[0], number=n, device=f"d{n}") for n in (1, 2)]
            first = self.make(tmp_path)
            assert await first.open() == {}
            identity = first.destination_id
            assert identity
            await first.commit(make_batch(runs[0], 0, 3, backfilled=1))
            await first.commit(make_batch(runs[1], 0, 1))
            await first.finalize(runs[1])
            await first.close()
            await first.close()
            again = self.make(tmp_path)
            assert await again.open() == {runs[0].run_id: Position(3, 1), runs[1].run_id: Position(1, 0)}
            assert again.destination_id == identity
            await again.commit(make_batch(runs[0], 3, 1))
            await again.close()
            assert await again.open() == {runs[0].run_id: Position(4, 1), runs[1].run_id: Position(1, 0)}
            await again.close()

        asyncio.run(go())

    def test_stored_while_a_worker_holds_it(self, tmp_path: Path) -> None:
        """`verify` reads while the destination is open elsewhere."""

        async def go() -> None:
            batch = make_batch(make_run(self.kinds[0]), 0, 2)
            async with self.opened(tmp_path) as destination:
                await destination.commit(batch)
                await self.check(tmp_path, batch)

        asyncio.run(go())

    @pytest.mark.parametrize("wrong", [0, 2, 4, 7])
    def test_a_wrong_position_is_refused(self, tmp_path: Path, wrong: int) -> None:
        """A batch that does not continue the stored position (a replay, a jump) stores nothing."""

        async def go() -> None:
            run = make_run(self.kinds[0])
            batch = make_batch(run, 0, 3)
            async with self.opened(tmp_path) as destination:
                await destination.commit(batch)
                with pytest.raises(DtolSinkError):
                    await destination.commit(make_batch(run, wrong, 3))
                await destination.commit(make_batch(run, 3, 1))
            await self.check(tmp_path, batch, make_batch(run, 3, 1))

        asyncio.run(go())

    def test_two_streams_and_two_runs_interleaved(self, tmp_path: Path) -> None:
        """Runs of one stream and of others do not mix, whatever the order of commits."""

        async def go() -> None:
            runs = [
                make_run(kind, number=10 * k + n, task=f"t{k}") for k, kind in enumerate(self.kinds) for n in (1, 2)
            ]
            batches = [make_batch(run, start, 2) for start in (0, 2, 4) for run in runs]
            await self.commit(tmp_path, *batches)
            for run in runs:
                await self.check(tmp_path, *(batch for batch in batches if batch.run is run))

        asyncio.run(go())

    # ---- what is not an ordinary record ----

    def test_gaps_events_and_records_put_aside(self, tmp_path: Path) -> None:
        """Each is stored as what it is, and the position passes it."""

        async def go() -> None:
            for number, kind in enumerate(self.kinds):
                run = make_run(kind, number=number)
                ordinary = make_batch(run, 0, 6).records
                gap = Gap(2, 4, "segment damaged: «checksum»", 20, 40)
                batches = [
                    make_batch(run, 0, [ordinary[0], make_event(run, 1), ordinary[4]], gaps=[gap]),
                    make_batch(
                        run, 5, [ordinary[5], make_event(run, 6, kind="device_lost")], put_aside={5: "too\nodd"}
                    ),
                ]
                await self.commit(tmp_path, *batches)
                await self.check(tmp_path, *batches)

        asyncio.run(go())

    def test_batches_without_rows(self, tmp_path: Path) -> None:
        """Only a gap, only an event, only a record put aside: the position goes on."""

        async def go() -> None:
            for number, kind in enumerate(self.kinds):
                run = make_run(kind, number=number)
                batches = [
                    make_batch(run, 0, 0, gaps=[Gap(0, 3, "pruned")]),
                    make_batch(run, 3, [make_event(run, 3)]),
                    make_batch(run, 4, 1, put_aside={4: "for a test"}),
                    make_batch(run, 5, 1),
                ]
                await self.commit(tmp_path, *batches)
                await self.check(tmp_path, *batches)

        asyncio.run(go())

    def test_blocks_without_samples_with_errors_with_status(self, tmp_path: Path) -> None:
        """Empty, one-sample and failed blocks; a failed one never becomes 0.0."""
        if "blocks" not in self.kinds:
            return

        async def go() -> None:
            run = make_run()
            batch = make_batch(
                run,
                0,
                [
                    error_block(run, 0),
                    make_block(run, 1, samples=0, first_sample=0),
                    make_block(run, 2, samples=1, first_sample=0),
                    error_block(run, 3, samples=4),
                    make_block(run, 4, sensor_status={"ai1": [0, 0, 3, 0, 0, 0, 1, 0, 0, 0]}),
                    float_block(run, 5, [ODD_FLOATS[:4], ODD_FLOATS[4:], (1.0, 2.0, 3.0, 1e-7)]),
                ],
            )
            await self.commit(tmp_path, batch)
            await self.check(tmp_path, batch)

        asyncio.run(go())

    def test_blocks_of_sensors(self, tmp_path: Path) -> None:
        """Each conversion, open sensors and values out of range: engineering units, NaN and the status."""
        if "blocks" not in self.kinds:
            return

        async def go() -> None:
            run = sensor_run()
            batch = make_batch(run, 0, [sensor_block(run, index) for index in range(3)])
            await self.commit(tmp_path, batch)
            await self.check(tmp_path, batch)

        asyncio.run(go())

    def test_odd_values_of_readings(self, tmp_path: Path) -> None:
        """NaN, infinities, ints, bools, text, a first int and then a float, a first reading that is an error."""
        if "readings" not in self.kinds:
            return

        async def go() -> None:
            run = make_run("readings")
            rows: list[Mapping[str, Any]] = [
                {"ai0": 1, "ai1": 7, "ai2": 0.5},
                {"ai0": 1.5, "ai1": 2**53 - 1, "ai2": -0.0},
                *({"ai0": value, "ai1": 3, "ai2": -value} for value in ODD_FLOATS),
                {"ai0": 2.5, "ai1": True, "ai2": 1e300},
                {"ai0": 2.5, "ai1": False},
            ]
            records = [error_reading(run, 0), *(make_reading(run, k, row) for k, row in enumerate(rows, 1))]
            batches = [make_batch(run, 0, records[:1]), make_batch(run, 1, records[1:])]
            await self.commit(tmp_path, *batches)
            await self.check(tmp_path, *batches)

        asyncio.run(go())

    def test_an_int_beyond_64_bits(self, tmp_path: Path) -> None:
        """Such a reading is refused by its index and nothing of its batch stored, or it is stored faithfully."""
        if "readings" not in self.kinds:
            return

        async def go() -> None:
            run = make_run("readings")
            records = [make_reading(run, 0), make_reading(run, 1, {"ai0": 2**70}), make_reading(run, 2)]
            batch = make_batch(run, 0, records)
            async with self.opened(tmp_path) as destination:
                if not self.keeps_big_ints:
                    with pytest.raises(RecordRefusedError) as refused:
                        await destination.commit(batch)
                    assert refused.value.index == 1
                    batch = make_batch(run, 0, records, put_aside={1: refused.value.reason})
                await destination.commit(batch)
            await self.check(tmp_path, batch)

        asyncio.run(go())

    def test_odd_names(self, tmp_path: Path) -> None:
        """Channels, devices and tasks may be called anything: nothing is overwritten, dropped or run."""

        async def go() -> None:
            for number, kind in enumerate(self.kinds):
                run = make_run(kind, number=number, device='dé/v"; drop table runs', task="..", channels=ODD_NAMES)
                batches = [make_batch(run, 0, 2), make_batch(run, 2, 1)]
                await self.commit(tmp_path, *batches)
                await self.check(tmp_path, *batches)

        asyncio.run(go())

    def test_channels_met_later(self, tmp_path: Path) -> None:
        """A channel that a later reading, run or task brings gets its own column; numbered ones do not mix."""
        if "readings" not in self.kinds:
            return

        async def go() -> None:
            run = make_run("readings", number=1, channels=("ai0", "device"))
            other = make_run("readings", number=2, task="other", channels=("task", "AI0", "extra"))
            batches = [
                make_batch(run, 0, 2),
                make_batch(other, 0, 2),
                make_batch(run, 2, [make_reading(run, 2, {"ai0": 1.0, "device": 2.0, "new": 3.0, "t_utc": 4.0})]),
                make_batch(run, 3, [make_reading(run, 3, {"t_utc": 5.0, "NEW": 6.0})]),
            ]
            await self.commit(tmp_path, *batches)
            await self.check(tmp_path, *(batch for batch in batches if batch.run is run))
            await self.check(tmp_path, *(batch for batch in batches if batch.run is other))

        asyncio.run(go())

    # ---- faults ----

    def test_a_second_opener_is_refused(self, tmp_path: Path) -> None:
        """One live committer for each destination; once it is closed, the next may open."""

        async def go() -> None:
            async with self.opened(tmp_path) as destination:
                with pytest.raises(CannotStartError):
                    await self.make(tmp_path).open()
                batch = make_batch(make_run(self.kinds[0]), 0, 1)
                await destination.commit(batch)
            async with self.opened(tmp_path):
                pass
            await self.check(tmp_path, batch)

        asyncio.run(go())

    def test_killed_after_the_commit(self, tmp_path: Path) -> None:
        """What `commit` returned from survives kill −9, and the destination goes on from there."""
        assert self.killed(tmp_path, None) >= 0
        asyncio.run(self.check_after_kill(tmp_path, {6}))

    def test_killed_at_each_step_of_a_commit(self, tmp_path: Path) -> None:
        """Killed anywhere inside, the batch is there whole or not at all; the rest can be committed after it."""
        steps = self.killed(tmp_path / "all", None)
        assert steps > 0, "no crash point was passed: call files.… through the module, or add points in `construct`"
        chosen = sorted({round(k * (steps - 1) / (MAX_CRASH_POINTS - 1)) for k in range(MAX_CRASH_POINTS)})
        for step in chosen:
            place = tmp_path / f"step-{step}"
            assert self.killed(place, step) == -1
            asyncio.run(self.check_after_kill(place, {3, 6}))

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a tmpfs needs root")
    def test_disk_full(self, tmp_path: Path) -> None:
        """A full disk is a DtolSinkWriteError; nothing is half stored, and with room again the same batch goes in."""

        async def go(place: Path, filler: Path) -> None:
            run = make_run(self.kinds[0])
            done = 3
            async with self.opened(place) as destination:
                await destination.commit(make_batch(run, 0, done))
                fill(filler)
                with pytest.raises(DtolSinkWriteError):  # noqa: PT012  # whichever commit meets the full disk
                    for done in range(3, 2000, 20):
                        await destination.commit(make_batch(run, done, 20))
                filler.unlink()
                await destination.commit(make_batch(run, done, 20))
            await self.check(place, make_batch(run, 0, done + 20))

        with small_disk(tmp_path / "disk") as disk:
            asyncio.run(go(disk, disk / "filler"))
