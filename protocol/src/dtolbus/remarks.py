"""What a run's events say of its signals: channels at an end of their range, sensors that are open. Pure.

Nothing is missing in a run that has remarks, and no value was changed: they say which ones not to trust.
"""

import re
from collections.abc import Iterator

import msgspec

from dtolbus.channels import Channel
from dtolbus.numbers import Count
from dtolbus.records import DaqBlock, DaqEvent, DaqReading, Gap, Record, RunInfo
from dtolbus.units.status import SensorStatus

OVER_RANGE = "over_range"
NO_VALUE = "no_value"
LOST = "lost"
"""No event's kind: what the events of lost samples come to, as long as nobody reads them."""
ALL_CHANNELS = "every channel"
GOOD_AGAIN = "sensor_ok"
"""Kind of the event where a sensor is good again: it is none of `WORDS`."""

WORDS = {
    OVER_RANGE: "at the end of its range",
    "sensor_open": "sensor open",
    "sensor_low": "below what its sensor can measure",
    "sensor_high": "above what its sensor can measure",
    NO_VALUE: "without a value",
}
"""The kinds of events that are remarks, and what people read."""

STATUS_KINDS = {
    SensorStatus.SENSOR_OPEN: "sensor_open",
    SensorStatus.TEMP_OUT_OF_RANGE_LOW: "sensor_low",
    SensorStatus.TEMP_OUT_OF_RANGE_HIGH: "sensor_high",
}
KINDS = frozenset((*WORDS, GOOD_AGAIN))

_MESSAGE = re.compile(
    f"(?P<channel>.*): (?:{'|'.join(WORDS.values())}): (?P<samples>[0-9]+) of (?P<of>[0-9]+) (?:samples|polls), "
    "the first is number (?P<first>[0-9]+)(?:; good again from number [0-9]+ on)?",
    re.DOTALL,
)


class Remark(msgspec.Struct, frozen=True):
    """How much of one channel is not to be trusted, and why."""

    channel: str
    kind: str
    """One of `WORDS`, or LOST."""
    samples: Count
    """So many (polls) were so …"""
    of: Count
    """… of so many that were looked at."""
    first: Count
    """Number of the first of them in the run."""

    def __str__(self) -> str:
        count = f"{self.samples}, " if self.kind == LOST else ""
        return f"{self.channel} {WORDS.get(self.kind, self.kind)}: {count}{percent(self.samples, self.of)}"


def message_of(remark: Remark, *, what: str = "samples", good_from: int | None = None) -> str:
    """Return the message of its event; from the sample (poll) `good_from` on all is well again."""
    again = "" if good_from is None else f"; good again from number {good_from} on"
    counted = f"{remark.samples} of {remark.of} {what}, the first is number {remark.first}"
    return f"{remark.channel}: {WORDS[remark.kind]}: {counted}{again}"


def remark_of(event: DaqEvent) -> Remark | None:
    """Return what `message_of` told, or None where the event is no such remark (a board's own fault, say)."""
    found = _MESSAGE.fullmatch(event.message) if event.kind in WORDS else None
    if found is None:
        return None
    return Remark(found["channel"], event.kind, *(int(found[name]) for name in ("samples", "of", "first")))


def is_remark(event: DaqEvent) -> bool:
    """Return whether the event says something of the signals, and nothing else."""
    return remark_of(event) is not None or (event.kind == GOOD_AGAIN and not event.lost_samples)


class Tally:
    """Gathers the remarks of a run from its records, and how many samples of each channel there are."""

    def __init__(self) -> None:
        self._samples = 0
        self._found: dict[tuple[str, str], Remark] = {}

    def take(self, record: Record | Gap) -> None:
        """Count one record."""
        if isinstance(record, DaqBlock):
            self._samples += record.samples_per_channel
        elif isinstance(record, DaqReading):
            self._samples += 1
        elif isinstance(record, DaqEvent) and (remark := remark_of(record)) is not None:
            key = (remark.channel, remark.kind)
            before = self._found.get(key, remark)
            samples = remark.samples + (before.samples if key in self._found else 0)
            self._found[key] = msgspec.structs.replace(before, samples=samples)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """One for each channel and kind, in the order of the first of each, of all samples."""
        return tuple(msgspec.structs.replace(remark, of=self._samples) for remark in self._found.values())


def line_of(remark: Remark, run: RunInfo) -> str:
    """Return the remark for people."""
    return f"{remark} of {what_of(run)}, the first is number {remark.first}"


def what_of(run: RunInfo) -> str:
    """Return what a run has of each channel."""
    return "samples" if run.kind == "blocks" else "polls"


def percent(part: int, whole: int) -> str:
    """Return a part in percent; all are 100 %, and only all, and only none are 0 %."""
    if part >= whole or not part:
        return "100 %" if part else "0 %"
    found = 100 * part / whole
    if found < 0.1 or found > 99.9:
        return "< 0.1 %" if found < 0.1 else "> 99.9 %"
    return f"{found:.1f} %" if found < 10 or found > 99 else f"{found:.0f} %"


def watched_ends(channel: Channel) -> Iterator[float | None]:
    """Yield the lowest and the highest code (volts, of a board that gives these) that is beyond what can be measured.

    At or beyond them the input may be anything; None: that end is a value like any other. So is the low end of a range
    that begins at 0 V: it is where such an input rests.
    """
    lowest, highest = channel.ends or (None, None)
    low_v, high_v = channel.range or (0.0 if channel.encoding == "offset_binary" else -1.0, 1.0)
    yield lowest if low_v < 0 else None
    yield highest if high_v > 0 else None
