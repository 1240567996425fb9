"""Two simulated boards at once, against the true instants of their samples: what `dtolbus` promises about time."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from tests.producer.acquired import blocks_of
from tests.protocol.test_golden import version_2_reader

from dtolbus.runs import list_runs
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.boards.sim import SimBlocks
from dtolbus_producer.config import config_from

TASK = {"name": "t", "rate_hz": 5000.0, "block_samples": 100, "channels": ["a"], "samples": 20_000}
BOARDS = {
    "fast": {"drift_ppm": 80.0, "lateness_ms": 40.0},
    "slow": {"drift_ppm": -60.0, "lateness_ms": 10.0, "seed": 7},
}


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Each board's run, and its source, which knows the truth."""
    sources, start = {}, SimBlocks.start

    def started(self):
        start(self)
        sources[self._options.drift_ppm] = self

    monkeypatch.setattr(SimBlocks, "start", started)
    devices = [{"name": name, "task": [TASK], "options": options} for name, options in BOARDS.items()]
    config = config_from({"device": devices})
    stop = threading.Event()
    threads = [threading.Thread(target=acquire, args=(config, name, tmp_path, stop)) for name in BOARDS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = {run.info.device: run for run in list_runs(tmp_path / "journal")}
    return {name: (runs[name], sources[options["drift_ppm"]]) for name, options in BOARDS.items()}


def bounds_ns(run, blocks):
    """How far each block may be off: what the worse of its two anchors says; at the end, what run.json does."""
    anchors = [(block.first_sample_index, block.anchor.uncertainty_ns) for block in blocks if block.anchor is not None]
    at, bounds = np.array([*anchors, (blocks[-1].end_sample_index, run.refresh().clock.uncertainty_ns)]).T
    after = np.searchsorted(at, [block.first_sample_index for block in blocks], side="right")
    return np.maximum(bounds[after - 1], bounds[after])


def instants(run, source):
    """Of each block: the first sample's monotonic instant, UTC and truth, ns since the run's start, and the bound."""
    blocks = blocks_of(run)
    true_ns = [source.started_mono_ns + block.first_sample_index * source.true_period_ns for block in blocks]
    mono_ns, utc_ns = ([getattr(block, name) for block in blocks] for name in ("t_mono_ns", "t_utc_ns"))
    return np.array(mono_ns), np.array(utc_ns), np.array(true_ns), bounds_ns(run, blocks)


def test_samples_of_two_boards_joined_on_either_clock_belong_together(recorded):
    found = {name: instants(*both) for name, both in recorded.items()}
    for name, (mono_ns, _, true_ns, bound_ns) in found.items():
        assert np.mean(np.abs(mono_ns - true_ns) <= bound_ns) >= 0.95, name
        assert bound_ns.max() < 20e6

    offsets = {name: run.info.started_utc_ns - run.info.started_mono_ns for name, (run, _) in recorded.items()}
    assert abs(offsets["fast"] - offsets["slow"]) < 1_000_000
    fast_mono, fast_utc, fast_true, fast_bound = found["fast"]
    slow_mono, slow_utc, slow_true, slow_bound = found["slow"]
    for fast_ns, slow_ns, more_ns in [(fast_mono, slow_mono, 0), (fast_utc, slow_utc, 1_000_000)]:
        place = np.interp(fast_ns.astype(float), slow_ns.astype(float), np.arange(len(slow_ns)))
        within = (fast_ns >= slow_ns[0]) & (fast_ns <= slow_ns[-1])
        joined_true_ns = np.interp(place[within], np.arange(len(slow_ns)), slow_true - slow_true[0]) + slow_true[0]
        allowed_ns = fast_bound[within] + slow_bound[np.floor(place[within]).astype(int)] + more_ns
        assert within.sum() > 50
        assert np.mean(np.abs(joined_true_ns - fast_true[within]) <= allowed_ns) >= 0.95


def test_the_drift_is_reported_where_it_is_looked_for(recorded, tmp_path):
    for name, (run, _) in recorded.items():
        clock = run.refresh().clock
        assert abs(clock.drift_ppm - BOARDS[name]["drift_ppm"]) <= clock.drift_uncertainty_ppm < 2000
        assert clock.rate_hz == pytest.approx(5000 * (1 + clock.drift_ppm * 1e-6))

    command = [sys.executable, "-m", "dtolbus", "runs", "--data", str(tmp_path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert text.count(" ppm") == 2
    lines = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=60).stdout)
    for line in lines:
        run = recorded[line["device"]][0]
        assert line["clock"]["drift_ppm"] == run.refresh().clock.drift_ppm


def test_a_reader_of_version_2_reads_a_journal_with_anchors_and_finds_one_each_second(recorded):
    run, _ = recorded["fast"]
    (segment,) = run.path.glob("*.dt-raw")
    header, chunks = version_2_reader(segment)

    assert header["format_version"] == 2
    assert sum(codes.shape[1] for _, codes in chunks) == 20_000
    anchors = [chunk["anchor"] for chunk, _ in chunks if "anchor" in chunk]
    assert [samples // 5000 for samples, *_ in anchors] == [0, 0, 1, 2, 3]
    assert all(mono_ns > run.info.started_mono_ns for _, mono_ns, *_ in anchors)
