"""Messages that no end of ours would make: a valid one with its header changed, and a checksum that holds."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dtolbus import wire


def sealed(frames: Sequence[bytes]) -> list[bytes]:
    """Return the frames with the checksum that they ought to have."""
    if len(frames) < 2:
        return list(frames)
    header = frames[1][:-8]
    return [frames[0], header + wire._digest(frames[0], header, frames[2:]), *frames[2:]]


def forged(message: wire.Message, change: Callable[[list[Any]], None]) -> list[bytes]:
    """Return the message's frames after `change` has had its header, as plain lists."""
    topic, header, *arrays = (bytes(frame) for frame in wire.encode(message))
    fields = msgspec.msgpack.decode(header[:-8])
    change(fields)
    return sealed([topic, msgspec.msgpack.encode(fields) + bytes(8), *arrays])


def renamed(message: wire.Message, **names: str) -> list[bytes]:
    """Return the frames of a record or a heartbeat, its run named otherwise, and the record too."""

    def change(fields: list[Any]) -> None:
        for part in fields[2:]:
            if isinstance(part, dict):
                part.update({name: said for name, said in names.items() if name in part})

    return forged(message, change)
