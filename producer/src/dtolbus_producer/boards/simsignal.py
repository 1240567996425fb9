"""The simulated signals: codes and temperatures as pure functions of (seed, channel, sample index).

The codes of tones are worked out in whole numbers, so that they are the same on every machine.
"""

import math

import numpy as np
from numpy.typing import NDArray

FULL_SCALE_V = 10.0
CODES = 65536
"""16 bit; offset binary: code 0 is −full scale, 32768 is 0 V."""

_TABLE_BITS = 12
_AMPLITUDE_CODES = 2_400
"""Of the tone at gain 1: 0.73 V, so that gain 8 does not clip."""
_NOISE_BITS = 6
_TABLE = np.array(
    [round(_AMPLITUDE_CODES * math.sin(2 * math.pi * n / 2**_TABLE_BITS)) for n in range(2**_TABLE_BITS)],
    dtype=np.int64,
)
_GOLDEN = 0x9E3779B97F4A7C15


def scattered(seed: int, channel: int, first: int, count: int) -> NDArray[np.uint64]:
    """Return 64 random bits for each of the indexes [first, first + count): splitmix64, shape (count,)."""
    key = (seed * 0xD1342543DE82EF95 + channel * 0xDA942042E4DD58B5) & (2**64 - 1)
    bits = np.arange(first, first + count, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return scrambled


def simulated_codes(
    seed: int, channel: int, first: int, count: int, *, rate_hz: float, gain: float = 1.0
) -> NDArray[np.uint16]:
    """Return the offset-binary codes of samples [first, first + count) of input `channel`, shape (count,).

    A tone of 29.5 + 7 × channel Hz with its third harmonic, and noise; `rate_hz` is the rate as read back.
    """
    step = int((29.5 + 7.0 * channel) / rate_hz * 2**64) & (2**64 - 1)
    phase = np.arange(first, first + count, dtype=np.uint64) * np.uint64(step)
    shift = np.uint64(64 - _TABLE_BITS)
    tone = _TABLE[(phase >> shift).astype(np.intp)]
    harmonic = _TABLE[((phase * np.uint64(3)) >> shift).astype(np.intp)]
    noise = (scattered(seed, channel, first, count) >> np.uint64(64 - _NOISE_BITS)).astype(np.int64)
    signal = tone + harmonic // 4 + noise - 2 ** (_NOISE_BITS - 1)
    wide = CODES // 2 + np.floor(signal * gain).astype(np.int64)
    codes: NDArray[np.uint16] = np.clip(wide, 0, CODES - 1).astype(np.uint16)
    return codes


def slow_wave(channel: int, first: int, count: int, *, rate_hz: float) -> NDArray[np.float64]:
    """Return a sine between −1 and 1 of 60 s, longer for higher channels, at these samples; shape (count,)."""
    seconds = np.arange(first, first + count) / rate_hz
    return np.asarray(np.sin(2 * np.pi * seconds / (60.0 + 10.0 * channel)))


def simulated_temperatures(seed: int, channel: int, first: int, count: int, *, rate_hz: float) -> NDArray[np.float64]:
    """Return the temperature at sensor `channel`, °C: around 20 + 5 × channel, slowly moving; shape (count,)."""
    noise = (scattered(seed, 1000 + channel, first, count) >> np.uint64(56)).astype(np.float64) / 256 - 0.5
    return np.asarray(20.0 + 5.0 * channel + 2.0 * slow_wave(channel, first, count, rate_hz=rate_hz) + 0.05 * noise)


def simulated_lateness_ns(seed: int, buffer: int, limit_ms: float) -> int:
    """Return how late the callback of buffer number `buffer` is, ns: evenly spread over 0…limit."""
    share = int(scattered(seed, 2000, buffer, 1)[0] >> np.uint64(11)) / 2**53
    return round(share * limit_ms * 1e6)
