"""Inputs made from others: bytes changed anywhere, or one value inside a JSON, msgpack or TOML part for a nasty one."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from tests.fuzz import parts

_NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 2**15, 2**31, 2**32 - 1, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
    *(-(2**63), 0.0, -0.0, 1e308, -1e308, 5e-324, 1e18, float("nan"), float("inf"), float("-inf"), 0.5),
    *(
        "",
        "../x",
        "/etc/passwd",
        "..",
        ".",
        "a/b",
        "a\\b",
        "CON",
        "a:b",
        "\0",
        "x" * 300,
        "ü" * 30_000,
        "ä\u202e",
        "=1+1",
        "a\nb",
    ),
    *("0", "NaN", "<i2", "float64", "object", "O", "V8", "M8[ns]", "blocks", "readings", "number", "1970-01-01"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\ud800", '"; drop table x; --'),
    *([], {}, [[]], [0], ["a", "a"], {"": {}}, [None], {"a": [1, {"b": 2}]}, b"", b"\xff\xfe"),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_NUMBERS = (b"0", b"-1", b"1e999", b"9" * 25, b"1e-999", b"4294967295", b"9223372036854775808", b"0.5", b"nan")


def mutated(data: bytes, chance: random.Random, others: Sequence[bytes] = (), *, in_parts: bool = False) -> bytes:
    """Return the input with one to four things changed; `in_parts` where it is several joined ones."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if in_parts and chance.random() < 0.9:
            data = _in_a_part(data, chance, others)
        else:
            data = _changed(data, chance, others)
    return data


def _in_a_part(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    known = parts.split(data)
    if not known:
        return _changed(data, chance, others)
    place = chance.randrange(len(known) if chance.random() < 0.4 else min(2, len(known)))  # headers come first
    what = chance.random()
    if what < 0.8:
        known[place] = _changed(known[place], chance, ())
    elif what < 0.85:
        del known[place]
    elif what < 0.9:
        known.insert(place, known[chance.randrange(len(known))])
    elif others:
        foreign = parts.split(chance.choice(others)) or [b""]
        known[place] = chance.choice(foreign)
    return parts.joined(known)


def _changed(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    if chance.random() < 0.75:
        for decode, encode in ((_from_json, _to_json), (_from_msgpack, _to_msgpack)):
            changed = _one_value(data, chance, decode, encode)
            if changed is not None:
                return changed
    return chance.choice(_CHANGES)(data, chance, others)


def _from_json(data: bytes) -> tuple[Any, bytes]:
    return msgspec.json.decode(data), b""


def _to_json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _from_msgpack(data: bytes) -> tuple[Any, bytes]:
    """Headers of messages have a checksum behind them, which the driver makes anew."""
    return msgspec.msgpack.decode(data[:-8]), data[-8:]


def _to_msgpack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def _one_value(
    data: bytes, chance: random.Random, decode: Callable[[bytes], tuple[Any, bytes]], encode: Callable[[Any], bytes]
) -> bytes | None:
    try:
        value, rest = decode(data)
        return encode(_replaced(value, chance)) + rest
    except Exception:  # whatever it is, it is not of this kind
        return None


def _replaced(value: Any, chance: random.Random) -> Any:
    """Return the value with one of those inside of it, at any depth, replaced, left out, doubled or wrapped."""
    if isinstance(value, list | dict) and value and chance.random() < 0.96:
        if isinstance(value, list):
            place = chance.randrange(len(value))
            changed = _replaced(value[place], chance)
            return [*value[:place], *_instead(changed, chance), *value[place + 1 :]]
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {name: one for name, one in value.items() if name != key}
        if chance.random() < 0.05:
            return {(chance.choice(_NASTY) if name == key else name): one for name, one in value.items()}
        return {**value, key: _replaced(value[key], chance)}
    if isinstance(value, bool) or not isinstance(value, int | float) or chance.random() < 0.5:
        return chance.choice(_NASTY)
    return value + chance.choice((-1, 1, 2**32, -(2**40)))


def _instead(changed: Any, chance: random.Random) -> list[Any]:
    if chance.random() < 0.9:
        return [changed]
    return chance.choice(([], [changed, changed], [changed] * 300))


def _flip(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    if not data:
        return bytes([chance.randrange(256)])
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def _byte(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + bytes([chance.choice((0, 1, 0x7F, 0x80, 0xC1, 0xDC, 0xDF, 0xFF))]) + data[place + 1 :]


def _cut(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    a, b = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:a] + data[b:]


def _doubled(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    a, b = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    times = chance.choice((2, 3, 1000 if b - a < 8 else 2))
    return data[:a] + data[a:b] * times + data[b:]


def _word(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    place = chance.randrange(len(data) + 1)
    width = chance.choice((2, 4, 8))
    number = chance.choice((0, 1, 2**15, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1, len(data), len(data) + 1))
    word = (number % (1 << 8 * width)).to_bytes(width, chance.choice(("little", "big")))
    return data[:place] + word + data[place + width :]


def _number(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return _flip(data, chance, others)
    one = chance.choice(found)
    return data[: one.start()] + chance.choice(_NUMBERS) + data[one.end() :]


def _nested(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    place = chance.randrange(len(data) + 1)
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"\x91", b"")))
    depth = chance.choice((3, 2000, 100_000))
    return data[:place] + opening * depth + b"0" + closing * depth + data[place:]


def _spliced(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    if not others:
        return _cut(data, chance, others)
    other = chance.choice(others)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_CHANGES = (_flip, _flip, _byte, _cut, _doubled, _word, _number, _nested, _spliced)
