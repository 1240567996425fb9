"""Which address a gateway binds, who can reach it there, and whether that asks for keys. Pure."""

import ipaddress
from typing import Literal

from dtolbus.errors import CannotStartError

LOOPBACK, EVERY = "127.0.0.1", "0.0.0.0"  # noqa: S104  # what is bound asks for keys, or says that it does not

Protection = Literal["loopback", "keys", "none"]


def bind_address(host: str) -> str:
    """Return the IPv4 address that the host is. Raises CannotStartError for any other."""
    if host == "localhost":
        return LOOPBACK
    try:
        return str(ipaddress.IPv4Address(host))
    except ipaddress.AddressValueError as error:
        raise CannotStartError(
            f"--host {host}: give an IPv4 address of this machine, like 192.168.1.20, or {EVERY} for all of them"
        ) from error


def reached_at(host: str) -> str:
    """Return the address by which this machine itself reaches what is bound to the host. Raises CannotStartError."""
    address = bind_address(host)
    return LOOPBACK if address == EVERY else address


def protection(host: str, *, require_keys: bool, insecure_lan: bool) -> Protection:
    """Return what keeps strangers out: that they cannot reach the loopback, keys, or nothing.

    Raises CannotStartError for a host that is no address.
    """
    if require_keys:
        return "keys"
    if ipaddress.IPv4Address(bind_address(host)).is_loopback:
        return "loopback"
    return "none" if insecure_lan else "keys"


def insecure(host: str) -> str:
    """Return what to say at every start of a gateway that nothing protects."""
    return (
        f"served without keys at {host} (--insecure-lan): whoever reaches this machine can read everything, and "
        f"acknowledge in any sink's name, so that the journal deletes what nobody stored"
    )
