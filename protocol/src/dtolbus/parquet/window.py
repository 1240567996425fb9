"""Which part of a run is asked for: by sample index or by instant, half-open. Pure."""

import math
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtolbus.errors import UsageError
from dtolbus.parquet.footer import Span
from dtolbus.records import DaqEvent, Gap, ns_from_utc

Bound = datetime | np.datetime64 | int
"""An instant (a `numpy.datetime64` is UTC, as in `t_utc`), or the index of a sample in its run."""


_JITTER = 1e-3
"""Part of a sample's period by which its instant, in whole ns, may be off."""


class Window(NamedTuple):
    """What is asked for; None is open."""

    first_sample: int | None = None
    end_sample: int | None = None
    first_utc_ns: int | None = None
    end_utc_ns: int | None = None

    def is_over_before(self, span: Span) -> bool:
        """Return whether nothing of the span, nor behind it, is within."""
        return (self.end_sample is not None and span.first_sample >= self.end_sample) or (
            self.end_utc_ns is not None and span.first_utc_ns >= self.end_utc_ns
        )

    def begins_after(self, span: Span) -> bool:
        """Return whether nothing of the span, nor before it, is within."""
        return (self.first_sample is not None and span.end_sample <= self.first_sample) or (
            self.first_utc_ns is not None and span.end_utc_ns <= self.first_utc_ns
        )

    def places(self, sample_index: NDArray[np.int64], t_utc_ns: NDArray[np.int64]) -> slice | NDArray[np.intp]:
        """Return where the samples are that are within; both of shape (samples,)."""
        within = np.ones(len(sample_index), np.bool_)
        for column, first, end in (
            (sample_index, self.first_sample, self.end_sample),
            (t_utc_ns, self.first_utc_ns, self.end_utc_ns),
        ):
            if first is not None:
                within &= column >= first
            if end is not None:
                within &= column < end
        found = np.flatnonzero(within)
        if not len(found):
            return slice(0, 0)
        first_place, end_place = int(found[0]), int(found[-1]) + 1
        return slice(first_place, end_place) if end_place - first_place == len(found) else found

    def in_samples(self, sample_index: NDArray[np.int64], t_utc_ns: NDArray[np.int64], rate_hz: float) -> "Window":
        """Return the window by sample index alone, instants reckoned at the rate from the outermost samples known.

        Both of shape (samples,), at least one.
        """
        first, end = self.first_sample, self.end_sample
        if self.first_utc_ns is not None:
            ahead = math.floor((int(t_utc_ns[0]) - self.first_utc_ns) * rate_hz / 1e9 + _JITTER)
            first = max(int(sample_index[0]) - ahead, first or 0)
        if self.end_utc_ns is not None:
            behind = math.ceil((self.end_utc_ns - int(t_utc_ns[-1])) * rate_hz / 1e9 - _JITTER)
            end = min(int(sample_index[-1]) + behind, end if end is not None else 1 << 62)
        return Window(first, end)

    def touches(self, gap: Gap) -> bool:
        """Return whether a gap may have samples within, by sample index; one whose samples nobody knows may."""
        if gap.first_sample is None or gap.end_sample is None:
            return True
        return (self.end_sample is None or gap.first_sample < self.end_sample) and (
            self.first_sample is None or gap.end_sample > self.first_sample
        )


def window(start: Bound | None, stop: Bound | None) -> Window:
    """Return the window [start, stop). Raises UsageError for what is no bound."""
    first_sample, first_utc_ns = _bound("start", start)
    end_sample, end_utc_ns = _bound("stop", stop)
    return Window(first_sample, end_sample, first_utc_ns, end_utc_ns)


def _bound(name: str, given: Any) -> tuple[int | None, int | None]:
    """Return a bound as a sample index and as ns since 1970, one of them None."""
    if given is None:
        return None, None
    if isinstance(given, np.datetime64) and not np.isnat(given):
        return None, int(given.astype("datetime64[ns]").astype(np.int64))
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise UsageError(f"{name}: {given.isoformat()} has no time zone; give one, such as datetime(…, tzinfo=UTC)")
        return None, ns_from_utc(given)
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return int(given), None
    raise UsageError(f"{name}: {given!r} is neither an instant (datetime, numpy.datetime64) nor a sample index (int)")


def lost(event: DaqEvent) -> Gap:
    """Return the samples that an event tells to be lost as the gap that they are."""
    return Gap(
        event.record_index,
        event.record_index + 1,
        f"{event.kind}: {event.message}",
        event.sample_index,
        event.sample_index + event.lost_samples,
    )
