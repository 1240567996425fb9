"""Whatever the live path does to the messages, every destination ends with what the journal holds."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.faults.proxy import LossyCatchUp, LossyProxy
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run, reading, reading_run

from dtolbus.client import Endpoints
from dtolbus.registrations import read_registrations
from dtolbus_producer.journal import RunWriter
from dtolbus_workers.batch import BatchPolicy
from dtolbus_workers.parquet_destination import ParquetDestination
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify
from dtolbus_workers.worker import WorkerConfig, run_worker

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
READINGS = reading_run("0190a5f4-0000-7000-8000-000000000002")
BLOCKS = 400
POLICY = BatchPolicy(records=50, age_s=0.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_destinations_behind_a_bad_network_equal_the_journal(tmp_path: Path, seed: int) -> None:
    data = tmp_path / "data"
    places = {"sqlite": data / "bus.sqlite", "parquet": data / "parquet"}
    destinations: dict[str, Any] = {
        "sqlite": SqliteDestination(places["sqlite"], blocks="samples"),
        "parquet": ParquetDestination(places["parquet"]),
    }
    writers = [RunWriter(data / "journal", run, sync_ms=1) for run in (RUN, READINGS)]
    with (
        RunningGateway(data) as gateway,
        LossyProxy(gateway.pub_port, seed) as proxy,
        LossyCatchUp(gateway.catchup_port, seed, damaged=5.0, requests=0.0) as catchup,
    ):
        at = Endpoints(f"tcp://127.0.0.1:{proxy.port}", f"tcp://127.0.0.1:{catchup.port}")
        workers = [_started(destination, _config(name, at, places[name])) for name, destination in destinations.items()]
        eventually(lambda: len(read_registrations(data)) == 2)
        _write(writers)
        for thread, _ in workers:
            thread.join(60)
            assert not thread.is_alive(), f"seed {seed}: a worker does not end; {proxy.done}"
        assert [failed for _, failures in workers for failed in failures] == []
        # a worker that ends does not wait for whether its last acknowledgement was understood: requests stay whole
        eventually(lambda: all(_acknowledged(data, name) == BLOCKS + BLOCKS // 2 for name in places))
    assert min(proxy.done[fate] for fate in ("dropped", "doubled", "delayed", "flipped", "cut")) > 0, proxy.done
    assert catchup.done["answered damaged"] > 0, catchup.done
    certificate = verify(data)
    assert certificate.complete, f"seed {seed}: {certificate}"
    assert {(line.sink, line.expected, line.stored) for line in certificate.lines} == {
        (name, count, count) for name in places for count in (BLOCKS, BLOCKS // 2)
    }
    assert all(line.backfilled > 0 for line in certificate.lines if line.expected == BLOCKS), certificate.lines


def _write(writers: list[RunWriter]) -> None:
    """Write both runs at the pace at which they become durable, so that the live path carries them."""
    blocks, readings = writers
    for index in range(BLOCKS):
        blocks.append(block(RUN, index))
        if index % 2:
            readings.append(reading(READINGS, index // 2))
        if index % 10 == 9:
            eventually(lambda last=index: blocks.head == last + 1)  # type: ignore[misc]
    for writer in writers:
        writer.close()


def _config(name: str, at: Endpoints, place: Path) -> WorkerConfig:
    options = {"blocks": "samples"} if name == "sqlite" else {}
    return WorkerConfig(name, at, str(place), options=options, until_end=True, policy=POLICY)


def _started(destination: Any, config: WorkerConfig) -> tuple[threading.Thread, list[BaseException]]:
    """Run the worker on a thread; give it, and the list its failure goes to."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(run_worker(destination, config, threading.Event()))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, failures


def _acknowledged(data: Path, name: str) -> int:
    return sum(
        where.position for known in read_registrations(data) if known.name == name for where in known.positions.values()
    )
