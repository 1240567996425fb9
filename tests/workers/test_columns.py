"""A block's summary: its numbers are NumPy's own, whatever the samples."""

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtolbus.records import DaqBlock, utc_from_ns
from dtolbus_workers.columns import block_summary, sample_columns
from dtolbus_workers.specimens import make_block, make_run


@st.composite
def grids(draw: Any) -> NDArray[np.float64]:
    channels, samples = draw(st.integers(0, 4)), draw(st.integers(0, 300))
    seed = draw(st.integers(0, 2**32 - 1))
    grid = np.random.default_rng(seed).normal(size=(channels, samples)) * draw(st.sampled_from([1.0, 1e-300, 1e200]))
    if grid.size:
        for odd in draw(st.lists(st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324]), max_size=3)):
            grid.flat[draw(st.integers(0, grid.size - 1))] = odd
    return grid


def plain(row: NDArray[np.float64], what: str) -> float | None:
    valid = row if not np.isnan(row).any() else row[~np.isnan(row)]
    if not valid.size:
        return None
    with np.errstate(all="ignore"):
        found = float(np.sqrt(np.mean(valid * valid)) if what == "rms" else getattr(valid, what)())
    return found if math.isfinite(found) else None


@settings(max_examples=200, deadline=None)
@given(grids())
def test_statistics_are_bit_for_bit_those_of_numpy(grid: NDArray[np.float64]) -> None:
    block = DaqBlock(
        device="d",
        task="t",
        channels=tuple(f"ch{place}" for place in range(len(grid))),
        block_index=0,
        first_sample_index=0,
        samples_per_channel=grid.shape[1],
        t_mono_ns=0,
        t_utc=utc_from_ns(0),
        data=grid,
    )
    summary = block_summary(block)
    for what in ("min", "max", "mean", "rms"):
        text = summary[what]
        assert isinstance(text, str)
        assert json.loads(text) == [plain(row, what) for row in grid]


@pytest.mark.parametrize("made", [block_summary, sample_columns])
def test_a_batch_of_codes_is_not_kept_as_floats_too(made: Any) -> None:
    run = make_run()
    blocks = [make_block(run, index, samples=1000) for index in range(50)]
    floats = sum(block.raw_codes.size for block in blocks if block.raw_codes is not None) * 8
    tracemalloc.start()
    try:
        for block in blocks:
            made(block)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < floats / 4
