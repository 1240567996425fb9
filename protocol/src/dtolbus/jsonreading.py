"""JSON that somebody else wrote, or damaged: whatever is wrong with it is one kind of error. Pure."""

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def read_json(data: bytes | str, kind: type[T] | Any = Any) -> T:
    """Return the document as what it is to be. Raises ValueError, which says what is wrong with it."""
    try:
        found: T = msgspec.json.decode(data, type=kind)
        return found
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise ValueError(str(error)) from error
