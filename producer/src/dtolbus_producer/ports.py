"""Whether a port can be had."""

import errno
import os
import socket

_WHY = {
    errno.EADDRINUSE: "in use: stop what uses it",
    errno.EACCES: "not allowed for this user: allow it",
}


def port_problem(host: str, port: int) -> str | None:
    """Return why the port cannot be had and what to do; None where it is free, or 0 (any free one)."""
    with socket.socket() as probe:
        if os.name != "nt":  # as the gateway's own socket: a port in TIME_WAIT is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return _WHY.get(error.errno or 0)
    return None
