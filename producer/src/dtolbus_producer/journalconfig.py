"""`[journal]`: how the journal is written, and how much room it may take."""

import math
from typing import Literal

import msgspec

from dtolbus.errors import UsageError
from dtolbus_producer.quantities import parse_size, show_size
from dtolbus_producer.tasks import WrongKeyError

_MIB = 1024 * 1024


class JournalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[journal]`."""

    sync_ms: float = 20.0
    """Records are made durable together every so often, ms; 0: each by itself."""
    segment_mb: float = 256.0
    """A file of the journal is closed at this size, MiB …"""
    segment_s: float = 3600.0
    """… or at this age, s."""
    queue_s: float = 5.0
    """How long the disk may stall before samples are lost (and an overrun event tells which), s."""
    max_size: str | None = None
    """How large the journal of the data folder may become, such as `200G`; what every sink has goes then, the oldest
    first. None: nothing is deleted for its size."""
    min_free: str | None = None
    """How much of the disk stays free, such as `1G`; `0`: nothing. None: 1 GiB, but at most 5 % of the disk."""
    when_full: Literal["stop", "gap-oldest"] = "stop"
    """What happens when that is not enough: recording stops, or the oldest segments go although a sink lacks them."""
    summaries_suffice: bool = False
    """Whether what is deleted for the size may be blocks of which the sinks keep only summaries, not the samples."""

    @property
    def segment_bytes(self) -> int:
        """Size at which a segment is closed."""
        return round(self.segment_mb * _MIB)

    @property
    def max_bytes(self) -> int | None:
        """`max_size` in bytes. Raises UsageError."""
        return None if self.max_size is None else parse_size(self.max_size)

    @property
    def min_free_bytes(self) -> int | None:
        """`min_free` in bytes. Raises UsageError."""
        return None if self.min_free is None else parse_size(self.min_free)

    def check(self) -> None:
        """Raise WrongKeyError where a value cannot be."""
        for key, least in (("sync_ms", 0.0), ("segment_mb", 0.001), ("segment_s", 0.01), ("queue_s", 0.01)):
            value = getattr(self, key)
            if not (value >= least and math.isfinite(value)):
                raise WrongKeyError(f"journal.{key}", f"{value:g}: give a number of at least {least:g}")
        for key in ("max_size", "min_free"):
            try:
                parse_size(getattr(self, key) or "0")
            except UsageError as error:
                raise WrongKeyError(f"journal.{key}", str(error)) from error
        if self.max_bytes is not None and self.max_bytes < 2 * self.segment_bytes:
            least_size = show_size(2 * self.segment_bytes)
            raise WrongKeyError(
                "journal.max_size", f"{self.max_size!r}: give at least two segments, {least_size} with this segment_mb"
            )
