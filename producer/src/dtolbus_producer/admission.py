"""How many connections a gateway has: beyond a bound nobody new comes in, so that the journal's files can be opened.

libzmq has no bound of its own. With no descriptor left it tries on for ever, which takes a whole core, and the gateway
can neither list a folder nor open a segment.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Literal

MOST_DESCRIPTORS = 1024
"""Nobody new comes in beyond; each connection has one, and takes about 25 kB."""
_DEFAULT_LIMIT = 256

_ATTACH_FILTER, _DETACH_FILTER = 26, 27
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A program of one instruction for the kernel's packet filter: return 0 bytes of the packet."""

Room = Literal["free", "full", "none"]
"""Of descriptors: for newcomers too; only for the journal; not even for that."""


def room_left() -> Room:
    """Return what there is room for. The lowest free descriptor tells: all below it are in use."""
    try:
        lowest = os.dup(2)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "none"
        return "free"
    os.close(lowest)
    return "free" if lowest < min(MOST_DESCRIPTORS, _limit() // 2) else "full"


def admit(listener: int, *, newcomers: bool) -> None:
    """Let newcomers in at a listening socket, or not: then they get no answer, and those who are in stay.

    Only Linux can do that; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    door = socket.socket(fileno=listener)
    try:
        if newcomers:
            door.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
        else:
            program = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
            door.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
    finally:
        door.detach()  # it stays libzmq's


def _limit() -> int:
    if sys.platform == "win32":
        return 2 * MOST_DESCRIPTORS  # sockets are no descriptors there
    import resource  # noqa: PLC0415  # Windows has none

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2 * MOST_DESCRIPTORS
