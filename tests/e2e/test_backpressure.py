"""A sink that is away while a fast stream goes on: what the worker holds stays bounded, and nothing is missing."""

import threading
from pathlib import Path

import numpy as np
import pytest
from tests.e2e.test_worker import Memory, config, work
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run

from dtolbus.client import Client
from dtolbus.errors import DtolSinkWriteError
from dtolbus.records import RunInfo
from dtolbus_producer.journal import RunWriter
from dtolbus_workers import worker
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.destination import RunBatch
from dtolbus_workers.inbox import Inbox

MIB = 1 << 20
CHANNELS, SAMPLES, COUNT = 8, 12_500, 700
BLOCK_BYTES = CHANNELS * SAMPLES * 2


class Watched(Inbox):
    """An inbox that remembers what it and the sequencer held at most."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._seen = client
        self.most_waiting = self.most_held = 0
        made.append(self)

    def _put(self, items: list, **known: bool) -> None:  # type: ignore[type-arg]
        super()._put(items, **known)
        self.most_waiting = max(self.most_waiting, self.waiting_bytes)
        self.most_held = max(self.most_held, self._seen.sequencer.held_bytes)


made: list[Watched] = []


def written_in(data: Path, runs: list[RunInfo], done: threading.Event) -> None:
    """Write all runs at once, as fast as the journal takes them."""
    writers = [RunWriter(data / "journal", run) for run in runs]
    for index in range(COUNT):
        codes = np.full((CHANNELS, SAMPLES), index, dtype=np.uint16)
        for run, writer in zip(runs, writers, strict=True):
            writer.append(block(run, index, samples=SAMPLES, codes=codes))
    for writer in writers:
        writer.close()
    done.set()


def test_a_sink_that_is_away_under_a_fast_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RETRY_S", (0.01, 0.05))
    monkeypatch.setattr(worker, "Inbox", Watched)
    made.clear()
    runs = [block_run(f"0190a5f4-0000-7000-8000-00000000000{n}", CHANNELS, block_samples=SAMPLES) for n in (1, 2)]
    written = threading.Event()
    largest = 0

    def away(batch: RunBatch) -> None:
        nonlocal largest
        largest = max(largest, len(batch.records) * BLOCK_BYTES)
        if not written.is_set():
            raise DtolSinkWriteError("the database is away")

    destination = Memory(away)
    (tmp_path / "journal").mkdir()
    with RunningGateway(tmp_path) as gateway:
        settings = config(gateway, until_end=False, policy=BatchPolicy())
        stop = threading.Event()
        thread = threading.Thread(target=work, args=(destination, settings, stop))
        thread.start()
        written_in(tmp_path, runs, written)
        eventually(lambda: len(destination.finalized) == 2)
        stop.set()
        thread.join(30)
    for run in runs:
        stored = [record for batch in destination.batches if batch.run == run for record in batch.records]
        assert [record.index for record in stored] == list(range(COUNT))
        assert all(record.raw_codes[0, 0] == record.index for record in stored)  # type: ignore[union-attr]
    (inbox,) = made
    assert inbox.most_waiting <= 40 * MIB
    assert inbox.most_held <= 32 * MIB
    assert largest <= 34 * MIB
    assert sum(batch.backfilled for batch in destination.batches) > 0
