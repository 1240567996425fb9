"""Options of one kind of board that were given to another kind."""

import msgspec

from dtolbus_producer.boards import BOARDS, board_class
from dtolbus_producer.tasks import DeviceConfig, WrongKeyError

_SWITCHED = {"iepe": "IEPE", "ac_coupled": "AC coupling"}


def check_foreign(device: DeviceConfig, options_type: type[msgspec.Struct]) -> None:
    """Raise WrongKeyError where an option is not one of the device's board, but of another kind of ours."""
    own = set(options_type.__struct_encode_fields__)
    for option in device.options:
        kinds = [] if option in own else [kind for kind in BOARDS if kind != device.board_kind and _has(kind, option)]
        if not kinds:
            continue
        whose = " and ".join(f"board = {kind!r}" for kind in kinds)
        if device.board_kind == "sim":
            lacks = f"the simulator has no {_SWITCHED.get(option, option)}: leave it out for a rehearsal"
        else:
            lacks = f"{device.board_kind!r} has none: leave it out; it has {', '.join(sorted(own)) or 'no options'}"
        raise WrongKeyError(f"options.{option}", f"it is an option of {whose}; {lacks}")


def _has(kind: str, option: str) -> bool:
    return option in board_class(kind).options_type.__struct_encode_fields__
