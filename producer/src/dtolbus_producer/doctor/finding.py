"""What a check found."""

from typing import Literal

import msgspec

State = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's."""

    name: str
    state: State
    what: str
    todo: str = ""
    """What to do; empty where nothing is to be done."""
