"""Encode and decode a block's header, against msgspec of the same fields."""

from collections.abc import Callable, Iterator

import msgspec

from bench.items import SMALL, block, codes, run_info
from bench.measuring import Case, Repeated, at_most
from bench.registry import Setting
from dtolbus.records import Anchor, Clock, DaqBlock, ErrorInfo, RunInfo
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
    record = RunRecord(run, block(run, 7, codes(0)))
    ours_s = Repeated(lambda times: _ours(record, times), 1e6, setting.plan.trial_s, cost=True)
    reference_s = Repeated(_by_hand(record), 1e6, setting.plan.trial_s, cost=True)
    yield Case("codec", "block header, 8 calibrated channels, encode + decode", "µs", ours_s, reference_s, at_most(1.5))


def _ours(record: RunRecord, times: int) -> None:
    for _ in range(times):
        decode(encode(record))


def _by_hand(record: RunRecord) -> Callable[[int], None]:
    run, found = record
    assert isinstance(found, DaqBlock)
    assert found.clock is not None
    encode_header = msgspec.msgpack.Encoder().encode
    decode_header = msgspec.msgpack.Decoder(Header).decode
    described = msgspec.Raw(encode_header(run))
    known: dict[bytes, RunInfo] = {bytes(described): run}
    clock, shape = found.clock, (("<i2", (8, 0)),)

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
                    shape,
                    (),
                    None,
                    None,
                    None,
                    None,
                )
            )
            known[bytes(decode_header(packed).run)]

    return run_times
