"""ISO 8601 text of many instants at once.

As `datetime.isoformat` gives it for whole µs ("…T12:00:00.002500+00:00", no fraction where it is 0); nine digits where
the ns are no whole µs.
"""

import numpy as np
from numpy.typing import NDArray

LENGTHS = (25, 32, 35)
"""Bytes of "2026-01-01T12:00:00+00:00", and with six or nine digits of a fraction."""
LONGEST = LENGTHS[-1]

_PREFIX = 19
_UTC = np.frombuffer(b"+00:00", np.uint8)
_NANOS = 1_000_000_000
_TRIPLES = np.frombuffer(b"".join(b"%03d" % number for number in range(1000)), np.uint8).reshape(1000, 3)


def iso_bytes(utc_ns: NDArray[np.int64]) -> NDArray[np.bytes_]:
    """Return the instants (ns since 1970, shape (n,)) as ASCII text, shape (n,), of dtype S35."""
    seconds, nanos = np.divmod(np.asarray(utc_ns, np.int64), _NANOS)
    text = np.zeros((len(seconds), LONGEST), np.uint8)
    text[:, :_PREFIX] = _prefixes(seconds)
    micros_only = nanos % 1000 == 0
    _put(text, micros_only & (nanos != 0), nanos, digits=6)
    _put(text, ~micros_only, nanos, digits=9)
    text[nanos == 0, _PREFIX : _PREFIX + 6] = _UTC
    return text.reshape(-1).view(f"S{LONGEST}")


def iso_texts(utc_ns: NDArray[np.int64]) -> list[str]:
    """Return the instants (ns since 1970, shape (n,)) as text."""
    joined: list[str] = iso_bytes(utc_ns).astype(f"U{LONGEST}").tolist()
    return joined


def _prefixes(seconds: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return "2026-01-01T12:00:00" for each instant, shape (n, 19) or (1, 19); rendered once for each second."""
    if len(seconds) and seconds.min() == seconds.max():
        return _rendered(seconds[:1])
    distinct, place = np.unique(seconds, return_inverse=True)
    prefixes: NDArray[np.uint8] = _rendered(distinct)[place]
    return prefixes


def _rendered(seconds: NDArray[np.int64]) -> NDArray[np.uint8]:
    texts = np.datetime_as_string(seconds.astype("datetime64[s]")).astype(f"S{_PREFIX}")
    return texts.view(np.uint8).reshape(-1, _PREFIX)


def _put(text: NDArray[np.uint8], where: NDArray[np.bool_], nanos: NDArray[np.int64], *, digits: int) -> None:
    """Write ".", so many digits of the fraction and "+00:00" into the rows `where`."""
    if not where.any():
        return
    chosen = slice(None) if where.all() else where
    rest = nanos[chosen].astype(np.int32) // 10 ** (9 - digits)
    fraction = np.empty((len(rest), 1 + digits + 6), np.uint8)
    fraction[:, 0] = ord(".")
    for column in range(digits - 2, 0, -3):
        rest, triple = np.divmod(rest, 1000)
        fraction[:, column : column + 3] = np.take(_TRIPLES, triple, axis=0)
    fraction[:, 1 + digits :] = _UTC
    text[chosen, _PREFIX : _PREFIX + 1 + digits + 6] = fraction
