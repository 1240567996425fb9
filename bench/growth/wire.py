"""Over the wire: publish → `DaqBlock` in other processes, with more channels, larger blocks, more subscribers."""

import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from bench.growth.fits import Series, cost, figure
from bench.items import CHANNELS, SMALL, block, codes, run_info
from bench.measuring import Trial
from bench.receiving import EVERY
from bench.registry import Setting
from bench.sending import line
from bench.stack import rss

COUNTS = (1, 4, 16, 64, 256)
"""Channels of a block."""
BLOCK_BYTES = 16 * 1024
"""Of a block that has the same size however many channels it has."""
CHANNEL_SAMPLES = 128
"""Samples a channel in a block that grows with its channels."""
SIZES = tuple(1 << power for power in (4, 8, 12, 16, 19, 21))
"""Bytes of a block of 8 channels."""
SUBSCRIBERS = (1, 2, 4, 8, 16)
_BYTES_EACH = 2 * CHANNELS
_TRIAL_BYTES, _TRIAL_BLOCKS = 32e6, 3200
_LEAST_TRIALS, _BUDGET_S = 3, 0.8
_QUICK = 8
"""A trial of `--quick` sends so many times less."""
_QUICK_SIZES = slice(None, 5, 2)
"""Which sizes it tries."""


class _Point(NamedTuple):
    """What was measured at one size."""

    mb_s: float
    """Of all receivers together."""
    blocks_s: float
    """Published, each received by all."""
    rss_mib: float
    """Of the largest receiver, afterwards."""


def channels_of_fixed_blocks(setting: Setting) -> Iterator[Series]:
    """Yield how cost grows with the channels of blocks that stay equally large."""
    counts = _sizes(setting, COUNTS)
    found = [_point(setting, count, BLOCK_BYTES // 2 // count) for count in counts]
    yield _series("channels, blocks of 16 KiB", "more channels, fewer samples of each", "channels", counts, found)


def channels_of_fixed_samples(setting: Setting) -> Iterator[Series]:
    """Yield how cost grows with the channels, each with as many samples."""
    counts = _sizes(setting, COUNTS)
    found = [_point(setting, count, CHANNEL_SAMPLES) for count in counts]
    title = f"{CHANNEL_SAMPLES} samples of each channel in a block"
    yield _series("channels, blocks that grow", title, "channels", counts, found)


def block_sizes(setting: Setting) -> Iterator[Series]:
    """Yield how cost grows with the size of blocks."""
    sizes = _sizes(setting, SIZES)
    found = [_point(setting, CHANNELS, size // _BYTES_EACH) for size in sizes]
    yield _series("block size", f"blocks of {CHANNELS} channels", "B", sizes, found)


def subscribers(setting: Setting) -> Iterator[Series]:
    """Yield how cost grows with the subscribers."""
    counts = _sizes(setting, SUBSCRIBERS[:3] if setting.quick else SUBSCRIBERS)
    found = [_point(setting, CHANNELS, SMALL, count) for count in counts]
    bare = [_point(setting, CHANNELS, SMALL, count, how="bare") for count in counts]
    title = f"blocks of {CHANNELS} channels and {SMALL} samples, to each subscriber"
    made = _series("subscribers", title, "subscribers", counts, found)
    reference = cost("the same by bare pyzmq, not decoded", "µs", counts, [1e6 / point.blocks_s for point in bare])
    yield msgspec.structs.replace(made, measures=(*made.measures, msgspec.structs.replace(reference, is_judged=False)))


def _sizes(setting: Setting, sizes: tuple[int, ...]) -> tuple[int, ...]:
    return sizes[_QUICK_SIZES] if setting.quick else sizes


def _point(setting: Setting, channels: int, samples: int, receivers: int = 1, how: str = "ours") -> _Point:
    run, data = run_info(samples, channels=channels), codes(samples, channels=channels)
    number = min(_TRIAL_BYTES / data.nbytes, _TRIAL_BLOCKS) / receivers**0.5 / (_QUICK if setting.quick else 1)
    made = [block(run, index, data) for index in range(max(4, round(number / EVERY)) * EVERY)]
    with line(how, run, made, receivers) as trial:
        mb_s = _median(trial, setting)
        rss_mib = max(rss(pid) for pid in trial.pids) / 2**20
    return _Point(mb_s, mb_s * 1e6 / data.nbytes / receivers, rss_mib)


def _median(trial: Trial, setting: Setting) -> float:
    """Return the median of some trials behind one that warms up."""
    trial()
    if setting.quick:
        return trial()
    began = time.perf_counter()
    found: list[float] = []
    while len(found) < _LEAST_TRIALS or (len(found) < setting.plan.most_pairs and _since(began) < _BUDGET_S):
        found.append(trial())
    return median(found)


def _since(began: float) -> float:
    return time.perf_counter() - began


def _series(name: str, title: str, grows: str, sizes: Sequence[float], found: Sequence[_Point]) -> Series:
    return Series(
        name,
        title,
        grows,
        tuple(sizes),
        (
            figure("all receivers", "MB/s", [point.mb_s for point in found]),
            figure("published", "blocks/s", [point.blocks_s for point in found]),
            cost("a block to all receivers", "µs", sizes, [1e6 / point.blocks_s for point in found]),
            cost("a receiver's memory", "MiB", sizes, [point.rss_mib for point in found]),
        ),
        "publish → DaqBlock, by TCP on the loopback; at most 16 MB, or 32 blocks, are on their way",
    )
