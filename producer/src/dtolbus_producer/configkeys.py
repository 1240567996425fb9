"""What is wrong with plain data that should be a Struct: the key, its value, what is allowed. Pure."""

import difflib
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

_TYPES = re.compile(r"expected ([a-z |]+), got ([a-z]+)")
_MISSING = re.compile(r"object missing required field (\w+)")
_WORDS = {
    "str": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list in [ ]",
    "object": "a table { }",
}


def key_problem(raw: object, expected: type[msgspec.Struct]) -> str | None:
    """Return the first thing wrong as `path = value: what is allowed`, or None where all is well.

    An unknown key is named with the nearest right one.
    """
    for path, key, allowed in _unknown_keys(raw, expected, ""):
        nearest = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"allowed are {', '.join(allowed)}"
        return f"{path}{key}: there is no such key; {hint}"
    try:
        msgspec.convert(raw, expected)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        path = place.rstrip("`").removeprefix("$").removeprefix(".")
        message = (message[:1].lower() + message[1:]).replace("`", "").replace(" | null", "")
        missing = _MISSING.fullmatch(message)
        if missing is not None:
            return f"{f'{path}.' if path else ''}{missing[1]}: it is missing: give one"
        value = _value_at(raw, path)
        message = _allowed(message, _hint_at(expected, path), path.rpartition(".")[2])
        return f"{path} = {value!r}: {message}" if path and value is not None else f"{path or 'file'}: {message}"
    return None


def number_problem(plain: object, path: str = "") -> str | None:
    """Return the first number that no message can carry, as `path = value: what is allowed`, or None."""
    if isinstance(plain, float) and not math.isfinite(plain):
        return f"{path} = {plain}: give a finite number"
    if isinstance(plain, int) and not -(2**63) <= plain < 2**64:
        return f"{path} = {plain:.6g}: give a whole number of at most 64 bits, or a text in quotes"
    inner: Iterable[tuple[str, object]] = ()
    if isinstance(plain, Mapping):
        inner = ((f"{path}.{key}" if path else str(key), value) for key, value in plain.items())
    elif isinstance(plain, list | tuple):
        inner = ((f"{path}[{place}]", value) for place, value in enumerate(plain))
    return next(filter(None, (number_problem(value, at) for at, value in inner)), None)


def _allowed(message: str, hint: Any, key: str) -> str:
    """Return msgspec's message in the words of whoever writes the file: what is allowed."""
    found = _TYPES.fullmatch(message)
    choices = _choices(hint)
    if found is None and not (message.startswith("invalid enum") and choices):
        return message
    wanted = [] if found is None else found[1].split(" | ")
    if found is not None and (wanted, found[2]) in ((["array"], "object"), (["object"], "array")):
        return f"write [[{key}]], not [{key}]" if found[2] == "object" else f"write [{key}], not [[{key}]]"
    kinds = [_WORDS[kind] for kind in wanted or _names(hint) if kind in _WORDS and not (kind == "str" and choices)]
    return f"allowed are {', '.join([*map(repr, choices), *kinds])}" if choices else f"give {' or '.join(kinds)}"


def _unknown_keys(raw: object, expected: type[msgspec.Struct], path: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (path before the key, key, keys allowed there) for each key that is not one."""
    if not isinstance(raw, Mapping):
        return
    fields = _hints(expected)
    for key, value in raw.items():
        if key not in fields:
            yield path, str(key), list(fields)
            continue
        inner = _struct_in(fields[key])
        if inner is None:
            continue
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield from _unknown_keys(item, inner, f"{path}{key}[{place}].")
        else:
            yield from _unknown_keys(value, inner, f"{path}{key}.")


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """Return the Struct that a field is, or holds in a tuple or a union."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if get_origin(hint) in (tuple, Union, types.UnionType):
        for inner in get_args(hint):
            found = _struct_in(inner)
            if found is not None:
                return found
    return None


def _hint_at(expected: type[msgspec.Struct], path: str) -> Any:
    """Return the type of what stands at a path like `sink[0].kind`."""
    *outer, last = re.sub(r"\[[^]]*\]", "", path).split(".")
    struct: type[msgspec.Struct] | None = expected
    for part in outer:
        struct = None if struct is None else _struct_in(_hints(struct).get(part))
    return None if struct is None else _hints(struct).get(last)


def _choices(hint: Any) -> list[Any]:
    """Return the values that a Literal, or one in a union, allows."""
    literals = [hint, *get_args(hint)]
    return [choice for literal in literals if get_origin(literal) is Literal for choice in get_args(literal)]


def _names(hint: Any) -> list[str]:
    """Return the names of the plain types in a union."""
    return [part.__name__ for part in get_args(hint) if isinstance(part, type)]


def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the type of each field by the key that it has in the data."""
    hints = get_type_hints(struct)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(struct)}


def _value_at(raw: Any, path: str) -> object:
    """Return what stands at a path like `device[0].rate_hz`; None where nothing does."""
    for part in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(raw, list) and part.isdigit():
            raw = raw[int(part)]
        elif isinstance(raw, Mapping):
            raw = raw.get(part)
        else:
            return None
    return raw if isinstance(raw, str | int | float | bool) else None
