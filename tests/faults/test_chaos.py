"""A whole `dtolbus up` whose parts are killed and stopped at random: in the end nothing is missing."""

import os
import random
import sys
from pathlib import Path

import pytest
from tests.e2e.stacks import Up, assert_complete, runs
from tests.faults.chaos import PARTS, Chaos, planned

from dtolbus.records import Gap
from dtolbus.runs import RunFolder

SINKS = "parquet,sqlite,csv,jsonl,postgres"
END_S = 120.0

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")]


def test_random_kills_and_stops(tmp_path: Path, postgres_dsn: str) -> None:
    _survives(tmp_path / "data", postgres_dsn, 10.0)


def _survives(data: Path, dsn: str, seconds: float) -> None:
    seed = int(os.environ.get("DTOLBUS_CHAOS_SEED") or random.randrange(2**32))
    told = f"to see it again: DTOLBUS_CHAOS_SEED={seed}"
    try:
        _complete(data, dsn, seed, seconds)
    except BaseException as failure:
        failure.add_note(told)
        raise


def _complete(data: Path, dsn: str, seed: int, seconds: float) -> None:
    with Up(data, "--duration", str(seconds + 2), "--sinks", SINKS, DTOLBUS_DSN=dsn) as up:
        up.wait_for_pids(*PARTS)
        up.wait_for_positions(1, ("sqlite", "csv", "jsonl", "postgres"))
        with Chaos(up, planned(seed, seconds), dsn) as chaos:
            up.output, up.errors = up.process.communicate(timeout=seconds + END_S)
    assert chaos.failure is None, chaos.failure
    assert min(chaos.done[kind] for kind in ("kill", "stop", "cut")) > 0, chaos.done
    assert_complete(up, up.process.returncode)
    assert {line.split()[0] for line in up.output.splitlines() if "equal" in line} == set(SINKS.split(",")), up.output
    for folders in runs(data).values():
        for folder in folders:
            _assert_contiguous(folder)


def _assert_contiguous(folder: RunFolder) -> None:
    with folder:
        assert folder.status().state != "running"
        found = list(folder.records(0, folder.status().head))
    assert not [record for record in found if isinstance(record, Gap)]
    assert [record.index for record in found if not isinstance(record, Gap)] == list(range(len(found)))
    assert len(found) == folder.status().head
