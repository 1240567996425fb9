"""The chunk header of a block as nearly all are, as text put together by hand, a quarter of the work. Pure.

To the byte it is what `msgspec.json` makes of the header of `chunks.encode_block`; tests hold the two together.
"""

from datetime import datetime

import msgspec

from dtolbus.records import Clock, DaqBlock, ns_from_utc, utc_from_ns

_json = msgspec.json.Encoder().encode
_SECOND_NS = 1_000_000_000
_INT64 = 1 << 63
_START = (
    b'{"seq":%d,"event_kind":"buffer_done","first_sample_index":%d,"valid_samples":%d,"buffer_capacity":%d,'
    b'"t_mono_ns":%d,"t_utc":"%b","flags":[],"block_index":%d,"clock":%b,"t_midpoint_mono_ns":%d'
)
_second: tuple[int, bytes] = (0, b"1970-01-01T00:00:00")


def usual_header(block: DaqBlock, seq: int) -> bytes | None:
    """Return the header without its closing brace; None for a block that has more to say of itself."""
    known = block.__dict__
    codes = known["raw_codes"]
    if "_run" not in known or codes is None or known.get("sensor_status") or "error" in known or "anchor" in known:
        return None
    clock: Clock = known["clock"]
    samples, t_mono_ns, first = block.samples_per_channel, block.t_mono_ns, block.first_sample_index
    midpoint = t_mono_ns + round(samples * clock.period_ns / 2)
    if samples != codes.shape[1] or not -_INT64 <= midpoint < _INT64 > first:
        return None
    start = _START % (
        seq,
        first,
        samples,
        samples,
        t_mono_ns,
        utc_text(clock.utc_ns),
        block.block_index,
        _json(clock),
        midpoint,
    )
    return start + _read_text(known.get("_read_started"), known.get("_read_finished")) + b',"is_linearised":true'


def _read_text(started: datetime | int | None, finished: datetime | int | None) -> bytes:
    text = b""
    if started is not None:
        text = b',"read_started_at":"%b"' % _text(started)
    if finished is not None:
        text += b',"read_finished_at":"%b"' % _text(finished)
    if started is not None and finished is not None:
        text += b',"elapsed_s":%b' % _json((_micros(finished) - _micros(started)) / 1_000_000)
    return text


def _text(instant: datetime | int) -> bytes:
    return utc_text(instant) if isinstance(instant, int) else instant.isoformat().encode()


def _micros(instant: datetime | int) -> int:
    return (instant if isinstance(instant, int) else ns_from_utc(instant)) // 1000


def utc_text(ns: int) -> bytes:
    """Return the instant, ns since 1970, as `datetime.isoformat` gives it, floored to µs."""
    global _second
    second, rest = divmod(ns, _SECOND_NS)
    known = _second
    if known[0] != second:
        known = _second = (second, _whole(utc_from_ns(second * _SECOND_NS)))
    micros = rest // 1000
    return b"%b.%06d+00:00" % (known[1], micros) if micros else known[1] + b"+00:00"


def _whole(instant: datetime) -> bytes:
    return instant.isoformat()[:19].encode()
