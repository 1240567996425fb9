"""Encode and decode a block's header, against msgspec of the same fields."""

import time
from collections.abc import Callable, Iterator

import msgspec

from bench.items import SMALL, block, codes, run_info
from bench.measuring import Case, Repeated, at_most
from bench.registry import Setting
from dtolbus.blockheader import RunHeaders, pack_block
from dtolbus.records import Anchor, Clock, DaqBlock, ErrorInfo, RunInfo
from dtolbus.runblocks import read_ns
from dtolbus.wire import RunRecord, decode, encode


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What one writes by hand: the fields of a block, the channels as bytes that are packed once."""

    version: int
    kind: int
    run: msgspec.Raw
    index: int
    first_sample: int
    t_mono_ns: int
    clock: Clock
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    status_of: tuple[str, ...]
    read_started_ns: int | None
    read_finished_ns: int | None
    error: ErrorInfo | None
    anchor: Anchor | None


def cases(setting: Setting) -> Iterator[Case]:
    run = run_info(SMALL)
    found = block(run, 7, codes(SMALL))
    trial_s = setting.plan.trial_s
    yield Case(
        "codec",
        "block header, 8 calibrated channels, encode + decode",
        "µs",
        Repeated(_ours(run, found), 1e6, trial_s, cost=True),
        Repeated(_by_hand(run, found), 1e6, trial_s, cost=True),
        at_most(1.5),
        note=lambda: f"a whole block of 16 kB, with its checksums: {_whole_us(run, found):.1f} µs",
    )


def _ours(run: RunInfo, found: DaqBlock) -> Callable[[int], None]:
    headers = RunHeaders()
    assert found.raw_codes is not None  # noqa: S101  # narrows the type, nothing rests on it
    arrays = [found.raw_codes]

    def run_times(times: int) -> None:
        for _ in range(times):
            packed = headers.pack(run)
            headers.read_block(packed.topic, pack_block(2, 1, packed.header, found, arrays))

    return run_times


def _by_hand(run: RunInfo, found: DaqBlock) -> Callable[[int], None]:
    encode_header = msgspec.msgpack.Encoder().encode
    decode_header = msgspec.msgpack.Decoder(Header).decode
    described = msgspec.Raw(encode_header(run))
    known: dict[bytes, RunInfo] = {bytes(described): run}
    clock, codes = found.clock, found.raw_codes
    started, finished = read_ns(found)
    assert clock is not None  # noqa: S101  # narrows the type, nothing rests on it
    assert codes is not None  # noqa: S101  # narrows the type, nothing rests on it

    def run_times(times: int) -> None:
        for _ in range(times):
            packed = encode_header(
                Header(
                    2,
                    1,
                    described,
                    found.block_index,
                    found.first_sample_index,
                    found.t_mono_ns,
                    clock,
                    ((codes.dtype.str, codes.shape),),
                    (),
                    started,
                    finished,
                    None,
                    None,
                )
            )
            known[bytes(decode_header(packed).run)]

    return run_times


def _whole_us(run: RunInfo, found: DaqBlock) -> float:
    record, times = RunRecord(run, found), 1000
    began = time.perf_counter()
    for _ in range(times):
        decode(encode(record))
    return (time.perf_counter() - began) / times * 1e6
