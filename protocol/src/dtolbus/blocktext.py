"""The chunk header of a block as nearly all are, as text put together by hand, a quarter of the work. Pure.

To the byte it is what `msgspec.json` makes of the header of `chunks.encode_block`; tests hold the two together.
"""

import re
from datetime import datetime

import msgspec

from dtolbus.records import Clock, DaqBlock, ns_from_utc, utc_from_ns

_json = msgspec.json.Encoder().encode
_SECOND_NS = 1_000_000_000
_INT64 = 1 << 63
_UTC_TEXT = re.compile(r"(\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d)\.(\d{6})\+00:00", re.ASCII)
_second = (0, "1970-01-01T00:00:00")
"""The second that was last written, since 1970, and its text."""
_period = (1.0, "1.0")
"""The sample period that was last written, ns, and its text."""
_read_second = ("1970-01-01T00:00:00", 0)
"""The second that was last read, and since 1970."""


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
    read = _read_text(known.get("_read_started"), known.get("_read_finished"))
    return (
        f'{{"seq":{seq},"event_kind":"buffer_done","first_sample_index":{first},"valid_samples":{samples},'
        f'"buffer_capacity":{samples},"t_mono_ns":{t_mono_ns},"t_utc":"{utc_text(clock.utc_ns)}","flags":[],'
        f'"block_index":{block.block_index},"clock":[{clock.utc_ns},{_period_text(clock.period_ns)}],"t_midpoint_mono_ns":{midpoint}'
        f'{read},"is_linearised":true'
    ).encode()


def _period_text(period_ns: float) -> str:
    global _period
    known = _period
    if known[0] == period_ns and period_ns and type(period_ns) is float:  # 0.0 and -0.0, 1.0 and 1 are equal
        return known[1]
    text = _json(period_ns).decode()
    if type(period_ns) is float:
        _period = (period_ns, text)
    return text


def _read_text(started: datetime | int | None, finished: datetime | int | None) -> str:
    if isinstance(started, int) and isinstance(finished, int):
        elapsed_s = (finished // 1000 - started // 1000) / 1_000_000
        return (
            f',"read_started_at":"{utc_text(started)}","read_finished_at":"{utc_text(finished)}"'
            f',"elapsed_s":{_json(elapsed_s).decode()}'
        )
    text = "" if started is None else f',"read_started_at":"{_text(started)}"'
    if finished is not None:
        text += f',"read_finished_at":"{_text(finished)}"'
    if started is not None and finished is not None:
        text += f',"elapsed_s":{_json((_micros(finished) - _micros(started)) / 1_000_000).decode()}'
    return text


def _text(instant: datetime | int) -> str:
    return utc_text(instant) if isinstance(instant, int) else instant.isoformat()


def _micros(instant: datetime | int) -> int:
    return (instant if isinstance(instant, int) else ns_from_utc(instant)) // 1000


def utc_text(ns: int) -> str:
    """Return the instant, ns since 1970, as `datetime.isoformat` gives it, floored to µs."""
    global _second
    second, rest = divmod(ns, _SECOND_NS)
    known = _second
    if known[0] != second:
        known = _second = (second, utc_from_ns(second * _SECOND_NS).isoformat()[:19])
    micros = rest // 1000
    return f"{known[1]}.{micros:06}+00:00" if micros else f"{known[1]}+00:00"


def instant_of(text: str) -> datetime | int:
    """Return the instant of a text: of one that `utc_text` wrote, ns since 1970. Raises ValueError for no ISO text."""
    global _read_second
    found = _UTC_TEXT.fullmatch(text)
    if found is None:
        return datetime.fromisoformat(text)
    second, micros = found.groups()
    known = _read_second
    if known[0] != second:
        known = _read_second = (second, ns_from_utc(datetime.fromisoformat(text)) // _SECOND_NS)
    return known[1] * _SECOND_NS + int(micros) * 1000
