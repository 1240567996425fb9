"""Whether a port can be had."""

import errno
import os
import socket

_WHY = {
    errno.EADDRINUSE: "in use: stop what uses it",
    errno.EACCES: "not allowed for this user: allow it",
}


def not_here(host: str) -> str:
    """Return what to say of a host that is no address of this machine."""
    return f"--host {host}: this machine has no such address; choose one that it has, or 0.0.0.0 for all of them"


def host_problem(host: str) -> str | None:
    """Return what is wrong with an IPv4 address that is to be bound; None where this machine has it."""
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            return not_here(host) if error.errno == errno.EADDRNOTAVAIL else None
    return None


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
