"""Publish to `DaqBlock` in another process, over TCP on the loopback, nothing dropped."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from bench import wire_cpu
from bench.items import LARGE, SMALL, block, codes, run_info
from bench.measuring import Case, at_least
from bench.receiving import EVERY
from bench.registry import Setting
from bench.sending import Line, line
from dtolbus.records import DaqBlock, RunInfo

SIZES = ((SMALL, "16 kB", 0.85, 0.20), (LARGE, "200 kB", 0.90, 0.60))
"""Samples a channel, and the goals against pyzmq and TCP."""
ALONE = "pyzmq alone, which decodes nothing"
LEAST = "pyzmq, with nothing but a header by msgspec and a checksum at each end"
_ALONE_TRIALS = 3


def cases(setting: Setting) -> Iterator[Case]:
    """Publish → subscribe → DaqBlock, against pyzmq without decoding and against a TCP socket."""
    for samples, size, of_zmq, of_tcp in SIZES:
        run, made = _blocks(setting, samples)
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(line("ours", run, made))
            bare = stack.enter_context(line("bare", run, made))
            yield Case(
                "wire",
                f"{size}, against bare pyzmq",
                "MB/s",
                ours,
                bare,
                at_least(of_zmq),
                note=partial(_limits, run, made),
            )
            tcp = stack.enter_context(line("tcp", run, made))
            yield Case(
                "wire",
                f"{size}, against a TCP socket",
                "MB/s",
                ours,
                tcp,
                at_least(of_tcp),
                note=partial(_bare_of, bare, tcp),
            )


def _limits(run: RunInfo, made: Sequence[DaqBlock]) -> str:
    """Return how far the least gets that makes a block of what arrives, and where our time goes."""
    return f"{_alone(run, made, 'least', what=LEAST)}; {wire_cpu.in_words(run, made)}"


def _bare_of(bare: Line, tcp: Line) -> str:
    return f"{ALONE}: {median(bare.rates) / median(tcp.rates):.2f} of the socket"


def curve_cases(setting: Setting) -> Iterator[Case]:
    """The same with CURVE, against without."""
    for samples, size, *_ in SIZES[: 1 if setting.quick else None]:
        run, made = _blocks(setting, samples)
        with line("ours-curve", run, made) as curve, line("ours", run, made) as plain:
            yield Case(
                "wire-curve",
                f"{size} with CURVE, against without",
                "MB/s",
                curve,
                plain,
                at_least(0.5),
                note=partial(_alone, run, made, "bare-curve"),
            )


def fanout_cases(setting: Setting) -> Iterator[Case]:
    """Four subscribers, their rates added up, against one."""
    for samples, size, *_ in SIZES[: 1 if setting.quick else None]:
        run, made = _blocks(setting, samples)
        with line("ours", run, made, receivers=4) as four, line("ours", run, made) as one:
            yield Case(
                "wire-fanout",
                f"{size} to 4 subscribers, against 1",
                "MB/s",
                four,
                one,
                at_least(1.0),
                note=partial(_alone, run, made, "bare", receivers=4),
            )


def _alone(run: RunInfo, made: Sequence[DaqBlock], how: str, receivers: int = 1, what: str = ALONE) -> str:
    """Return what the same comes to by pyzmq, with and without by turns as well."""
    with line(how, run, made, receivers) as changed, line("bare", run, made) as plain:
        for number in range(_ALONE_TRIALS + 1):  # the first of them warms up
            for trial in (plain, changed) if number % 2 else (changed, plain):
                trial()
        ratio = median(changed.rates[1:]) / median(plain.rates[1:])
    return f"{what}: {ratio:.2f} of its {median(plain.rates[1:]):.0f} MB/s"


def _blocks(setting: Setting, samples: int) -> tuple[RunInfo, Sequence[DaqBlock]]:
    """Return what one trial sends: the same codes again and again, so that they cost no memory."""
    run, data = run_info(samples), codes(samples)
    number = round((20e6 if setting.quick else 150e6) / data.nbytes / EVERY) * EVERY
    return run, [block(run, index, data) for index in range(max(4 * EVERY, number))]
