"""Integers as what is decoded may have them: whatever is reckoned with them still fits 64 bits."""

from typing import Annotated

import msgspec

LARGEST = 2**62 - 1
"""Beyond every index, sample, byte and nanosecond of a recording: sums of two of them fit 64 bits."""

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""An index, a number of samples, of bytes."""
Instant = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
"""Nanoseconds, of a monotonic clock or since 1970: from 1823 to 2116."""
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
