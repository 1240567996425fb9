"""From a block durable in the journal to a block in a subscriber's hands, at 1000 blocks a second."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from bench.cpu import cpu_us
from bench.hearing import heard_by
from bench.items import SMALL, block, codes, run_info
from bench.measuring import Case, Trial, at_most
from bench.registry import Setting
from bench.stack import stack, wait_until
from dtolbus.runs import RunFolder
from dtolbus.wire import RunRecord, decode, encode
from dtolbus_producer.following import FollowedRun
from dtolbus_producer.headwatch import HeadWatch
from dtolbus_producer.journal import RunWriter

BLOCKS_S = 1000
GOALS = ((50, 3.0), (99, 15.0))
BURST = BLOCKS_S * 20 // 1000
"""Blocks that one sync of the journal makes durable, every 20 ms."""
_READ = 400
_LET_GO = 0.2
"""Part of a trial at its start that is not counted: processes warm up."""
_PATIENCE_S = 30.0


def cases(setting: Setting) -> Iterator[Case]:
    runs: list[list[float]] = []
    for share, most_ms in GOALS:
        yield Case(
            "latency",
            f"durable → in the subscriber's hands, {BLOCKS_S} blocks of 16 kB a second, p{share}",
            "ms",
            _trial(setting, runs, share),
            None,
            at_most(most_ms),
            trials=1 if setting.quick else 5,
            note=partial(_cpu_in_words, setting.folder / "read"),
        )


def _cpu_in_words(folder: Path) -> str:
    """Return what the steps between a journal and a subscriber work for a block, when nothing disturbs them."""
    run, data = run_info(SMALL), codes(SMALL)
    writer = RunWriter(folder, run)
    for index in range(_READ):
        writer.append(block(run, index, data))
    writer.close()
    frames = encode(RunRecord(run, block(run, 0, data)))
    with RunFolder(writer.path) as read, closing(HeadWatch()) as watch:
        reading = cpu_us(lambda: _follow(read, watch), _READ)
    shutil.rmtree(folder)
    decoding = cpu_us(lambda: [decode(frames) for _ in range(_READ)], _READ)
    return (
        f"{BURST} blocks become durable at once, of which the median waits for {BURST // 2}; CPU of a block, µs, when "
        f"nothing else runs: before that {reading:.0f} to read and encode it, after it {decoding:.0f} to decode it"
    )


def _follow(read: RunFolder, watch: HeadWatch) -> None:
    """Take all that is there in bursts, as a gateway does."""
    followed = FollowedRun(read, 0, watch)
    while followed.published < _READ:
        followed.head = min(_READ, followed.published + BURST)
        for _ in followed.take(BURST):
            pass


def _trial(setting: Setting, runs: list[list[float]], share: int) -> Trial:
    """Return a percentile of the latencies of one run after another; runs that another case made serve it too."""
    numbers = count()

    def trial() -> float:
        number = next(numbers)
        if number == len(runs):
            runs.append(_latencies_ms(setting, number))
        return float(np.percentile(runs[number], share))

    return trial


def _latencies_ms(setting: Setting, number: int) -> list[float]:
    """Run a stack, and return how late each block that is counted was."""
    seconds = 1.0 if setting.quick else 3.0
    with stack(setting.folder / str(number)) as made:
        made.start_gateway()
        made.start("hearing", "-m", "bench.hearing", *made.urls)
        pace = (str(SMALL), str(BLOCKS_S), str(seconds))
        writing = made.start("writing", "-m", "bench.writing", str(made.data), *pace)
        writing.wait(seconds + _PATIENCE_S)
        durable_ns = np.frombuffer(made.output("writing").read_bytes(), np.int64).reshape(-1, 2)
        hearing = made.output("hearing")
        wait_until(lambda: len(heard_by(hearing)) >= len(durable_ns), _PATIENCE_S, "all is heard")
        heard_ns = {index: at_ns for index, _, at_ns in heard_by(hearing).tolist()}
    counted = durable_ns[round(_LET_GO * len(durable_ns)) :].tolist()
    return [(heard_ns[index] - at_ns) / 1e6 for index, at_ns in counted]
