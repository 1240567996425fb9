"""What is measured with: blocks of a vibration task on a board of 16 bits."""

import numpy as np
from numpy.typing import NDArray

from dtolbus.records import Channel, Clock, DaqBlock, RunInfo
from dtolbus.runblocks import block_of_run

CHANNELS = 8
SMALL, LARGE = 1000, 12_500
"""Samples a channel in a block of 16 kB, and in one of 200 kB."""

_VOLTS_A_CODE = 20 / 65536
_STARTED_UTC_NS = 1_764_000_000_000_000_000
_STARTED_MONO_NS = 5_000_000_000
RATE_HZ = 100_000.0


def run_info(
    samples: int, *, channels: int = CHANNELS, run_id: str = "019a0000-0000-7000-8000-000000000000"
) -> RunInfo:
    """Return the header of a run whose full blocks have so many samples a channel."""
    return RunInfo(
        run_id=run_id,
        device="dt1",
        task="vibration",
        kind="blocks",
        channels=tuple(_channel(place) for place in range(channels)),
        rate_hz=RATE_HZ,
        started_utc_ns=_STARTED_UTC_NS,
        started_mono_ns=_STARTED_MONO_NS,
        dtype="int16",
        block_samples=samples,
        board="DT9837A 12345",
        meta={"operator": "bench", "specimen": "beam 7"},
    )


def _channel(place: int) -> Channel:
    return Channel(
        name=f"ch{place}",
        unit="V",
        scale=_VOLTS_A_CODE,
        offset=0.001 * place,
        range=(-10.0, 10.0),
        encoding="twos_complement",
        resolution_bits=16,
        physical=place,
    )


def codes(samples: int, *, channels: int = CHANNELS, first_sample: int = 0) -> NDArray[np.int16]:
    """Return sines with a noise of 3 codes, as a converter of 16 bits gives them; shape (channels, samples)."""
    at = np.arange(first_sample, first_sample + samples)
    noise = np.random.default_rng(first_sample).normal(0.0, 3.0, (channels, samples))
    hertz = 50.0 * (1 + np.arange(channels)[:, None])
    found: NDArray[np.int16] = np.rint(9000 * np.sin(2 * np.pi * hertz * at / RATE_HZ) + noise).astype(np.int16)
    return found


def block(run: RunInfo, index: int, data: NDArray[np.int16]) -> DaqBlock:
    """Return the run's block at `index`, as acquisition makes it; `data` has shape (channels, samples)."""
    first_sample = index * run.block_samples
    period_ns = 1e9 / run.rate_hz
    return block_of_run(
        run,
        index=index,
        first_sample=first_sample,
        codes=data,
        t_mono_ns=run.started_mono_ns + round(first_sample * period_ns),
        clock=Clock(run.started_utc_ns + round(first_sample * period_ns), period_ns),
    )


def blocks(run: RunInfo, count: int) -> list[DaqBlock]:
    """Return the run's first blocks, each with samples of its own."""
    return [
        block(run, index, codes(run.block_samples, channels=len(run.channels), first_sample=index * run.block_samples))
        for index in range(count)
    ]
