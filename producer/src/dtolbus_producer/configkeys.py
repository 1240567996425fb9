"""What is wrong with plain data that should be a Struct: the key, its value, what is allowed. Pure."""

import datetime
import difflib
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

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
_EXAMPLES = {"max_size": '"200 GB"', "min_free": '"1 GB"'}
_OF_BOARD = "the board switches it, where it can: name the channel in [device.options], "
_MEANT = {
    "iepe": f'{_OF_BOARD}iepe = ["NAME"]',
    "coupling": f'{_OF_BOARD}ac_coupled = ["NAME"]',
    "ac_coupled": f'{_OF_BOARD}ac_coupled = ["NAME"]',
    "sensitivity": "write sensitivity_v, the volts for one unit: 100 mV/g are 0.1",
    "sensitivity_mv": "write sensitivity_v, the volts for one unit: 100 mV/g are 0.1",
}
"""Keys that a channel does not have, and what is meant by them."""
_DEEPER = {
    "task": "[[device.task]]",
    "tasks": "[[device.task]]",
    "channel": "[[device.task.channels]]",
    "channels": "[[device.task.channels]]",
    "options": "[device.options] or [sink.options]",
}
"""Tables that stand below others, by what people write at the top."""


def key_problem(raw: object, expected: type[msgspec.Struct]) -> str | None:
    """Return the first thing wrong as `path = value: what is allowed`, or None where all is well.

    An unknown key is named with the nearest right one.
    """
    for unknown in _unknown_keys(raw, expected, ""):
        return f"{unknown.path}{unknown.key}: {_what_is_meant(unknown, list(_hints(expected)))}"
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
        message = _allowed(message, _hint_at(expected, path), _table(path))
        return f"{path} = {shown(value)}: {message}" if path and value is not None else f"{path or 'file'}: {message}"
    return None


def shown(value: object) -> str:
    """Return a value as its author wrote it, or nearly: a date as 2026-02-11."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(msgspec.to_builtins(value))


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


class _Unknown(NamedTuple):
    """A key that is not one."""

    path: str
    """What stands before it."""
    key: str
    value: object
    allowed: dict[str, Any]
    """The keys there, and the types of what they hold."""


def _what_is_meant(unknown: _Unknown, top: list[str]) -> str:
    """Return what to write; `top` are the keys of the whole file."""
    path, key, value, allowed = unknown
    written = f"[[{_table(path + key)}]]" if isinstance(value, list) else f"[{_table(path + key)}]"
    is_table = isinstance(value, Mapping) or (isinstance(value, list) and all(isinstance(v, Mapping) for v in value))
    singular = key.removesuffix("s")
    if is_table and not path and key in _DEEPER:
        return f"write {_DEEPER[key]}, not {written}"
    if is_table and singular != key and _is_list_of_tables(allowed.get(singular)):
        return f"write [[{_table(path + singular)}]], not {written}"
    if "channels[" in path and key in _MEANT:
        return f"there is no such key; {_MEANT[key]}"
    if path and key in top and "options." not in path:
        return f"there is no such key here; {key} stands at the top of the file, above the first [table]"
    nearest = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"allowed are {', '.join(allowed)}"
    return f"there is no such key; {hint}"


def _table(path: str) -> str:
    """Return a path without the numbers of its tables."""
    return re.sub(r"\[[^]]*\]", "", path)


def _is_list_of_tables(hint: Any) -> bool:
    return get_origin(hint) is tuple and _struct_in(hint) is not None


def _allowed(message: str, hint: Any, table: str) -> str:
    """Return msgspec's message in the words of whoever writes the file: what is allowed."""
    found = _TYPES.fullmatch(message)
    choices = _choices(hint)
    if found is None and not (message.startswith("invalid enum") and choices):
        return message
    wanted = [] if found is None else found[1].split(" | ")
    if found is not None and (wanted, found[2]) in ((["array"], "object"), (["object"], "array")):
        return f"write [[{table}]], not [{table}]" if found[2] == "object" else f"write [{table}], not [[{table}]]"
    kinds = [_WORDS[kind] for kind in wanted or _names(hint) if kind in _WORDS and not (kind == "str" and choices)]
    if choices:
        return f"allowed are {', '.join([*map(repr, choices), *kinds])}"
    example = _EXAMPLES.get(table.rpartition(".")[2])
    return f"give {' or '.join(kinds)}{f', such as {example}' if example else ''}"


def _unknown_keys(raw: object, expected: type[msgspec.Struct], path: str) -> Iterator[_Unknown]:
    """Yield each key that is not one."""
    if not isinstance(raw, Mapping):
        return
    fields = _hints(expected)
    for key, value in raw.items():
        if key not in fields:
            yield _Unknown(path, str(key), value, fields)
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
    *outer, last = _table(path).split(".")
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
    return raw if isinstance(raw, str | int | float | bool | datetime.date | datetime.time) else None
